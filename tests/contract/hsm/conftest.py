"""A real SoftHSM token for the tests of the PKCS#11 backend, and servers for those of Transit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme

from hsm import open_backend, softhsm
from tests.contract.hsm.transit_serving import serving
from tests.support.transit_server import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm import HsmBackend
    from tests.contract.hsm.transit_double import Double
    from tests.support.transit_server import TransitServer


@pytest.fixture(scope="session")
def softhsm_token(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A token of these tests' own: its URI, and its configuration."""
    directory = tmp_path_factory.mktemp("softhsm")
    return softhsm.init_token(directory, "contract", directory / "pin"), softhsm.config_file(directory)


@pytest.fixture
def token_uri(softhsm_token: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    # For one test at a time: other tests of the same run have tokens of their own.
    monkeypatch.setenv("SOFTHSM2_CONF", str(softhsm_token[1]))
    return softhsm_token[0]


@pytest.fixture
def backend(token_uri: str) -> Iterator[HsmBackend]:
    with open_backend(token_uri, sessions=4) as opened:
        yield opened


@pytest.fixture(scope="session")
def client_ca() -> trustme.CA:
    """The CA whose certificates the servers take as a log-in."""
    return trustme.CA()


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, client_ca: trustme.CA
) -> Iterator[Double | TransitServer]:
    """The double, and then the real one: what is asked of it is answered alike."""
    with serving(request.param, tmp_path_factory.mktemp("transit-server"), client_ca) as running:
        yield running
