"""Verifying webhooks. The oracles are the providers' own libraries and the test cases they publish."""

from __future__ import annotations

import base64
import datetime
import hmac
import json
from typing import TYPE_CHECKING

import pytest
import stripe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from vault.core.uses.verify_webhook import Scheme, verify
from vault.core.uses.webhooks.verdict import Secret, Verdict
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from vault.core.uses.webhooks.verdict import Verification

NOW = 1_700_000_000
SECRET = b"whsec_test_secret"
STANDARD = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def stripe_header(body: bytes, secret: bytes = SECRET, moment: int = NOW) -> str:
    signature = stripe.WebhookSignature._compute_signature(f"{moment}.{body.decode()}", secret.decode())
    return f"t={moment},v1={signature}"


def check(
    header: str, body: bytes, *, now: float = NOW, secrets: dict[str, bytes] | None = None
) -> Verification:
    views = [
        Secret(name, memoryview(secret)) for name, secret in (secrets or {"webhook_secret": SECRET}).items()
    ]
    return verify(Scheme.STRIPE, views, {"Stripe-Signature": header}, body, now)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_what_stripes_library_signs_is_valid(text: str) -> None:
    body = text.encode()
    assert check(stripe_header(body), body) == (Verdict.VALID, "webhook_secret")


@given(st.binary(), st.binary())
def test_a_signature_is_good_for_its_own_body_only(body: bytes, other: bytes) -> None:
    header = stripe_header(b"{}")
    assert (check(header, body).verdict is Verdict.VALID) == (body == b"{}")
    del other


def test_while_a_secret_is_rolled_either_of_two_secrets_and_either_of_two_signatures_will_do() -> None:
    old, new = b"whsec_old", b"whsec_new"
    body = b'{"id":"evt_1"}'
    signatures = [stripe_header(body, secret).split("v1=")[1] for secret in (old, new)]
    header = f"t={NOW},v1={signatures[0]},v1={signatures[1]}"
    assert check(header, body, secrets={"current": new}) == (Verdict.VALID, "current")
    assert check(stripe_header(body, old), body, secrets={"current": new, "previous": old}) == (
        Verdict.VALID,
        "previous",
    )


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        ("", Verdict.HEADER_INVALID),
        ("v1=abc", Verdict.HEADER_INVALID),
        ("t=abc,v1=00", Verdict.HEADER_INVALID),
        ("t=-5,v1=00", Verdict.HEADER_INVALID),
        (f"t={NOW}", Verdict.HEADER_INVALID),
        (f"t={NOW},t={NOW},v1=00", Verdict.HEADER_INVALID),
        (f"t={NOW}," + ",".join(["v1=00"] * 17), Verdict.HEADER_INVALID),
        (f"t={NOW},v1=", Verdict.SIGNATURE_MISMATCH),
        (f"t={NOW},v1={'0' * 64}", Verdict.SIGNATURE_MISMATCH),
        (f"t={NOW},v1=é", Verdict.SIGNATURE_MISMATCH),
    ],
)
def test_a_malformed_or_forged_header_is_told_apart(header: str, verdict: Verdict) -> None:
    assert check(header, b"{}").verdict is verdict


def test_another_scheme_than_v1_is_ignored() -> None:
    good = stripe_header(b"{}").split("v1=")[1]
    assert check(f"t={NOW},v0={good}", b"{}").verdict is Verdict.HEADER_INVALID


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(300, Verdict.VALID), (301, Verdict.TOO_OLD), (-300, Verdict.VALID), (-301, Verdict.TOO_NEW)],
)
def test_a_genuine_signature_is_good_for_five_minutes_either_way(age: int, verdict: Verdict) -> None:
    assert check(stripe_header(b"{}"), b"{}", now=NOW + age).verdict is verdict


def test_age_is_only_told_to_who_knows_the_secret() -> None:
    forged = stripe_header(b"{}", b"whsec_other", NOW - 10_000)
    assert check(forged, b"{}").verdict is Verdict.SIGNATURE_MISMATCH


def standard(
    body: bytes, headers: dict[str, str], secret: bytes = STANDARD, now: float = NOW
) -> Verification:
    return verify(Scheme.STANDARD_WEBHOOKS, [Secret("secret", memoryview(secret))], headers, body, now)


def standard_headers(body: bytes, moment: int = NOW) -> dict[str, str]:
    when = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    signature = Webhook(STANDARD.decode()).sign("msg_1", when, body.decode())
    return {"Webhook-Id": "msg_1", "webhook-timestamp": str(moment), "WEBHOOK-SIGNATURE": signature}


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_what_the_standard_webhooks_library_signs_is_valid(text: str) -> None:
    body = text.encode()
    assert standard(body, standard_headers(body)).verdict is Verdict.VALID


def test_the_specifications_own_example_is_valid() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert standard(b'{"test": 2432232314}', headers, now=1_614_265_330).verdict is Verdict.VALID


def test_one_good_signature_among_several_is_enough() -> None:
    headers = standard_headers(b"{}")
    headers["WEBHOOK-SIGNATURE"] = "v1,AAAA v1a,BBBB " + headers["WEBHOOK-SIGNATURE"]
    assert standard(b"{}", headers).verdict is Verdict.VALID


@pytest.mark.parametrize("missing", ["Webhook-Id", "webhook-timestamp", "WEBHOOK-SIGNATURE"])
def test_a_missing_header_is_named_as_such(missing: str) -> None:
    headers = standard_headers(b"{}")
    del headers[missing]
    assert standard(b"{}", headers).verdict is Verdict.HEADER_INVALID


@pytest.mark.parametrize("secret", [b"", b"whsec_", b"whsec_!", b"whsec_AA"])
def test_a_field_that_is_no_secret_of_the_scheme_is_refused_and_not_repeated(secret: bytes) -> None:
    with pytest.raises(VaultError) as caught:
        standard(b"{}", standard_headers(b"{}"), secret)
    assert caught.value.reason is Reason.SECRET_UNSUITABLE
    assert json.dumps(str(caught.value)).count("whsec_") == 0


def test_a_webhook_signed_with_ed25519_is_verified_with_the_public_key_alone() -> None:
    signing = Ed25519PrivateKey.generate()
    public = b"whpk_" + base64.b64encode(signing.public_key().public_bytes_raw())
    signature = base64.b64encode(signing.sign(f"msg_1.{NOW}.".encode() + b"{}")).decode()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": f"v1,AAAA v1a,!! v1a,{signature}",
    }
    assert standard(b"{}", headers, public).verdict is Verdict.VALID
    assert standard(b"{ }", headers, public).verdict is Verdict.SIGNATURE_MISMATCH
    # A public key is never taken for the key of an HMAC, though anybody could make one with it.
    forged = base64.b64encode(hmac.digest(public, f"msg_1.{NOW}.".encode() + b"{}", "sha256")).decode()
    headers["webhook-signature"] = f"v1,{forged}"
    assert standard(b"{}", headers, public).verdict is Verdict.SIGNATURE_MISMATCH
