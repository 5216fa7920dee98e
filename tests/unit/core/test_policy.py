"""Policy: deny by default, and nothing half-valid is ever in force."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.core.policy import Circumstances, Policy, load
from vault.crypto.scopes import parse
from vault.errors import Reason, StartError, VaultError

PAYMENTS = "spiffe://bank.example/payments"
POLICY = """
permit (
  principal == Strongroom::Identity::"spiffe://bank.example/payments",
  action == Strongroom::Action::"session.reveal",
  resource
) when { resource.pattern like "acme/stripe/*" && context.ttl_seconds <= 3600 };
forbid (principal, action, resource) when { context.device == "stolen" };
permit (principal, action, resource) when {
  principal.trust_domain == "ops.example" && context has ip && context.ip.isInRange(ip("10.0.0.0/8"))
};
"""


def granted(identity: str, *scopes: str, ttl: int = 60, device: str = "", ip: str = "192.0.2.1") -> bool:
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    circumstances = Circumstances("test", ttl, device, ip, moment)
    try:
        Policy(POLICY).refuse_ungranted(identity, [parse(scope) for scope in scopes], circumstances)
    except VaultError as error:
        assert error.reason is Reason.POLICY_DENIED
        return False
    return True


def test_what_a_policy_permits_is_granted_and_nothing_else() -> None:
    assert granted(PAYMENTS, "session.reveal:acme/stripe/live")
    assert not granted(PAYMENTS, "session.reveal:acme/plaid/live")
    assert not granted(PAYMENTS, "credential.write:acme/stripe/live")
    assert not granted("spiffe://bank.example/paymentsx", "session.reveal:acme/stripe/live")


def test_one_ungranted_scope_among_many_refuses_them_all() -> None:
    assert not granted(PAYMENTS, "session.reveal:acme/stripe/a", "session.reveal:acme/plaid/b")


def test_no_scope_at_all_is_a_refusal() -> None:
    assert not granted(PAYMENTS)


def test_conditions_on_life_device_and_network_are_looked_at() -> None:
    assert not granted(PAYMENTS, "session.reveal:acme/stripe/live", ttl=3601)
    assert not granted(PAYMENTS, "session.reveal:acme/stripe/live", device="stolen")
    assert granted("spiffe://ops.example/ops", "key.rotate:acme/keys", ip="10.1.2.3")
    assert not granted("spiffe://ops.example/ops", "key.rotate:acme/keys", ip="11.1.2.3")
    assert not granted("spiffe://ops.example/ops", "key.rotate:acme/keys", ip="")


@pytest.mark.parametrize(
    ("condition", "circumstances", "otherwise"),
    [
        ('context.purpose like "CHG-*"', {"purpose": "CHG-12"}, ({"purpose": "CHG12"}, {"purpose": ""})),
        ("context.approvals >= 2", {"approvals": 2}, ({"approvals": 0}, {"approvals": 1})),
        (
            'context.time < datetime("2026-01-01T18:00:00Z")',
            {"time": datetime.datetime(2026, 1, 1, 17, 59, 59, tzinfo=datetime.UTC)},
            ({"time": datetime.datetime(2026, 1, 1, 18, tzinfo=datetime.UTC)},),
        ),
        (
            'context.time.toTime() >= duration("8h") && context.time.toTime() < duration("18h")',
            {"time": datetime.datetime(2026, 6, 1, 8, tzinfo=datetime.UTC)},
            ({"time": datetime.datetime(2026, 6, 1, 7, 59, tzinfo=datetime.UTC)},),
        ),
    ],
    ids=["purpose", "approvals", "moment", "time of day"],
)
def test_conditions_on_purpose_approvals_and_time_are_looked_at(
    condition: str, circumstances: dict[str, Any], otherwise: tuple[dict[str, Any], ...]
) -> None:
    policy = Policy(f"permit (principal, action, resource) when {{ {condition} }};")
    usual = Circumstances("", 60, "", "", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))

    def allowed(changes: dict[str, Any]) -> bool:
        seen = dataclasses.replace(usual, **changes)
        (judged,) = policy.judge(PAYMENTS, [parse("session.reveal:acme/a")], seen)
        return judged.allowed

    assert allowed(circumstances)
    assert not any(map(allowed, otherwise))


@pytest.mark.parametrize("pattern", ["acme/**", "acme/*", "acme/*/live", "globex/**"])
def test_a_pattern_wider_than_the_policys_is_not_granted(pattern: str) -> None:
    assert not granted(PAYMENTS, f"session.reveal:{pattern}")


@pytest.mark.parametrize("pattern", ["acme/stripe/**", "acme/stripe/*", "acme/stripe/*/live"])
def test_a_pattern_within_the_policys_is_granted(pattern: str) -> None:
    assert granted(PAYMENTS, f"session.reveal:{pattern}")


@given(st.lists(st.sampled_from(["acme", "stripe", "x", "*"]), min_size=1, max_size=4))
def test_granting_a_pattern_grants_no_name_that_the_policy_would_not(segments: list[str]) -> None:
    pattern = "/".join(["acme", *segments])
    if granted(PAYMENTS, f"session.reveal:{pattern}"):
        assert granted(PAYMENTS, f"session.reveal:{pattern.replace('*', 'any')}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "permit (principal, action, resource",
        "permit (principal, action, resource) when { principal.nothing };",
        'permit (principal, action == Strongroom::Action::"no.such", resource);',
        'permit (principal == User::"x", action, resource);',
    ],
)
def test_a_policy_that_is_empty_malformed_or_beside_the_schema_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="policy"):
        Policy(text)


def test_a_policy_file_that_cannot_be_read_is_named(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(StartError, match="absent"):
        load([Path(str(tmp_path)) / "absent.cedar"])
