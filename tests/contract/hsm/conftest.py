"""A real SoftHSM token for the tests of the PKCS#11 backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hsm import open_backend, softhsm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm import HsmBackend


@pytest.fixture(scope="session")
def token_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("softhsm")
    uri = softhsm.init_token(directory, "contract", directory / "pin")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(softhsm.config_file(directory))
    yield uri
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture
def backend(token_uri: str) -> Iterator[HsmBackend]:
    with open_backend(token_uri, sessions=4) as opened:
        yield opened
