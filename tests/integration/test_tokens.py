"""A token is good for one certificate, one tenant, its own scopes and its own time; every other use is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import Books, Wire
from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault import config as configuration
from vault.client.sealing import Recipient
from vault.clock import SystemClock
from vault.core import policy
from vault.core.approvals import ACTIONS, Approvals, ApprovalSettings
from vault.core.follower import Follower
from vault.core.people import People
from vault.core.policies import Policies
from vault.core.signing import SigningKeys
from vault.core.subjects import Subjects
from vault.core.tokens import Tokens, TokenSettings
from vault.errors import VaultError
from vault.model import SYSTEM_TENANT, Certificate, KeyPurpose
from vault.server.foundation import Foundation, foundation
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.vault import VaultSite
    from vault.model import Token

GET = "/vault.v1.CredentialService/Get"
ISSUE = "/vault.v1.TokenService/Issue"
EXCHANGE = "/vault.v1.TokenService/Exchange"
REVOKE = "/vault.v1.TokenService/Revoke"
REVEAL = "/vault.v1.SessionService/Reveal"
NAME = "acme/tokens/login"
READ = "credential.read:acme/**"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Jumped(SystemClock):
    """A wall clock that was set to another time."""

    def __init__(self, by: datetime.timedelta) -> None:
        self._by = by

    def now(self) -> datetime.datetime:
        return super().now() + self._by


def people_of(base: Foundation, config: configuration.Config) -> People:
    subjects = Subjects(base.database, base.hsm, base.log, base.keyring)
    return People(
        config.identity.personal,
        config.identity.trust_domains,
        base.database,
        base.log,
        base.keyring,
        subjects,
    )


def approvals_of(base: Foundation, config: configuration.Config) -> Approvals:
    settings = ApprovalSettings(dict.fromkeys(ACTIONS, 1), datetime.timedelta(days=1))
    return Approvals(settings, base.database, base.log, people_of(base, config), base.clock)


def policies_of(base: Foundation, config: configuration.Config) -> Policies:
    return Policies(
        policy.load(config.policy.files),
        base.database,
        base.hsm,
        base.keyring,
        base.log,
        approvals_of(base, config),
        people_of(base, config),
        base.clock,
        ignore_stored=True,
    )


class Inside:
    """The token code and the HSM's keys, in this process, to try what nobody outside can sign."""

    def __init__(self, site: VaultSite) -> None:
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        config = configuration.load(site.config_file)
        self.base = self._runner.run(self._stack.enter_async_context(foundation(config)))
        self._follower = Follower(self.base.database, self.base.clock)
        day = datetime.timedelta(hours=24)
        keys = SigningKeys(self.base.keyring, self.base.hsm, self.base.clock)
        self.tokens = Tokens(
            TokenSettings(config.tokens.issuer, config.tokens.audience, day, day),
            self.base.database,
            keys,
            self.base.log,
            self._follower,
            policies_of(self.base, config),
            approvals_of(self.base, config),
            self.base.clock,
            people=people_of(self.base, config),
        )
        self._runner.run(self._follower.start())
        self._runner.run(keys.start())
        self.key = self._runner.run(self.base.keyring.active(SYSTEM_TENANT, KeyPurpose.TOKEN))
        self.jwk = json.loads(self._runner.run(keys.jwks()))["keys"][0]
        self.header = {"alg": "ES256", "kid": self.jwk["kid"], "typ": "at+jwt"}

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def look(self) -> None:
        self._runner.run(self._follower.look())

    def sign(self, header: object, claims: object) -> str:
        """A JWS by the vault's own key; bytes are taken as they are."""
        parts = [part if isinstance(part, bytes) else canonical(part) for part in (header, claims)]
        signed = ".".join(map(b64, parts))
        signature = self._runner.run(self.base.hsm.sign(self.key, self.key.algorithm, signed.encode()))
        return f"{signed}.{b64(signature)}"

    def verify(self, text: str, thumbprint: str) -> Token | str:
        """The token, or the reason why it is none."""
        now = datetime.datetime.now(datetime.UTC)
        year = datetime.timedelta(days=365)
        certificate = Certificate(f"spiffe://{TRUST_DOMAIN}/payments", thumbprint, now - year, now + year)
        try:
            return self._runner.run(self.tokens.verify(text, certificate, certificate.identity))
        except VaultError as error:
            return error.reason.value


@pytest.fixture(scope="module")
def inside(site: VaultSite) -> Iterator[Inside]:
    made = Inside(site)
    yield made
    made.close()


@pytest.fixture(scope="session")
def wire(site: VaultSite) -> Iterator[Wire]:
    with Wire(site.profile("payments")) as made, site.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")
        yield made


@pytest.fixture(scope="session")
def books(site: VaultSite) -> Iterator[Books]:
    made = Books(site)
    yield made
    made.close()


@pytest.fixture
def claims(wire: Wire) -> dict[str, Any]:
    """What a good token says."""
    claims: dict[str, Any] = json.loads(unb64(wire.issue(READ).token.split(".")[1]))
    return claims


# Bound to one certificate.


@pytest.mark.parametrize("same_key", [False, True], ids=["another key", "the same key"])
def test_a_token_is_refused_on_another_certificate_of_the_same_name(
    site: VaultSite, wire: Wire, books: Books, same_key: bool
) -> None:
    from cryptography.hazmat.primitives import serialization

    pki = site.folder / "pki"
    key = serialization.load_pem_private_key((pki / "payments-key.pem").read_bytes(), None)
    uri = f"spiffe://{TRUST_DOMAIN}/payments"
    issue_certificate(pki, "twin", client_extensions(uri), **({"key": key} if same_key else {}))
    with Wire(site.profile("twin")) as twin:
        answer = twin.call(GET, bearer=wire.token, name=NAME)
        assert answer.reason == "TOKEN_CERTIFICATE_MISMATCH"
        assert twin.call(GET, name=NAME).ok, "with a token of its own it is as good as the first"
    (record,) = books.records(answer.request_id)
    assert (record["user_id"], record["reason"]) == (uri, "TOKEN_CERTIFICATE_MISMATCH")


def test_a_token_is_refused_for_another_identity(site: VaultSite, wire: Wire) -> None:
    for name in ("ledger", "operator", "globex", "stranger"):
        with Wire(site.profile(name)) as other:
            assert other.call(GET, bearer=wire.token, name=NAME).reason == "TOKEN_CERTIFICATE_MISMATCH"


# Signed by the vault, over these very bytes.


def accepted_flips(inside: Inside, text: str, thumbprint: str) -> list[int]:
    """Which single bits of a token can be flipped without making it invalid."""
    data = text.encode()
    accepted = []
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        if inside.verify(altered.decode("latin-1"), thumbprint) != "TOKEN_INVALID":
            accepted.append(bit)
        if not bit % 2000:
            inside.look()
    return accepted


def test_no_single_bit_of_a_token_can_be_flipped(inside: Inside, wire: Wire, claims: dict[str, Any]) -> None:
    text = wire.issue(READ).token
    thumbprint = claims["cnf"]["x5t#S256"]
    inside.look()
    assert not isinstance(inside.verify(text, thumbprint), str)
    assert accepted_flips(inside, text, thumbprint) == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_single_bit_of_100_tokens_can_be_flipped(
    inside: Inside, wire: Wire, claims: dict[str, Any]
) -> None:
    for number in range(100):
        answer = wire.call(
            ISSUE, tenant="acme", scopes=[READ], narrowable=number % 2 == 1, max_sessions=number
        )
        assert accepted_flips(inside, answer.response.token, claims["cnf"]["x5t#S256"]) == []


@pytest.mark.parametrize(
    ("jump", "verdict"),
    [
        (3600, "good"),
        (86_400, "TOKEN_EXPIRED"),
        (-30, "good"),
        (-3600, "TOKEN_INVALID"),
        (-86_400, "TOKEN_INVALID"),
    ],
)
def test_a_clock_that_jumps_makes_no_token_live_longer_than_it_says(
    inside: Inside, wire: Wire, claims: dict[str, Any], jump: int, verdict: str
) -> None:
    """Verified anew at the jumped time; then back at the true time, when what was remembered must not matter."""
    text, thumbprint = wire.issue(READ, seconds=7200).token, claims["cnf"]["x5t#S256"]
    inside.look()
    inside.tokens._verified.clear()
    true = inside.tokens._clock
    inside.tokens._clock = Jumped(datetime.timedelta(seconds=jump))
    try:
        found = inside.verify(text, thumbprint)
    finally:
        inside.tokens._clock = true
    assert (found if isinstance(found, str) else "good") == verdict
    inside.look()
    assert not isinstance(inside.verify(text, thumbprint), str)


def test_flipped_bits_are_refused_over_the_wire_too(wire: Wire) -> None:
    data = wire.issue(READ).token.encode()
    for place in range(0, len(data), max(1, len(data) // 40)):
        altered = bytearray(data)
        altered[place] ^= 1
        text = altered.decode()
        if text.isprintable() and text == text.strip():
            assert wire.call(GET, bearer=text, name=NAME).reason == "TOKEN_INVALID"


SPELLINGS: dict[str, Callable[[str], str]] = {
    "padding": lambda text: text + "=",
    "a space": lambda text: text + " x",
    "a fourth part": lambda text: text + ".AAAA",
    "no signature": lambda text: text.rpartition(".")[0] + ".",
    "two parts": lambda text: text.rpartition(".")[0],
    "a longer signature": lambda text: text + "AAAA",
    "the last bits of the signature": lambda text: text[:-1] + chr(ord(text[-1]) + 1),
    "ordinary base64": lambda text: text.replace("-", "+").replace("_", "/") + "=",
    "the signature in DER": lambda text: text.rpartition(".")[0] + "." + b64(_der(text)),
    "a signature of zeros": lambda text: text.rpartition(".")[0] + "." + b64(b"\0" * 64),
    "twice": lambda text: text + "," + text,
}


def _der(text: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    raw = unb64(text.rpartition(".")[2])
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_token_has_one_spelling(wire: Wire, spell: Callable[[str], str]) -> None:
    altered = spell(wire.issue(READ).token)
    assert wire.call(GET, bearer=altered, name=NAME).reason == "TOKEN_INVALID"


def test_the_mirrored_signature_makes_no_second_token(
    inside: Inside, wire: Wire, claims: dict[str, Any]
) -> None:
    """ECDSA knows two signatures for one message: whoever sends the other has the same token, revoked with it."""
    issued = wire.issue(READ)
    head, _, signature = issued.token.rpartition(".")
    raw = unb64(signature)
    mirrored = P256_ORDER - int.from_bytes(raw[32:], "big")
    twin = f"{head}.{b64(raw[:32] + mirrored.to_bytes(32, 'big'))}"
    assert wire.call(REVOKE, token_id=issued.token_id).ok
    inside.look()
    for text in (issued.token, twin):
        assert inside.verify(text, claims["cnf"]["x5t#S256"]) in ("TOKEN_REVOKED", "TOKEN_INVALID")


HEADERS: dict[str, Callable[[Inside], object]] = {
    "alg none": lambda i: {**i.header, "alg": "none"},
    "alg None": lambda i: {**i.header, "alg": "None"},
    "alg HS256": lambda i: {**i.header, "alg": "HS256"},
    "alg ES384": lambda i: {**i.header, "alg": "ES384"},
    "alg in lower case": lambda i: {**i.header, "alg": "es256"},
    "no alg": lambda i: {"kid": i.header["kid"], "typ": "at+jwt"},
    "no kid": lambda _: {"alg": "ES256", "typ": "at+jwt"},
    "another kid": lambda i: {**i.header, "kid": "A" * 43},
    "a kid that is a path": lambda i: {**i.header, "kid": "../../../../dev/null"},
    "a kid that is SQL": lambda i: {**i.header, "kid": "' OR 1=1 --"},
    "no typ": lambda i: {"alg": "ES256", "kid": i.header["kid"]},
    "typ JWT": lambda i: {**i.header, "typ": "JWT"},
    "the typ of an ingest key": lambda i: {**i.header, "typ": "ingest-key+jwt"},
    "jku": lambda i: {**i.header, "jku": "https://evil.example/jwks"},
    "jwk": lambda i: {**i.header, "jwk": i.jwk},
    "x5u": lambda i: {**i.header, "x5u": "https://evil.example/c"},
    "x5c": lambda i: {**i.header, "x5c": ["AAAA"]},
    "crit": lambda i: {**i.header, "crit": ["exp"], "exp": 1},
    "an empty crit": lambda i: {**i.header, "crit": []},
    "b64 false": lambda i: {**i.header, "b64": False, "crit": ["b64"]},
    "zip": lambda i: {**i.header, "zip": "DEF"},
    "alg twice": lambda i: canonical(i.header).replace(b"{", b'{"alg":"none",', 1),
    "spaces": lambda i: json.dumps(i.header).encode(),
    "another order": lambda i: canonical(dict(i.header))[:-1] + b',"x":1}',
    "no object": lambda _: [],
    "nothing": lambda _: b"",
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_the_vaults_own_signature_does_not_save_another_header(
    inside: Inside, wire: Wire, claims: dict[str, Any], header: Callable[[Inside], object]
) -> None:
    text = inside.sign(header(inside), claims)
    inside.look()
    assert inside.verify(text, claims["cnf"]["x5t#S256"]) == "TOKEN_INVALID"
    assert wire.call(GET, bearer=text, name=NAME).reason == "TOKEN_INVALID"


def test_what_is_signed_here_with_the_right_header_and_claims_is_a_token(
    inside: Inside, wire: Wire, claims: dict[str, Any]
) -> None:
    """The oracle of the test before and of those behind it."""
    text = inside.sign(inside.header, claims)
    inside.look()
    assert not isinstance(inside.verify(text, claims["cnf"]["x5t#S256"]), str)
    assert wire.call(GET, bearer=text, name=NAME).ok


def test_no_signature_and_a_public_key_as_secret_are_refused(
    inside: Inside, wire: Wire, claims: dict[str, Any]
) -> None:
    none = f"{b64(canonical({**inside.header, 'alg': 'none'}))}.{b64(canonical(claims))}."
    assert wire.call(GET, bearer=none, name=NAME).reason == "TOKEN_INVALID"
    from joserfc.jwk import ECKey

    public = ECKey.import_key(inside.jwk)
    for alg, digest in (("HS256", hashlib.sha256), ("ES256", hashlib.sha256)):
        for secret in (public.as_pem(private=False), public.as_der(private=False), canonical(inside.jwk)):
            signed = f"{b64(canonical({**inside.header, 'alg': alg}))}.{b64(canonical(claims))}"
            text = f"{signed}.{b64(hmac.new(secret, signed.encode(), digest).digest())}"
            assert wire.call(GET, bearer=text, name=NAME).reason == "TOKEN_INVALID"


def test_the_signature_of_anothers_key_is_refused(inside: Inside, wire: Wire, claims: dict[str, Any]) -> None:
    from joserfc import jws
    from joserfc.jwk import ECKey

    own = ECKey.generate_key("P-256")
    text = jws.serialize_compact({**inside.header}, canonical(claims), own)
    assert wire.call(GET, bearer=text, name=NAME).reason == "TOKEN_INVALID"


def test_what_else_the_vault_signs_is_no_token(wire: Wire) -> None:
    key = wire.call("/vault.v1.CredentialService/GetIngestKey").response.signed_key
    assert wire.call(GET, bearer=key, name=NAME).reason == "TOKEN_INVALID"


def scopes_up_to(count: int) -> list[str]:
    return [f"credential.read:acme/n{number}" for number in range(count)]


CLAIMS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{
        f"no {claim}": lambda c, claim=claim: {key: value for key, value in c.items() if key != claim}
        for claim in ("iss", "sub", "client_id", "aud", "iat", "exp", "jti", "tenant", "scope", "cnf", "policy")
    },
    "one more": lambda c: {**c, "admin": True},
    "nbf": lambda c: {**c, "nbf": 0},
    "another audience": lambda c: {**c, "aud": "elsewhere"},
    "a list of audiences": lambda c: {**c, "aud": [c["aud"]]},
    "another issuer": lambda c: {**c, "iss": "elsewhere"},
    "an issuer in upper case": lambda c: {**c, "iss": c["iss"].upper()},
    "exp as text": lambda c: {**c, "exp": str(c["exp"])},
    "exp null": lambda c: {**c, "exp": None},
    "exp NaN": lambda c: canonical({**c, "exp": "x"}).replace(b'"x"', b"NaN"),
    "exp infinite": lambda c: canonical({**c, "exp": "x"}).replace(b'"x"', b"Infinity"),
    "exp 1e300": lambda c: {**c, "exp": 1e300},
    "exp 2^63": lambda c: {**c, "exp": 2**63},
    "iat as text": lambda c: {**c, "iat": "now"},
    "a scope as a list": lambda c: {**c, "scope": [c["scope"]]},
    "an empty scope": lambda c: {**c, "scope": ""},
    "two spaces between scopes": lambda c: {**c, "scope": f"{READ}  {READ}"},
    "a malformed scope": lambda c: {**c, "scope": "credential.read:*"},
    "an unknown action": lambda c: {**c, "scope": "everything:acme/**"},
    "33 scopes": lambda c: {**c, "scope": " ".join(scopes_up_to(33))},
    "a jti of another form": lambda c: {**c, "jti": "x"},
    "a jti that is no text": lambda c: {**c, "jti": 5},
    "cnf empty": lambda c: {**c, "cnf": {}},
    "cnf null": lambda c: {**c, "cnf": None},
    "an empty thumbprint": lambda c: {**c, "cnf": {"x5t#S256": ""}},
    "no object": lambda _: [],
}  # fmt: skip
UNREADABLE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a thumbprint that is no text": lambda c: {**c, "cnf": {"x5t#S256": 5}},
    "no JSON": lambda _: b"{",
    "nothing": lambda _: b"",
    "not UTF-8": lambda _: b"\xff\xfe",
    "deeper than anything": lambda _: b"[" * 2000,
}
LAX: dict[str, Callable[[dict[str, Any]], object]] = {
    "a claim twice": lambda c: canonical(c).replace(b"{", b'{"sub":"somebody",', 1),
    "the scope twice": lambda c: canonical(c).replace(b"{", b'{"scope":"key.rotate:acme/keys",', 1),
    "a subject that is no text": lambda c: {**c, "sub": 5},
    "a subject that is not the client": lambda c: {**c, "client_id": "somebody"},
    "a tenant that is no text": lambda c: {**c, "tenant": 5},
    "a tenant that is not the scopes'": lambda c: {**c, "tenant": "globex"},
    "a life of two days": lambda c: {**c, "exp": c["iat"] + 2 * 86_400},
    "issued tomorrow": lambda c: {**c, "iat": c["iat"] + 86_400, "exp": c["exp"] + 86_400},
    "exp true": lambda c: {**c, "iat": True},
    "exp with a fraction": lambda c: {**c, "exp": c["exp"] + 0.5},
    "more than one thumbprint": lambda c: {**c, "cnf": {**c["cnf"], "jkt": "x"}},
}


@pytest.mark.parametrize("spoil", CLAIMS.values(), ids=CLAIMS.keys())
def test_the_vaults_own_signature_does_not_save_other_claims(
    inside: Inside, wire: Wire, claims: dict[str, Any], spoil: Callable[[dict[str, Any]], object]
) -> None:
    text = inside.sign(inside.header, spoil(claims))
    inside.look()
    refused = ("TOKEN_INVALID", "TOKEN_CERTIFICATE_MISMATCH")
    assert inside.verify(text, claims["cnf"]["x5t#S256"]) in refused
    answer = wire.call(GET, bearer=text, name=NAME)
    assert answer.reason in refused
    assert answer.code.name == "UNAUTHENTICATED"


@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_claims_that_cannot_be_read_are_refused_as_an_invalid_token(
    inside: Inside, claims: dict[str, Any], spoil: Callable[[dict[str, Any]], object]
) -> None:
    text = inside.sign(inside.header, spoil(claims))
    inside.look()
    refused = ("TOKEN_INVALID", "TOKEN_CERTIFICATE_MISMATCH")
    assert inside.verify(text, claims["cnf"]["x5t#S256"]) in refused


@pytest.mark.parametrize("spoil", LAX.values(), ids=LAX.keys())
def test_every_claim_is_what_the_vault_writes(
    inside: Inside, claims: dict[str, Any], spoil: Callable[[dict[str, Any]], object]
) -> None:
    text = inside.sign(inside.header, spoil(claims))
    inside.look()
    assert inside.verify(text, claims["cnf"]["x5t#S256"]) == "TOKEN_INVALID"


OPTIONAL = {"max_sessions": 5, "narrowing_key": "A" * 43, "ancestors": [["A" * 22, 1_700_000_000, 0]]}
ANY_TYPE: tuple[Any, ...] = (None, True, False, 5, -1, 0.5, "x", "", [], ["x"], [[]], {}, {"x": 5})


@pytest.mark.parametrize(
    "claim",
    ["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "tenant", "scope", "cnf", "policy", *OPTIONAL],
)
def test_each_claim_is_there_once_and_of_its_type(inside: Inside, claims: dict[str, Any], claim: str) -> None:
    thumbprint = claims["cnf"]["x5t#S256"]
    kind = type({**OPTIONAL, **claims}[claim])
    bad = [{**claims, claim: value} for value in ANY_TYPE if type(value) is not kind]
    if claim not in OPTIONAL:
        bad.append({name: value for name, value in claims.items() if name != claim})
    once = canonical({**claims, claim: {**OPTIONAL, **claims}[claim]})
    again = canonical({claim: json.loads(once)[claim]})[1:-1]
    bad += [b"{" + again + b"," + once[1:], once[:-1] + b"," + again + b"}"]
    inside.look()
    for spoilt in bad:
        assert inside.verify(inside.sign(inside.header, spoilt), thumbprint) == "TOKEN_INVALID", spoilt


def test_a_token_holds_32_scopes_and_one_more_is_refused_and_not_left_out(
    inside: Inside, wire: Wire, books: Books, claims: dict[str, Any]
) -> None:
    full = wire.issue(*scopes_up_to(32)).token
    assert wire.call(GET, bearer=full, name="acme/n31").reason == "CREDENTIAL_NOT_FOUND", "which is in scope"
    assert wire.call(GET, bearer=full, name="acme/n32").reason == "SCOPE_DENIED"
    for method, fields in ((ISSUE, {"tenant": "acme"}), (EXCHANGE, {})):
        answer = wire.call(method, bearer=full, scopes=scopes_up_to(33), **fields)
        assert (answer.reason, answer.metadata) == ("FIELD_INVALID", {"field": "scopes"})
        assert books.records(answer.request_id)[0]["reason"] == "FIELD_INVALID"
    signed = inside.sign(inside.header, {**claims, "scope": " ".join(scopes_up_to(32))})
    inside.look()
    assert not isinstance(inside.verify(signed, claims["cnf"]["x5t#S256"]), str), "33 are refused above"


def test_what_is_remembered_of_verified_tokens_is_bounded_and_no_less_looked_at(
    inside: Inside, wire: Wire, claims: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault.core.tokens._CACHED", 3)
    inside.tokens._verified.clear()
    issued = [wire.issue(READ) for _ in range(5)]
    thumbprint = claims["cnf"]["x5t#S256"]
    inside.look()
    for token in issued:
        assert not isinstance(inside.verify(token.token, thumbprint), str)
    assert len(inside.tokens._verified) == 3
    for token in issued[:1] + issued[-1:]:
        assert wire.call(REVOKE, token_id=token.token_id).ok
    inside.look()
    found = [inside.verify(token.token, thumbprint) for token in issued]
    assert [one if isinstance(one, str) else "good" for one in found] == [
        "TOKEN_REVOKED", "good", "good", "good", "TOKEN_REVOKED",
    ]  # fmt: skip
    assert inside.verify(issued[1].token, "A" * 43) == "TOKEN_CERTIFICATE_MISMATCH", "remembered or not"


# For its own time.


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 2**31, 2**63 - 1, -(2**63)])
def test_a_life_that_cannot_be_is_refused_not_shortened(wire: Wire, books: Books, seconds: int) -> None:
    answer = wire.call(ISSUE, tenant="acme", scopes=[READ], ttl={"seconds": seconds})
    assert answer.reason == "FIELD_INVALID"
    assert answer.metadata == {"field": "ttl"}
    (record,) = books.records(answer.request_id)
    assert (record["outcome"], record["token_id"]) == ("refused", "")


def test_24_hours_are_granted_to_the_second(wire: Wire) -> None:
    before = time.time()
    issued = wire.issue(READ, seconds=86_400)
    assert before + 86_398 <= issued.expire_time.seconds <= time.time() + 86_400


def test_a_token_ends_with_its_certificate(site: VaultSite) -> None:
    uri = f"spiffe://{TRUST_DOMAIN}/payments"
    issue_certificate(
        site.folder / "pki", "short", client_extensions(uri), life=datetime.timedelta(minutes=5)
    )
    with Wire(site.profile("short")) as short:
        assert short.issue(READ, seconds=86_400).expire_time.seconds <= time.time() + 300


def test_a_token_is_refused_when_its_time_is_over_and_its_session_ends(wire: Wire, books: Books) -> None:
    issued = wire.issue(READ, "session.reveal:acme/**", seconds=5)
    with wire.stream(bearer=issued.token) as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="t",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        assert wire.call(GET, bearer=issued.token, name=NAME).ok
        message = stream.read()
        while message.WhichOneof("message") == "expiring":
            message = stream.read()
        assert message.closed.reason == pb.CLOSE_REASON_TOKEN_ENDED
    assert time.time() >= issued.expire_time.seconds
    answer = wire.call(GET, bearer=issued.token, name=NAME)
    assert answer.reason == "TOKEN_EXPIRED"
    assert books.records(answer.request_id)[0]["reason"] == "TOKEN_EXPIRED"


# Until it is revoked.


def test_a_revocation_is_in_force_at_once_where_it_was_made(wire: Wire) -> None:
    issued = wire.issue(READ)
    assert wire.call(GET, bearer=issued.token, name=NAME).ok
    assert wire.call(REVOKE, token_id=issued.token_id).ok
    assert wire.call(GET, bearer=issued.token, name=NAME).reason == "TOKEN_REVOKED"
    assert wire.call(REVOKE, token_id=issued.token_id).ok, "twice is as good as once"


def test_a_token_without_any_scope_for_it_revokes_itself_and_nothing_else(wire: Wire) -> None:
    one, other = wire.issue(READ), wire.issue(READ)
    assert wire.call(REVOKE, bearer=one.token, token_id=other.token_id).reason == "SCOPE_DENIED"
    assert wire.call(REVOKE, bearer=one.token, token_id=one.token_id).ok
    assert wire.call(GET, bearer=one.token, name=NAME).reason == "TOKEN_REVOKED"
    assert wire.call(GET, bearer=other.token, name=NAME).ok


@pytest.mark.alone
@pytest.mark.parametrize("stopped", [False, True], ids=["while it serves", "and after a restart"])
def test_a_revocation_is_in_force_on_every_worker_within_a_second(
    fresh_site: VaultSite, stopped: bool
) -> None:
    fresh_site.write_config(server={"workers": 2})
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(fresh_site.profile("payments"))) for _ in range(12)]
        with fresh_site.client() as client:
            client.put(NAME, {"password": "p"}, kind="bank_login")
        assert len(fresh_site.worker_pids()) == 2
        issued = wires[0].issue(READ, "session.reveal:acme/**")
        streams = []
        for wire in wires:
            assert wire.call(GET, bearer=issued.token, name=NAME).ok
            stream = stack.enter_context(wire.stream(bearer=issued.token, timeout=60))
            start = pb.SessionStart(
                credentials=[pb.CredentialSelector(name=NAME)],
                purpose="t",
                recipient_key=Recipient().public_bytes,
            )
            assert stream.ask(start=start).WhichOneof("message") == "opened"
            streams.append(stream)
        assert wires[0].call(REVOKE, token_id=issued.token_id).ok
        revoked = time.monotonic()
        for stream in streams:
            assert stream.read().revoked.reason == pb.CLOSE_REASON_TOKEN_REVOKED
            assert stream.read().closed.reason == pb.CLOSE_REASON_TOKEN_REVOKED
        assert time.monotonic() - revoked < 1.5
        time.sleep(max(0.0, revoked + 1 - time.monotonic()))
        if stopped:
            assert fresh_site.stop() == 0
            fresh_site.start()
        for wire in wires:
            assert wire.call(GET, bearer=issued.token, name=NAME).reason == "TOKEN_REVOKED"


# For no more than the policy grants.


@pytest.mark.parametrize(
    ("who", "tenant", "scopes"),
    [
        ("payments", "globex", ["session.reveal:globex/**"]),
        ("payments", "system", ["audit.read:system/audit"]),
        ("globex", "acme", ["session.reveal:acme/**"]),
        ("stranger", "acme", ["credential.read:acme/tokens/login"]),
        ("stranger", "stranger", ["credential.read:stranger/**"]),
        ("operator", "initech", ["credential.read:initech/**"]),
    ],
)
def test_a_scope_that_no_policy_grants_is_refused_with_all_that_were_asked_for(
    site: VaultSite, books: Books, who: str, tenant: str, scopes: list[str]
) -> None:
    with Wire(site.profile(who)) as wire:
        answer = wire.call(ISSUE, tenant=tenant, scopes=scopes)
    assert answer.reason == "POLICY_DENIED"
    (record,) = books.records(answer.request_id)
    assert (record["outcome"], record["reason"]) == ("refused", "POLICY_DENIED")


def test_a_pattern_wider_than_the_policys_is_refused(fresh_site: VaultSite) -> None:
    (fresh_site.folder / "policy.cedar").write_text(
        'permit (principal, action == Strongroom::Action::"session.reveal", resource) when {'
        ' principal.path == "payments" && resource.tenant == "acme" && resource.path == "stripe/*" };'
        'permit (principal, action == Strongroom::Action::"credential.read", resource) when {'
        ' principal.path == "payments" && resource.tenant == "acme" && resource.path == "stripe/*" &&'
        " context.ttl_seconds <= 60 };"
    )
    fresh_site.start()
    with Wire(fresh_site.profile("payments")) as wire:
        granted = "session.reveal:acme/stripe/*"
        assert wire.call(ISSUE, tenant="acme", scopes=[granted]).ok
        for wider in (
            "session.reveal:acme/**", "session.reveal:acme/*/*", "session.reveal:acme/stripe/**",
            "session.reveal:acme/*", "session.use.verify_webhook:acme/stripe/*", "credential.write:acme/stripe/*",
        ):  # fmt: skip
            assert wire.call(ISSUE, tenant="acme", scopes=[wider]).reason == "POLICY_DENIED", wider
            both = wire.call(ISSUE, tenant="acme", scopes=[granted, wider])
            assert both.reason == "POLICY_DENIED"
        read = ["credential.read:acme/stripe/*"]
        assert wire.call(ISSUE, tenant="acme", scopes=read, ttl={"seconds": 60}).ok
        assert wire.call(ISSUE, tenant="acme", scopes=read, ttl={"seconds": 61}).reason == "POLICY_DENIED"


# And a token of the vault's own tenant opens nothing.


def test_a_token_of_the_tenant_system_never_opens_a_secret(site: VaultSite, wire: Wire) -> None:
    assert wire.call(GET, name=NAME).ok
    own = ["session.reveal:system/**", "session.use.verify_webhook:system/**", "credential.read:system/**",
           "credential.write:system/**"]  # fmt: skip
    with Wire(site.profile("operator"), "system") as operator:
        mixed = operator.call(ISSUE, tenant="system", scopes=["session.reveal:acme/**"])
        assert mixed.reason == "FIELD_INVALID", "no token reaches beyond its tenant"
        text = operator.issue(*own, tenant="system").token
        for name in (NAME, "system/tokens/login"):
            fields = {
                "credentials": [pb.CredentialSelector(name=name)],
                "purpose": "test",
                "recipient_key": Recipient().public_bytes,
            }
            assert operator.call(REVEAL, bearer=text, **fields).reason == "SCOPE_DENIED"
            with operator.stream(bearer=text) as stream:
                assert stream.ask(start=pb.SessionStart(**fields)).reason == "SCOPE_DENIED"


def test_no_credential_is_ever_stored_in_the_tenant_system(site: VaultSite, books: Books) -> None:
    from vault.client import StrongroomError

    scopes = ("credential.write:system/**",)
    with site.client("operator", "system", scopes) as operator, pytest.raises(StrongroomError) as refused:
        operator.put("system/tokens/login", {"password": "p"}, kind="bank_login")
    assert refused.value.reason in ("TENANT_NOT_FOUND", "SCOPE_DENIED", "FIELD_INVALID")
    assert books.rows("SELECT name FROM credentials WHERE tenant = 'system'") == []
