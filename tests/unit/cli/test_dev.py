"""The development vault's policy grants what its profiles ask for; who looks after the vault opens nothing."""

from __future__ import annotations

import datetime
import socket
from importlib import resources

import pytest

from tests.support.postgres import free_port
from vault.cli import dev
from vault.core.policy import Circumstances, Policy
from vault.crypto import scopes
from vault.errors import StartError

POLICY = Policy(resources.files("vault.cli").joinpath("development.cedar").read_text())
HOUR = Circumstances("", 3600, "", "127.0.0.1", datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC))


def allowed(profile: str, *wanted: str) -> list[bool]:
    identity = f"spiffe://{dev._TRUST_DOMAIN}/{dev._CERTIFICATES[profile]}"
    return [judged.allowed for judged in POLICY.judge(identity, [scopes.parse(one) for one in wanted], HOUR)]


@pytest.mark.parametrize("profile", dev._PROFILES)
def test_a_profile_is_granted_what_it_asks_for(profile: str) -> None:
    tenant, wanted = dev._PROFILES[profile]
    assert all(allowed(profile, *wanted))
    assert all(scopes.parse(scope).resource.startswith(f"{tenant}/") for scope in wanted)


@pytest.mark.parametrize("profile", ["operator", "operator-system", "auditor", "officer", "policy"])
def test_who_looks_after_the_vault_opens_nothing(profile: str) -> None:
    opening = [f"{action}:acme/**" for action in sorted(scopes.ACTIONS) if action.startswith("session.")]
    assert not any(allowed(profile, *opening))


def test_an_auditor_reads_and_verifies_and_changes_nothing() -> None:
    reading = {"audit.read", "audit.verify", "policy.read", "approval.read"}
    for action in scopes.ACTIONS:
        scope_of = (f"{action}:{tenant}/**" for tenant in ("acme", "system"))
        assert set(allowed("auditor", *scope_of)) == {action in reading}, action


def test_a_port_that_another_vaults_workers_share_is_not_taken() -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with (
        socket.create_server(("127.0.0.1", port), reuse_port=True),
        pytest.raises(StartError, match="cannot listen on"),
    ):
        dev.refuse_taken(address)
    dev.refuse_taken(address)
    for bad in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ""):
        with pytest.raises(StartError, match="cannot listen on"):
            dev.refuse_taken(bad)


def test_nobody_signs_for_what_they_may_do() -> None:
    for action, resource, asks, signs in (
        ("key.destroy", "acme/keys", "operator", "officer"),
        ("policy.write", "system/policy", "officer", "operator"),
    ):
        assert allowed(asks, f"{action}:{resource}", f"approval.approve:{resource}") == [True, False]
        assert allowed(signs, f"{action}:{resource}", f"approval.approve:{resource}") == [False, True]
