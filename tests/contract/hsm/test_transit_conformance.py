"""The conformance suite on Transit: the double always, and a real server where there is one.

OpenBao or HashiCorp Vault is started where `bao` or `vault` is on PATH; another one can be named by its address:

    STRONGROOM_TEST_TRANSIT='transit://127.0.0.1:8200/transit?plaintext-http=yes&token-source=file:/...'
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hsm.conformance.around_transit import AroundTransit
from hsm.conformance.suite import *  # noqa: F403
from tests.contract.hsm.transit_serving import secret_file, serving
from tests.support.transit_server import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

NAMED = os.environ.get("STRONGROOM_TEST_TRANSIT")


@pytest.fixture(scope="module", params=[*KINDS, *(["named"] if NAMED else [])])
def uris(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, client_ca: trustme.CA
) -> Iterator[tuple[str, str]]:
    """The backend under test, and the same by a log-in that may import keys."""
    if request.param == "named":
        yield NAMED, NAMED
        return
    folder = tmp_path_factory.mktemp("transit")
    with serving(request.param, folder, client_ca) as server:
        tokens = (server.new_token(), server.importing_token())
        mine, importing = (server.uri(f"token-source={secret_file(folder, token)}") for token in tokens)
        yield mine, importing


@pytest.fixture
def uri(uris: tuple[str, str]) -> str:
    return uris[0]


@pytest.fixture
def around(uris: tuple[str, str]) -> AroundTransit:
    return AroundTransit(*uris)


@pytest.fixture
def operations() -> int:
    return 2000
