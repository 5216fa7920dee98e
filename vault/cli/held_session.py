"""The session that an operation is done on: the one that `session open` holds, or one for this operation alone."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vault.cli.connect import client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vault.client import Session

_HELD: ContextVar[Session | None] = ContextVar("session", default=None)


def held() -> Session | None:
    """The session that is held; None outside of `session open`."""
    return _HELD.get()


@contextmanager
def holding(session: Session) -> Iterator[None]:
    """Operations in this block are done on this session."""
    token = _HELD.set(session)
    try:
        yield
    finally:
        _HELD.reset(token)


@contextmanager
def session_on(*names: str, purpose: str, profile: Path, token_file: Path | None) -> Iterator[Session]:
    """The session that is held, or one on these credentials that ends with the block."""
    session = held()
    if session is not None:
        yield session
        return
    with client(profile, token_file) as vault, vault.session(*names, purpose=purpose) as session:
        yield session
