"""A pytest plugin for running the suite by itself: the option that names the backend."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"hsm.conformance.{name}"
        for name in ("support", "data_keys", "hard_cases", "key_life", "other_uses", "wrapped_keys")
    )
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--hsm-uri`."""
    parser.addoption("--hsm-uri", help="URI of the backend to be tested, as `hsm.open_backend` takes it")


@pytest.fixture(scope="session")
def uri(pytestconfig: pytest.Config) -> str:
    """The backend under test."""
    given = pytestconfig.getoption("--hsm-uri", default=None)
    if not given:
        pytest.skip("no --hsm-uri is given")
    return str(given)
