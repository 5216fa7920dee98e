"""Kinds: the fields of each, what each is for, and what may never be stored."""

from __future__ import annotations

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import self_signed
from vault.crypto import kinds

CERTIFICATE = self_signed(ec.generate_private_key(ec.SECP256R1()), "acme")

GOOD: dict[str, dict[str, bytes]] = {
    "plaid_app": {"client_id": b"id", "secret": b"s"},
    "plaid_item": {"access_token": b"access-sandbox-1", "item_id": b"i"},
    "stripe_account": {"webhook_secret": b"whsec_1", "previous_webhook_secret": b"whsec_0"},
    "braintree_merchant": {"public_key": b"p", "private_key": b"s", "merchant_id": b"m"},
    "adyen_merchant": {"hmac_key": b"0" * 64},
    "gocardless_merchant": {"access_token": b"t"},
    "bank_login": {"username": b"u", "password": b"p", "totp_seed": b"GEZDGNBVGY3TQOJQ"},
    "oauth_client": {"client_id": b"c", "client_secret": b"s"},
    "oauth_grant": {"refresh_token": b"r", "expires_at": b"1700000000"},
    "webhook_secret": {"webhook_secret": b"s"},
    "webhook_endpoint": {"signing_secret": b"whsec_" + b"A" * 44},
    "api_key": {"api_key": b"k"},
    "tls_client": {
        "private_key": b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n",
        "certificate": CERTIFICATE,
    },
    "hsm_signing_key": {
        "private_key": b'{"backend":"pkcs11:1","label":"sr/sign/a","object_id":"00"}',
        "algorithm": b"ES256",
        "kid": b"bank-1",
        "formats": b"http",
    },
    "signing_key": {
        "private_key": b"-----BEGIN EC PRIVATE KEY-----\nAA\n-----END EC PRIVATE KEY-----\n",
        "algorithm": b"ES256", "formats": b"jws http", "kid": b"key-1",
    },
    "generic": {"anything": b""},
}  # fmt: skip


def test_every_kind_has_an_example_here() -> None:
    assert set(GOOD) == {*kinds.KINDS, "generic"}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_example_is_good(kind: str) -> None:
    kinds.check(kind, GOOD[kind])


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_kind_needs_its_fields_knows_no_other_and_takes_no_empty_value(kind: str) -> None:
    for fields in ({}, {**GOOD[kind], "other": b"x"}, dict.fromkeys(GOOD[kind], b"")):
        with pytest.raises(kinds.KindError):
            kinds.check(kind, fields)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("stripe_account", "api_key", b"sk_test\r\nX: y"),
        ("plaid_item", "access_token", b"access token"),
        ("adyen_merchant", "hmac_key", b"0" * 63),
        ("bank_login", "totp_seed", b"not base 32!"),
        ("signing_key", "algorithm", b"RS256"),
        ("signing_key", "formats", b"jws,raw"),
        ("signing_key", "kid", b'a"b'),
        ("oauth_grant", "expires_at", b"tomorrow"),
        ("tls_client", "certificate", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
        ("signing_key", "certificate", CERTIFICATE.replace(b"\nMII", b"\nMIJ", 1)),
    ],
)
def test_a_value_has_the_form_of_its_field_and_is_not_repeated(kind: str, field: str, value: bytes) -> None:
    with pytest.raises(kinds.KindError) as caught:
        kinds.check(kind, {**GOOD[kind], field: value})
    assert caught.value.field == field
    assert value.decode() not in str(caught.value)


def test_a_kind_with_certificates_ends_with_the_first_of_them_and_any_other_never() -> None:
    year = self_signed(ec.generate_private_key(ec.SECP256R1()), "acme", datetime.timedelta(days=365))
    ends = kinds.expire_time("tls_client", {**GOOD["tls_client"], "certificate": year + CERTIFICATE})
    assert ends == kinds.expire_time("tls_client", GOOD["tls_client"])
    assert ends is not None
    assert ends < datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert kinds.expire_time("signing_key", GOOD["signing_key"]) is None
    assert kinds.expire_time("generic", {"certificate": CERTIFICATE}) is None


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(kinds.KindError) as caught:
        kinds.check("card", {"number": b"x"})
    assert caught.value.field == "kind"


@pytest.mark.parametrize(
    "name",
    ["cvv", "cvc", "cvv2", "card_cvv", "csc", "security_code", "card_verification_value", "pin_block",
     "card_pin", "encrypted_pin", "track1", "track_2", "track2_data", "magstripe", "full_track", "cvv_code", "cvc_1",
     "customer_cvv", "cvv2_value", "icvv", "card_cvn2", "card_cid", "card_security_code_2", "iso0_pin_block",
     "pin_block_hex", "card_track2", "track2_equivalent_data", "raw_track_1", "trackdata", "magnetic_stripe",
     "swipe_data", "cardsecuritycode", "card_pin_encrypted"],
)  # fmt: skip
def test_what_pci_dss_forbids_is_refused_by_name_in_every_kind(name: str) -> None:
    for kind in ("generic", "imported", "bank_login"):
        with pytest.raises(kinds.ForbiddenError):
            kinds.check(kind, {name: b"123"})
    with pytest.raises(kinds.ForbiddenError):
        kinds.check_storable({name: b"123"})


@pytest.mark.parametrize(
    "value",
    [
        b"%B4111111111111111^DOE/JOHN^29121010000000000000?",
        b";4111111111111111=29121010000000000000?",
        b'{"swipe": ";4111111111111111=2912101?"}',
        b"B4111111111111111^DOE/JOHN^2912101",
        b"4111111111111111=29121010000012300000",
        b'{"tag57": "4111111111111111D29121010000012300000F"}',
    ],
)
def test_track_data_is_refused_by_its_form_under_any_name(value: bytes) -> None:
    with pytest.raises(kinds.ForbiddenError):
        kinds.check_storable({"notes": value})


@pytest.mark.parametrize(
    "value",
    [
        b'{"card": {"number": "4111111111111111", "cvv": "123"}}',
        b'{"cvc2": 1234}',
        rb'{"request": "{\"cvv\": \"123\"}"}',
        b"number=4111111111111111&cvv=123&expiry=2912",
        b"<card><cvv>123</cvv></card>",
        b"<CardSecurityCode>1234</CardSecurityCode>",
        b"cardVerificationValue: 123",
        b'{"pinBlock": "0412AC89ABCDEF67"}',
    ],
)
def test_a_verification_code_or_pin_block_is_refused_within_a_field_too(value: bytes) -> None:
    with pytest.raises(kinds.ForbiddenError) as caught:
        kinds.check_storable({"notes": memoryview(value)})
    assert caught.value.field == "notes"
    assert "123" not in str(caught.value)


def test_what_only_looks_a_little_like_it_may_be_stored() -> None:
    kinds.check_storable({"spinner": b"1", "tracking_id": b"4111111111111111", "description": b"a;1=2"})
    for name in ("pin", "client_cid", "security_question", "cscart_key", "track_and_trace_url", "soundtrack"):
        kinds.check_storable({name: b"1234"})
    for value in (
        b'{"cvc_check": "pass", "cvv": ""}',
        b'{"verification_code": "123456"}',
        b"4111111111111112=29121010000012300000",  # its check digit is wrong
        b"https://bank.example/?1234567890123=2512101",
        b"a" * 12 + b"D4111111111111111D2912101",
    ):
        kinds.check_storable({"notes": value})


def test_a_field_is_for_its_uses_only() -> None:
    assert kinds.allows("stripe_account", "webhook_secret", kinds.VERIFY_WEBHOOK)
    for use in (kinds.HMAC, kinds.HTTP_CALL, kinds.SIGN, kinds.TOTP):
        assert not kinds.allows("stripe_account", "webhook_secret", use)
    assert not kinds.allows("stripe_account", "nothing", kinds.HTTP_CALL)
    assert kinds.allows("generic", "anything", kinds.HMAC)


def test_public_fields_may_show_in_an_answer_and_all_else_may_not() -> None:
    assert not kinds.is_secret("plaid_item", "item_id")
    assert kinds.is_secret("plaid_item", "access_token")
    assert kinds.is_secret("generic", "anything")
