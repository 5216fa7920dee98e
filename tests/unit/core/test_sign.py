"""Signatures: the RFCs' own vectors, other libraries as oracles, and no format that can be passed off as another."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import json
from typing import Any

import http_message_signatures as rfc9421
import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from vault.core.uses import sign
from vault.core.uses.material import Material, Surroundings
from vault.crypto import bundle, memory
from vault.errors import Reason, VaultError

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
NOW = 1_700_000_000
SURROUNDINGS = Surroundings(now=lambda: datetime.datetime.fromtimestamp(NOW, datetime.UTC))
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
}


def pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public(key: Any) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def run(use: Any, key: Any, request: object, *, kind: str = "signing_key", **fields: str) -> Any:
    values = {"private_key": key if isinstance(key, bytes) else pem(key)}
    values.update({name: text.encode() for name, text in fields.items()})
    with bundle.pack_into(values, memory.allocate) as packed:
        material = Material(
            "acme/test/sign", 1, kind, bundle.field_names(packed.view), packed.view, caller=None
        )
        return asyncio.run(use(material, request, SURROUNDINGS)).result


def refused(use: Any, key: Any, request: object, **fields: str) -> Reason:
    with pytest.raises(VaultError) as caught:
        run(use, key, request, **fields)
    return caught.value.reason


def oracle(algorithm: str) -> Any:
    kind = {"E": OKPKey if algorithm == "EdDSA" else ECKey, "P": RSAKey}[algorithm[0]]
    return kind.import_key(public(KEYS[algorithm]))


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_detached_jws_verifies_with_another_library(algorithm: str) -> None:
    payload = b'{"Data": {"Amount": "10.00"}}'
    request = sign.SignJws("private_key", payload, '{"cty": "application/json"}')
    made = run(sign.jws, KEYS[algorithm], request, algorithm=algorithm, kid="key-1")
    header, middle, signature = made.compact.split(".")
    assert middle == ""
    attached = f"{header}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.{signature}"
    verified = jws.deserialize_compact(attached, oracle(algorithm), algorithms=[algorithm])
    assert verified.payload == payload
    assert verified.headers() == {"alg": algorithm, "kid": "key-1", "cty": "application/json"}


def test_the_signature_of_rfc_8037_is_reproduced() -> None:
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    made = run(sign.jws, key, sign.SignJws("private_key", b"Example of Ed25519 signing"))
    assert made.compact == (
        "eyJhbGciOiJFZERTQSJ9..hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


def test_an_unencoded_payload_is_signed_as_it_is_and_says_so() -> None:
    key = KEYS["EdDSA"]
    made = run(sign.jws, key, sign.SignJws("private_key", b"$.02", '{"x": 1, "crit": ["x"]}', unencoded=True))
    header, _, signature = made.compact.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {
        "alg": "EdDSA", "x": 1, "b64": False, "crit": ["x", "b64"],
    }  # fmt: skip
    key.public_key().verify(base64.urlsafe_b64decode(signature + "=="), header.encode() + b".$.02")


def test_the_header_of_open_banking_uk_can_be_made() -> None:
    names = [f"http://openbanking.org.uk/{name}" for name in ("iat", "iss", "tan")]
    header = {
        **dict(zip(names, (NOW, "CN=x", "openbanking.org.uk"), strict=True)),
        "crit": names,
        "typ": "JOSE",
    }
    made = run(sign.jws, RSA, sign.SignJws("private_key", b"{}", json.dumps(header)), algorithm="PS256")
    assert json.loads(base64.urlsafe_b64decode(made.compact.split(".")[0] + "=="))["crit"] == names


@pytest.mark.parametrize(
    "header",
    ['{"alg": "none"}', '{"kid": "x"}', '{"jwk": {}}', '{"jku": "https://x"}', '{"x5u": "x"}', '{"b64": false}',
     '{"typ": "JWT"}', '{"typ": "at+jwt"}', '{"typ": "application/dpop+jwt"}', "[]", "{", '{"a": 1, "a": 2}',
     '{"crit": ["missing"]}', '{"crit": "x"}', "[" * 4000],
)  # fmt: skip
def test_the_header_cannot_say_what_is_the_vaults_to_say(header: str) -> None:
    assert refused(sign.jws, KEYS["ES256"], sign.SignJws("private_key", b"x", header)) is Reason.FIELD_INVALID


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_claims_of_a_token_are_not_signed_as_a_payload(encoding: str) -> None:
    claims = json.dumps({"iss": "me", "sub": "me", "aud": "https://bank.example", "exp": NOW}).encode(
        encoding
    )
    assert refused(sign.jws, KEYS["ES256"], sign.SignJws("private_key", claims)) is Reason.FIELD_INVALID


CLAIMS = json.dumps({"iss": "me", "sub": "me", "aud": "https://bank.example", "exp": NOW}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        CLAIMS[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        CLAIMS[:-1] + b', "x": ' + b"1" * 5000 + b"}",
        CLAIMS[:-1] + b', "x": "\xff"}',
        CLAIMS[:-1] + b', "x": "\t"}',
        b"\n" + CLAIMS[:-1] + b", }",
        b'{"Aud": "https://bank.example", "EXP": 1}',
    ],
    ids=["deep", "a long number", "no UTF-8", "a control character", "a comma too many", "another case"],
)
def test_nor_claims_that_others_read_where_python_does_not(payload: bytes) -> None:
    assert refused(sign.jws, KEYS["ES256"], sign.SignJws("private_key", payload)) is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "names",
    [("iss", "sub", "jti"), ("iss", "aud", "response_type"), ("aud", "exp"), ("sub", "exp"), ("aud", "nbf")],
    ids=[
        "an assertion without an end",
        "a request object",
        "no issuer",
        "no audience",
        "no end but a beginning",
    ],
)
def test_nor_a_part_of_a_tokens_claims_that_some_server_would_be_content_with(names: tuple[str, ...]) -> None:
    payload = json.dumps(dict.fromkeys(names, "x")).encode()
    assert refused(sign.jws, KEYS["ES256"], sign.SignJws("private_key", payload)) is Reason.FIELD_INVALID


@pytest.mark.parametrize("padding", [b"", b"=="])
def test_nor_as_an_unencoded_payload_that_a_verifier_without_rfc_7797_would_decode(padding: bytes) -> None:
    request = sign.SignJws("private_key", base64.urlsafe_b64encode(CLAIMS).rstrip(b"=") + padding)
    run(sign.jws, KEYS["ES256"], request)
    unencoded = dataclasses.replace(request, unencoded=True)
    assert refused(sign.jws, KEYS["ES256"], unencoded) is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"{}",
        b"{x: 1}",
        b"[" * 5000,
        b"example",
        b"\xff\x00",
        b'{"Data": {"exp": 1}}',
        b'{"iss": 1, "iat": 2}',
    ],
)
@pytest.mark.parametrize("unencoded", [True, False])
def test_what_are_no_claims_is_signed_whatever_it_is(payload: bytes, unencoded: bool) -> None:
    assert run(sign.jws, KEYS["ES256"], sign.SignJws("private_key", payload, unencoded=unencoded)).signature


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_client_assertion_is_what_fapi_asks_for(algorithm: str) -> None:
    request = sign.ClientAssertion("private_key", "https://bank.example")
    asked = {"algorithm": algorithm, "kid": "key-1", "client_id": "client-7"}
    made = [
        run(sign.client_assertion, KEYS[algorithm], request, kind="oauth_client", **asked) for _ in range(2)
    ]
    decoded = jwt.decode(made[0].compact, oracle(algorithm), algorithms=[algorithm])
    assert decoded.header == {"alg": algorithm, "typ": "JWT", "kid": "key-1"}
    identifier = decoded.claims.pop("jti")
    assert decoded.claims == {
        "iss": "client-7", "sub": "client-7", "aud": "https://bank.example", "iat": NOW, "nbf": NOW, "exp": NOW + 60,
    }  # fmt: skip
    assert identifier != jwt.decode(made[1].compact, oracle(algorithm), algorithms=[algorithm]).claims["jti"]


def test_the_clients_id_is_the_credentials_if_it_has_one() -> None:
    for asked, fields in (("other", {"client_id": "client-7"}), ("", {})):
        request = sign.ClientAssertion("private_key", "https://bank.example", asked)
        assert (
            refused(sign.client_assertion, KEYS["ES256"], request, kind="generic", **fields)
            is Reason.FIELD_INVALID
        )


class Resolver(rfc9421.HTTPSignatureKeyResolver):
    def __init__(self, key: Any) -> None:
        self.key = key

    def resolve_public_key(self, key_id: str) -> Any:
        return self.key.public_key()


@pytest.mark.parametrize(
    ("algorithm", "theirs"),
    [
        ("ES256", rfc9421.algorithms.ECDSA_P256_SHA256),
        ("EdDSA", rfc9421.algorithms.ED25519),
        ("PS512", rfc9421.algorithms.RSA_PSS_SHA512),
        ("PS256", rfc9421.algorithms.RSA_PSS_SHA512),
    ],
)
def test_a_signed_request_verifies_with_another_library(algorithm: str, theirs: Any) -> None:
    uri, body = "https://Bank.example:443/payments?limit=1&x=%20", b'{"amount": 1}'
    covered = ("@method", "@target-uri", "authorization", "content-digest")
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    request = sign.SignHttp("private_key", "POST", uri, headers, covered, body, tag="fapi-2-request")
    made = run(sign.http, KEYS[algorithm], request, algorithm=algorithm, kid="key-1")
    message = requests.Request("POST", uri, headers=headers, data=body).prepare()
    message.url = uri
    message.headers.update(dict(made.headers))
    verifier = rfc9421.HTTPMessageVerifier(signature_algorithm=theirs, key_resolver=Resolver(KEYS[algorithm]))
    verifier.max_clock_skew = datetime.timedelta(days=20_000)
    (result,) = verifier.verify(message, max_age=datetime.timedelta(days=20_000))
    assert set(result.covered_components) >= {f'"{name}"' for name in covered}
    assert result.parameters["tag"] == "fapi-2-request"


def test_the_signature_base_is_that_of_rfc_9421_section_2_5() -> None:
    request = sign.SignHttp(
        "private_key", "POST", "https://example.com/foo?param=Value&Pet=dog", {},
        ("@method", "@authority", "@path", "content-digest", "content-length", "content-type"),
    )  # fmt: skip
    headers = {
        "content-digest": "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJ"
        "wew==:",
        "content-length": "18",
        "content-type": "application/json",
    }
    base, parameters = sign.signature_base(request, headers, 1618884473, "test-key-rsa-pss")
    assert base.decode() == (
        '"@method": POST\n"@authority": example.com\n"@path": /foo\n'
        f'"content-digest": {headers["content-digest"]}\n"content-length": 18\n"content-type": application/json\n'
        '"@signature-params": ("@method" "@authority" "@path" "content-digest" "content-length" "content-type")'
        ';created=1618884473;keyid="test-key-rsa-pss"'
    )
    assert parameters.startswith("(")


def test_the_ed25519_signature_of_rfc_9421_appendix_b_2_6_is_reproduced() -> None:
    key = serialization.load_pem_private_key(
        b"-----BEGIN PRIVATE KEY-----\n" + b"MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n"
        b"-----END PRIVATE KEY-----\n", None,
    )  # fmt: skip
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    request = sign.SignHttp(
        "private_key", "POST", "https://example.com/foo", {},
        ("date", "@method", "@path", "@authority", "content-type", "content-length"),
    )  # fmt: skip
    headers = {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-length": "18",
    }
    base, _ = sign.signature_base(request, headers, 1618884473, "test-key-ed25519")
    signature = base64.b64encode(key.sign(base)).decode()
    assert (
        signature
        == "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "post"}, {"method": "GET\n"}, {"target_uri": "/path"}, {"target_uri": "https://x/a b"},
        {"target_uri": "https://x/#f"}, {"target_uri": "https://[/"}, {"target_uri": "https://[::1/"},
        {"components": ()}, {"components": ("@method", "@method")},
        {"components": ("@status",)}, {"components": ("missing",)}, {"components": ('x";y="',)},
        {"headers": {"date": "a\nb: c"}}, {"headers": {"Date": "a", "date": "b"}}, {"headers": {"a b": "c"}},
        {"label": 'x="'}, {"tag": 'x"'}, {"headers": {"date": "\u00e9"}},
    ],
)  # fmt: skip
def test_nothing_can_be_smuggled_into_what_is_signed(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "field_name": "private_key", "method": "GET", "target_uri": "https://x/", "headers": {},
        "components": ("@method",),
    }  # fmt: skip
    assert refused(sign.http, KEYS["ES256"], sign.SignHttp(**{**good, **changes})) is Reason.FIELD_INVALID


def test_a_curve_that_rfc_9421_does_not_know_is_refused() -> None:
    request = sign.SignHttp("private_key", "GET", "https://x/", {}, ("@method",))
    assert refused(sign.http, KEYS["ES512"], request) is Reason.SECRET_UNSUITABLE


@settings(deadline=None, max_examples=20)
@given(st.binary(min_size=1, max_size=100))
def test_raw_signatures_verify_as_certificates_have_them(data: bytes) -> None:
    for algorithm in ("ES256", "EdDSA", "PS256"):
        made = run(sign.raw, KEYS[algorithm], sign.SignRaw("private_key", data))
        checked = KEYS[algorithm].public_key()
        if algorithm == "ES256":
            checked.verify(made.signature, data, ec.ECDSA(hashes.SHA256()))
        elif algorithm == "EdDSA":
            checked.verify(made.signature, data)
        else:
            checked.verify(
                made.signature, data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
            )


def test_a_key_is_held_to_its_formats_whatever_the_token_may() -> None:
    everything = {
        "jws": (sign.jws, sign.SignJws("private_key", b"x")),
        "client_assertion": (sign.client_assertion, sign.ClientAssertion("private_key", "https://x", "me")),
        "http": (sign.http, sign.SignHttp("private_key", "GET", "https://x/", {}, ("@method",))),
        "raw": (sign.raw, sign.SignRaw("private_key", b"x")),
    }
    for held in everything:
        for asked, (use, request) in everything.items():
            if asked == held:
                run(use, KEYS["ES256"], request, formats=held)
            else:
                assert refused(use, KEYS["ES256"], request, formats=held) is Reason.SECRET_UNSUITABLE


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (b"no key", {}),
        (KEYS["ES256"], {"algorithm": "ES384"}),
        (KEYS["EdDSA"], {"algorithm": "ES256"}),
        (KEYS["ES256"], {"algorithm": "none"}),
        (RSA, {"algorithm": "RS256"}),
        (ec.generate_private_key(ec.SECP256K1()), {}),
        (rsa.generate_private_key(65537, 1024), {}),
        (KEYS["ES256"], {"kid": 'a"b'}),
    ],
)
def test_a_key_that_is_none_or_does_not_fit_is_refused_and_not_repeated(
    key: Any, fields: dict[str, str]
) -> None:
    request = sign.SignRaw("private_key", b"x")
    with pytest.raises(VaultError) as caught:
        run(sign.raw, key, request, kind="generic", **fields)
    assert caught.value.reason is Reason.SECRET_UNSUITABLE
    assert "BEGIN" not in str(caught.value)
