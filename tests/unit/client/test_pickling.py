"""What can go to another process: errors and profiles. What holds a connection or a secret says that it cannot."""

from __future__ import annotations

import pickle
from pathlib import Path

import grpc
import pytest

from vault.client import AsyncClient, Client, Profile, SessionClosedError, StrongroomError
from vault.v1 import session_pb2


def test_a_refusal_is_the_same_in_another_process() -> None:
    error = StrongroomError(grpc.StatusCode.NOT_FOUND, "CREDENTIAL_NOT_FOUND", "no such", {"limit": "x"})
    there = pickle.loads(pickle.dumps(error))
    assert (there.code, there.reason, there.message, there.metadata) == (
        grpc.StatusCode.NOT_FOUND, "CREDENTIAL_NOT_FOUND", "no such", {"limit": "x"},
    )  # fmt: skip
    assert str(there) == str(error)


def test_the_end_of_a_session_is_the_same_in_another_process() -> None:
    closed = session_pb2.SessionClosed(reason=session_pb2.CLOSE_REASON_EXPIRED, reveals=3)
    there = pickle.loads(pickle.dumps(SessionClosedError(closed)))
    assert (there.closed, str(there)) == (closed, "the session has ended: expired")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_says_what_to_pickle_instead(kind: type[Client | AsyncClient]) -> None:
    with pytest.raises(TypeError, match="pickle its profile"):
        pickle.dumps(kind.__new__(kind))  # type: ignore[call-overload]


def test_a_profile_is_the_same_in_another_process() -> None:
    profile = Profile("localhost:1", Path("ca"), Path("c"), Path("k"), "acme", ("credential.read:acme/**",))
    assert pickle.loads(pickle.dumps(profile)) == profile
