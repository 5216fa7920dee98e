"""The proof of promise 4 in small; `make prove-memory` is the whole, with a thousand sessions."""

from __future__ import annotations

import pytest

from tests.memory import proof
from vault.core.uses.table import ACTIONS
from vault.crypto import kinds


def test_every_kind_of_credential_and_every_use_is_in_it() -> None:
    # One kind holds no secret: its key is in the HSM.
    holding = {*kinds.KINDS, *kinds.UNTYPED} - {kinds.HSM_SIGNING_KEY}
    assert {credential.kind for credential in proof.credentials()} == holding
    assert {use.action for use in proof.USES} == set(ACTIONS)


@pytest.mark.timeout(900)
def test_nothing_is_left_of_any_secret_when_all_sessions_are_closed() -> None:
    found = proof.prove(2 * len(proof.USES))
    assert found.while_open, "the scan does not see what is there"
    assert not any(found.after.values())


@pytest.mark.timeout(900)
def test_a_server_that_keeps_one_copy_is_found_out() -> None:
    assert any(proof.prove(2, leak=True).after.values())
