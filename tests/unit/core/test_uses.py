"""Uses of a secret: standard test vectors, and what each refuses."""

from __future__ import annotations

import asyncio
import datetime
import hmac
from typing import TYPE_CHECKING, Any

import pytest
from braintree.util.crypto import Crypto
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from vault.core.uses import answer_challenge, macs, totp
from vault.core.uses.macs import MacHash
from vault.core.uses.material import Material, Surroundings
from vault.crypto import bundle, memory
from vault.crypto.encoding import encode
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import Mapping

SEED_SHA1 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
KEY = b"a key of sixteen bytes or more"


def material(**fields: bytes | str) -> Material:
    packed = bundle.pack_into(
        {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()},
        memory.allocate,
    )
    material_ = Material(
        "acme/test/use", 1, "generic", bundle.field_names(packed.view), packed.view, caller=None
    )
    object.__setattr__(material_, "kept", packed)  # the buffer lives as long as its view
    return material_


def run(use: Any, given_: Material, request: object, now: float = 0) -> Any:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return asyncio.run(use(given_, request, Surroundings(now=lambda: moment))).result


def refused(use: Any, given_: Material, request: object) -> Reason:
    with pytest.raises(VaultError) as caught:
        run(use, given_, request)
    return caught.value.reason


# RFC 6238, appendix B: eight digits at these moments, with seeds of 20, 32 and 64 bytes.
RFC6238 = {
    "SHA1": (
        b"12345678901234567890",
        ("94287082", "07081804", "14050471", "89005924", "69279037", "65353130"),
    ),
    "SHA256": (
        b"12345678901234567890123456789012",
        ("46119246", "68084774", "67062674", "91819424", "90698825", "77737706"),
    ),
    "SHA512": (
        b"1234567890123456789012345678901234567890123456789012345678901234",
        ("90693936", "25091201", "99943326", "93441116", "38618901", "47863826"),
    ),
}
MOMENTS = (59, 1111111109, 1111111111, 1234567890, 2000000000, 20000000000)


@pytest.mark.parametrize("algorithm", RFC6238)
def test_the_codes_of_rfc_6238(algorithm: str) -> None:
    import base64

    seed, codes = RFC6238[algorithm]
    given_ = material(totp_seed=base64.b32encode(seed), totp_digits="8", totp_algorithm=algorithm)
    for moment, code in zip(MOMENTS, codes, strict=True):
        assert run(totp.make, given_, totp.Totp("totp_seed"), moment).code == code


def test_a_seed_may_be_spaced_and_small_as_providers_show_it_and_the_code_says_how_long_it_is_good() -> None:
    given_ = material(totp_seed="gezd gnbv-gy3t qojq gezd gnbv gy3t qojq")
    assert run(totp.make, given_, totp.Totp("totp_seed"), 59) == ("287082", 1)
    assert run(totp.make, given_, totp.Totp("totp_seed"), 60).seconds_left == 30


@pytest.mark.parametrize(
    "fields",
    [
        {"totp_seed": "not base 32!"},
        {"totp_seed": "GEZDGNBV"},
        {"totp_seed": SEED_SHA1, "totp_digits": "3"},
        {"totp_seed": SEED_SHA1, "totp_period": "1"},
        {"totp_seed": SEED_SHA1, "totp_algorithm": "MD5"},
        {"totp_seed": SEED_SHA1, "totp_digits": b"\xff"},
    ],
)
def test_what_is_no_seed_or_no_setting_is_refused(fields: Mapping[str, Any]) -> None:
    assert refused(totp.make, material(**fields), totp.Totp("totp_seed")) is Reason.SECRET_UNSUITABLE


# RFC 4231, test case 6: a key longer than a block, for each hash.
RFC4231 = {
    MacHash.SHA256: "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    MacHash.SHA384: "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6"
    "0c2ef6ab4030fe8296248df163f44952",
    MacHash.SHA512: "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
    "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
}


@pytest.mark.parametrize("hash_", MacHash)
def test_a_raw_mac_is_that_of_rfc_4231(hash_: MacHash) -> None:
    request = macs.RawHmac("key", b"Test Using Larger Than Block-Size Key - Hash Key First", hash_)
    assert run(macs.make, material(key=b"\xaa" * 131), request).hex() == RFC4231[hash_]


@given(st.binary(min_size=16, max_size=80), st.binary(max_size=200), st.text(max_size=20))
def test_a_separated_mac_is_what_the_documentation_says(key: bytes, data: bytes, context: str) -> None:
    derived = HKDF(
        hashes.SHA256(), 32, salt=None, info=encode("strongroom/hmac/v1", "sha256", context)
    ).derive(key)
    made = run(macs.make, material(key=key), macs.Hmac("key", data, MacHash.SHA256, context))
    assert made == hmac.digest(derived, data, "sha256")
    assert made != hmac.digest(key, data, "sha256")


def test_a_mac_is_good_for_its_message_hash_form_and_context_only() -> None:
    given_ = material(key=KEY)
    asked = macs.Hmac("key", b"m", MacHash.SHA256, "invoices")
    mac = run(macs.make, given_, asked)
    assert run(macs.verify, given_, macs.VerifyHmac(asked, mac))
    for other in (
        macs.Hmac("key", b"n", MacHash.SHA256, "invoices"),
        macs.Hmac("key", b"m", MacHash.SHA384, "invoices"),
        macs.Hmac("key", b"m", MacHash.SHA256, "refunds"),
        macs.RawHmac("key", b"m", MacHash.SHA256),
    ):
        assert not run(macs.verify, given_, macs.VerifyHmac(other, mac))
    for wrong in (b"", mac[:-1], mac + b"\0", bytes(32)):
        assert not run(macs.verify, given_, macs.VerifyHmac(asked, wrong))


def test_a_short_key_is_refused() -> None:
    request = macs.Hmac("key", b"m", MacHash.SHA256)
    assert refused(macs.make, material(key=b"fifteen bytes!!"), request) is Reason.SECRET_UNSUITABLE


@given(st.text("0123456789abcdef", min_size=20, max_size=32))
def test_a_challenge_is_answered_as_braintrees_library_does(challenge: str) -> None:
    given_ = material(private_key="integration_private_key", public_key="integration_public_key")
    expected = Crypto.sha1_hmac_hash("integration_private_key", challenge)
    answer = run(answer_challenge.run, given_, answer_challenge.AnswerChallenge("private_key", challenge))
    assert answer == f"integration_public_key|{expected}"


@pytest.mark.parametrize(
    "challenge", ["", "0" * 19, "0" * 33, "A" * 20, "0" * 20 + "\n", "PG5vdGlmaWNhdGlvbj4=", "<notification>"]
)
def test_nothing_but_a_challenge_is_signed_as_one(challenge: str) -> None:
    given_ = material(private_key="k" * 20, public_key="p")
    request = answer_challenge.AnswerChallenge("private_key", challenge)
    assert refused(answer_challenge.run, given_, request) is Reason.FIELD_INVALID
