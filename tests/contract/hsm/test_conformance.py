"""The conformance suite on SoftHSM, once with each way to wrap, and in a process of its own."""

from __future__ import annotations

import pytest

from hsm.conformance.suite import *  # noqa: F403


@pytest.fixture(params=["aes-gcm", "aes-kwp", "isolated"])
def uri(request: pytest.FixtureRequest, token_uri: str) -> str:
    if request.param == "isolated":
        return f"{token_uri}&x-isolation=process"
    return f"{token_uri}&x-wrap-scheme={request.param}"


@pytest.fixture
def operations(uri: str) -> int:
    return 20_000 if "isolation" in uri else 100_000


@pytest.fixture
def leak_of_the_module(uri: str) -> int:
    # SoftHSM 2.6.1 loses some 270 bytes with every object that it unwraps and destroys again.
    return 300 if "aes-kwp" in uri else 0
