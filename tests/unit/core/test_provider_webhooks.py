"""Webhooks of Plaid, Braintree, Adyen and GoCardless. The oracles are the providers' own libraries and test cases."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from Adyen.util import generate_notification_sig
from braintree.util.crypto import Crypto
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from vault.core.uses.verify_webhook import Scheme, verify
from vault.core.uses.webhooks.verdict import Secret, Verdict, Verification
from vault.errors import Reason, VaultError

NOW = 1_700_000_000


def b64(data: bytes | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Plaid:
    """A signer with keys of its own, as Plaid's."""

    def __init__(self, kid: str = "key-1", expired_at: int | None = None) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.jwk = {
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "created_at": 1,
            "expired_at": expired_at, "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big")),
        }  # fmt: skip

    def header(self, body: bytes, moment: int = NOW, **header: Any) -> str:
        claims = {"iat": moment, "request_body_sha256": hashlib.sha256(body).hexdigest()}
        signed = f"{b64({'alg': 'ES256', 'kid': self.jwk['kid'], 'typ': 'JWT', **header})}.{b64(claims)}"
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def plaid(header: str, body: bytes, *jwks: dict[str, Any], now: float = NOW) -> Verification:
    secret = Secret("webhook_keys", memoryview(json.dumps({"keys": list(jwks)}).encode()))
    return verify(Scheme.PLAID, [secret], {"Plaid-Verification": header}, body, now)


def test_what_plaid_signed_is_valid() -> None:
    # A genuine signature of Plaid's sandbox: the JWK from plaid-ruby's tests, the webhook from elixir-plaid's.
    jwk = {
        "alg": "ES256", "created_at": 1560466143, "crv": "P-256", "expired_at": None,
        "kid": "6c5516e1-92dc-479e-a8ff-5a51992e0001", "kty": "EC", "use": "sig",
        "x": "35lvC8uz2QrWpQJ3TUH8t9o9DURMp7ydU518RKDl20k", "y": "I8BuXB2bvxelzJAd7OKhd-ZwjCst05Fx47Mb_0ugros",
    }  # fmt: skip
    jwt = (
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IjZjNTUxNmUxLTkyZGMtNDc5ZS1hOGZmLTVhNTE5OTJlMDAwMSIsInR5cCI6IkpXVCJ9"
        ".eyJpYXQiOjE2MTQ1Nzg2MTcsInJlcXVlc3RfYm9keV9zaGEyNTYiOiIyM2JhM2IxNzcwMjk0ZWVlYWJhM2JmZjc1NTdjNjJl"
        "ZDZkNmU4MzMzYjZkMmFmZjcyNDIxMWI0N2FkYjVhYWYyIn0"
        ".TClT2hrFCjlQSc3WbQ0GpBdwjP9InvTXaMfDYbtFJTlKXua_3tejuuHm4NzYQtCV-lXJ4fub3kLoQFkfi234_Q"
    )
    body = json.dumps(
        {
            "error": None, "item_id": "lvMEnMo5m9ivMdZeemZVtJP8zGXVJDiLPKkEp", "new_transactions": 0,
            "webhook_code": "DEFAULT_UPDATE", "webhook_type": "TRANSACTIONS",
        }, indent=2,
    ).encode()  # fmt: skip
    moment = 1614578617
    assert plaid(jwt, body, jwk, now=moment) == (Verdict.VALID, "webhook_keys")
    assert plaid(jwt, body, jwk, now=moment + 300).verdict is Verdict.VALID
    assert plaid(jwt, body, jwk, now=moment + 301).verdict is Verdict.TOO_OLD
    assert plaid(jwt, body.replace(b"  ", b""), jwk, now=moment).verdict is Verdict.SIGNATURE_MISMATCH


def test_the_key_is_found_by_its_id_among_several_and_an_unknown_or_expired_one_is_told() -> None:
    one, two, old = Plaid("one"), Plaid("two"), Plaid("old", expired_at=NOW - 1)
    assert plaid(two.header(b"{}"), b"{}", one.jwk, two.jwk).verdict is Verdict.VALID
    assert plaid(two.header(b"{}"), b"{}", one.jwk).verdict is Verdict.KEY_UNKNOWN
    assert plaid(old.header(b"{}"), b"{}", old.jwk).verdict is Verdict.KEY_UNKNOWN
    impostor = Plaid("one")
    assert plaid(impostor.header(b"{}"), b"{}", one.jwk).verdict is Verdict.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "HS256"}, {"alg": "ES384"}, {"alg": ["ES256"]}, {"crit": ["exp"]}, {"kid": 7},
        {"kid": "../../etc"}, {"kid": ""},
    ],
)  # fmt: skip
def test_the_header_decides_nothing(header: dict[str, Any]) -> None:
    signer = Plaid()
    assert plaid(signer.header(b"{}", **header), b"{}", signer.jwk).verdict is Verdict.HEADER_INVALID


def test_a_key_inside_the_header_is_not_looked_at() -> None:
    signer, impostor = Plaid("one"), Plaid("one")
    header = impostor.header(b"{}", jwk=impostor.jwk, jku="https://example.com/keys")
    assert plaid(header, b"{}", signer.jwk).verdict is Verdict.SIGNATURE_MISMATCH


@pytest.mark.parametrize("jwt", ["", "a.b", "a.b.c", "..", "e30.e30." + "A" * 86, "x" * 4000, "W10.e30.AA"])
def test_what_is_no_jwt_is_told_apart(jwt: str) -> None:
    assert plaid(jwt, b"{}", Plaid().jwk).verdict is Verdict.HEADER_INVALID


def test_a_field_that_is_no_jwk_is_refused() -> None:
    signer = Plaid()
    for text in (b"whsec_x", b"7", b'{"keys": 7}', json.dumps({**signer.jwk, "kty": "RSA"}).encode()):
        with pytest.raises(VaultError) as caught:
            verify(
                Scheme.PLAID, [Secret("k", memoryview(text))],
                {"plaid-verification": signer.header(b"{}")}, b"{}", NOW,
            )  # fmt: skip
        assert caught.value.reason is Reason.SECRET_UNSUITABLE


PRIVATE, PUBLIC = "integration_private_key", "integration_public_key"


def braintree_form(xml: str, private: str = PRIVATE, public: str = PUBLIC) -> bytes:
    payload = base64.encodebytes(xml.encode()).decode()
    signature = f"other|{'0' * 40}&{public}|{Crypto.sha1_hmac_hash(private, payload)}"
    return urlencode({"bt_signature": signature, "bt_payload": payload}).encode()


def notification(moment: int = NOW) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    return (
        f'\n  <notification>\n <timestamp type="datetime">{when}</timestamp>\n <kind>check</kind>\n'
        ' <subject><check type="boolean">true</check></subject></notification>'
    )


def braintree(body: bytes, now: float = NOW, public: str = PUBLIC) -> Verification:
    secret = Secret("private_key", memoryview(PRIVATE.encode()), public)
    return verify(Scheme.BRAINTREE, [secret], {}, body, now)


def test_what_braintrees_library_signs_is_valid_for_a_day() -> None:
    form = braintree_form(notification())
    assert braintree(form) == (Verdict.VALID, "private_key")
    assert braintree(form, NOW + 24 * 3600).verdict is Verdict.VALID
    assert braintree(form, NOW + 25 * 3600).verdict is Verdict.TOO_OLD
    assert braintree(form, NOW - 400).verdict is Verdict.TOO_NEW


def test_a_payload_whose_last_newline_was_stripped_still_verifies() -> None:
    assert braintree(braintree_form(notification()).removesuffix(b"%0A")).verdict is Verdict.VALID


def test_another_key_or_another_payload_does_not_verify() -> None:
    assert braintree(braintree_form(notification(), private="x")).verdict is Verdict.SIGNATURE_MISMATCH
    assert braintree(braintree_form(notification()), public="other").verdict is Verdict.SIGNATURE_MISMATCH
    assert braintree(braintree_form(notification()), public="").verdict is Verdict.SIGNATURE_MISMATCH
    changed = braintree_form(notification()).replace(b"bt_payload=C", b"bt_payload=D")
    assert braintree(changed).verdict is Verdict.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b"bt_payload=AA", b"bt_signature=a|b", b"bt_signature=a|b&bt_payload=%3Cx%3E",
             b"bt_signature=a|b&bt_payload=AA&bt_payload=BB"],
)  # fmt: skip
def test_what_is_no_form_of_braintrees_is_told_apart(body: bytes) -> None:
    assert braintree(body).verdict is Verdict.BODY_INVALID


def test_a_genuine_payload_that_does_not_say_when_it_was_made_is_not_taken() -> None:
    xml = "<notification><kind>check</kind></notification>"
    assert braintree(braintree_form(xml)).verdict is Verdict.BODY_INVALID


HEX_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"


def adyen_item(reference: str = "7914073381342284", key: str = HEX_KEY, **changes: Any) -> dict[str, Any]:
    item = {
        "pspReference": reference, "originalReference": "", "merchantAccountCode": "TestMerchant",
        "merchantReference": "TestPayment-1407325143704", "amount": {"value": 1130, "currency": "EUR"},
        "eventCode": "AUTHORISATION", "success": "true",
    }  # fmt: skip
    signature = generate_notification_sig({**item, "additionalData": {}}, key)
    signature = signature.decode() if isinstance(signature, bytes) else signature
    return {"NotificationRequestItem": {**item, "additionalData": {"hmacSignature": signature}, **changes}}


def adyen(*items: dict[str, Any], body: bytes = b"", keys: tuple[str, ...] = (HEX_KEY,)) -> Verification:
    secrets = [Secret(f"hmac_key_{number}", memoryview(key.encode())) for number, key in enumerate(keys)]
    document = body or json.dumps({"live": "false", "notificationItems": list(items)}).encode()
    return verify(Scheme.ADYEN, secrets, {}, document, NOW)


def test_adyens_own_example_is_valid() -> None:
    item = adyen_item()
    signature = item["NotificationRequestItem"]["additionalData"]["hmacSignature"]
    assert signature == "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="
    assert adyen(item) == (Verdict.VALID, "hmac_key_0")


def test_every_item_must_verify_not_only_the_first() -> None:
    good, other = adyen_item(), adyen_item("8888888888888888")
    assert adyen(good, other).verdict is Verdict.VALID
    for place in range(3):
        items = [adyen_item(str(number)) for number in range(3)]
        items[place]["NotificationRequestItem"]["success"] = "false"
        assert adyen(*items).verdict is Verdict.SIGNATURE_MISMATCH


def test_while_a_key_is_rolled_items_signed_with_either_are_valid() -> None:
    old = "00" * 32
    assert adyen(adyen_item(key=old), adyen_item("2"), keys=(HEX_KEY, old)).verdict is Verdict.VALID
    assert adyen(adyen_item(key=old)).verdict is Verdict.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"notificationItems": []}', b'{"notificationItems": {}}', b'{"notificationItems": [7]}',
     b'{"notificationItems": [{"NotificationRequestItem": {}}]}', b"[" * 30_000, b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_notification_is_told_apart(body: bytes) -> None:
    assert adyen(body=body or b" ").verdict is Verdict.BODY_INVALID


def test_a_member_named_twice_is_refused_for_two_readers_may_read_two_things() -> None:
    text = json.dumps({"notificationItems": [adyen_item()]})
    doubled = text.replace('"success": "true"', '"success": "false", "success": "true"')
    assert adyen(body=doubled.encode()).verdict is Verdict.BODY_INVALID


def test_a_platform_webhook_is_signed_as_a_whole() -> None:
    import hmac

    body = b'{"type": "merchant.created"}'
    signature = base64.b64encode(hmac.digest(bytes.fromhex(HEX_KEY), body, "sha256")).decode()
    secret = [Secret("hmac_key", memoryview(HEX_KEY.encode()))]
    assert (
        verify(Scheme.ADYEN_PLATFORM, secret, {"HmacSignature": signature}, body, NOW).verdict
        is Verdict.VALID
    )
    changed = verify(Scheme.ADYEN_PLATFORM, secret, {"HmacSignature": signature}, body + b" ", NOW)
    assert changed.verdict is Verdict.SIGNATURE_MISMATCH
    assert verify(Scheme.ADYEN_PLATFORM, secret, {}, body, NOW).verdict is Verdict.HEADER_INVALID


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00" * 33])
def test_an_adyen_key_that_is_not_32_bytes_of_hex_is_refused(key: str) -> None:
    with pytest.raises(VaultError) as caught:
        adyen(adyen_item(), keys=(key,))
    assert caught.value.reason is Reason.SECRET_UNSUITABLE


def test_gocardless_signs_the_body_in_hex() -> None:
    import hmac

    secret = [Secret("webhook_secret", memoryview(b"ED7D658C-D8EB-4941-948B-3973214F2D49"))]
    body = b'{"events":[]}'
    signature = hmac.digest(secret[0].view, body, "sha256").hex()
    good = verify(Scheme.GOCARDLESS, secret, {"Webhook-Signature": signature}, body, NOW)
    assert good == (Verdict.VALID, "webhook_secret")
    assert (
        verify(Scheme.GOCARDLESS, secret, {"Webhook-Signature": "00"}, body, NOW).verdict
        is Verdict.SIGNATURE_MISMATCH
    )
    assert verify(Scheme.GOCARDLESS, secret, {}, body, NOW).verdict is Verdict.HEADER_INVALID
