"""The conformance suite on Transit: the double always, a real server where the environment names one.

STRONGROOM_TEST_TRANSIT='transit://127.0.0.1:8200/transit?plaintext-http=yes&token-source=file:/...'
"""

from __future__ import annotations

import os

import pytest

from hsm.conformance.suite import *  # noqa: F403
from tests.contract.hsm.transit_double import Double

REAL = os.environ.get("STRONGROOM_TEST_TRANSIT")


@pytest.fixture(scope="module", params=["double", *(["real"] if REAL else [])])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if request.param == "real":
        yield REAL
        return
    double = Double()
    token = tmp_path_factory.mktemp("transit") / "token"
    token.write_text(double.new_token())
    token.chmod(0o400)
    yield double.uri(f"token-source=file:{token}")
    double.close()


@pytest.fixture
def operations() -> int:
    return 2000
