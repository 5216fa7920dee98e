"""Around the PKCS#11 backend: raw calls on the token."""

# The methods are described by `Around`.
# ruff: noqa: D102

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

from hsm import WrapScheme
from hsm.open import open_pkcs11
from hsm.pkcs11 import steal
from hsm.pkcs11.backend import Pkcs11Backend
from hsm.pkcs11.module import Module
from hsm.uri import parse_pkcs11

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkcs11.types import Session

    from hsm import KeyRef

T = TypeVar("T")


class AroundPkcs11:
    """One token, opened in this process for each call, whatever its URI says of isolation."""

    def __init__(self, uri: str) -> None:
        self._uri = parse_pkcs11(uri)

    def steal(self, ref: KeyRef) -> list[str]:
        return self._on_session(lambda session: steal.attempts_on(session, ref))

    def plant(self, ref: KeyRef, key: bytes, scheme: WrapScheme) -> None:
        if scheme is WrapScheme.AES_KWP:
            uses = {Attribute.WRAP: True, Attribute.UNWRAP: True}
        else:
            uses = {Attribute.ENCRYPT: True, Attribute.DECRYPT: True}
        template: dict[Attribute, Any] = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.LABEL: ref.label,
            Attribute.ID: ref.object_id,
            Attribute.VALUE: key,
            **uses,
        }
        self._on_session(lambda session: session.create_object(template))

    @contextlib.contextmanager
    def log_ins(self) -> Iterator[list[str]]:
        if self._uri.isolated:
            pytest.skip("the log-in is made in a process of its own")
        answers: list[str] = []
        initialize = Module.initialize

        def watched(module: Module) -> None:
            initialize(module)
            real = module.functions.C_Login

            def login(*arguments: object) -> int:
                answer: int = real(*arguments)
                answers.append(f"0x{answer:x}")
                return answer

            patch.setattr(module.functions, "C_Login", login)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Module, "initialize", watched)
            yield answers

    def _on_session(self, work: Callable[[Session], T]) -> T:
        opened = open_pkcs11(self._uri, sessions=1, wait_seconds=10.0, hang_seconds=60.0, cached_keys=1)
        with opened as backend:
            assert isinstance(backend, Pkcs11Backend)
            return backend._runner.alone("around", lambda worker: work(worker.session))  # noqa: SLF001
