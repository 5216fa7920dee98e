"""SoftHSM behind a proxy that can fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm import KeyAlgorithm, KeyRef, KeySpec, open_backend, softhsm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm import HsmBackend

from tests.faults.hsm.shim import Shim, use


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shim, str, Path]:
    """The proxy, the URI of a token behind it, and SoftHSM's configuration."""
    directory = tmp_path_factory.mktemp("proxied")
    shim = Shim.build(directory)
    use(shim)
    uri = shim.uri(softhsm.init_token(directory, "faults", directory / "pin"))
    return shim, uri, softhsm.config_file(directory)


@pytest.fixture
def shim(proxied: tuple[Shim, str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    monkeypatch.setenv("SOFTHSM2_CONF", str(proxied[2]))
    proxied[0].reset()
    # A process that was killed did not count its calls out again.
    proxied[0].active = proxied[0].hanging = 0
    yield proxied[0]
    proxied[0].reset()


@pytest.fixture
def uri(proxied: tuple[Shim, str, Path]) -> str:
    return proxied[1]


@pytest.fixture
def backend(shim: Shim, uri: str) -> Iterator[HsmBackend]:
    with open_backend(uri, sessions=4, wait_seconds=1.0, hang_seconds=0.3) as opened:
        yield opened
        shim.reset()
        for info in opened.list_keys("faults/"):
            opened.destroy_key(info.ref, confirm=info.ref.label)


@pytest.fixture
def kek(backend: HsmBackend) -> KeyRef:
    ref = KeyRef("faults/kek", os.urandom(16))
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    return ref
