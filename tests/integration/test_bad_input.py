"""Bad input: a documented reason and its code, nothing changed, a record of the refusal, no secret anywhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.integration.wire import DOCUMENTED, METHODS, OPEN, UNARY, Answer, Books, Stream, Wire, until
from tests.support.vault import POLICY, TRUST_DOMAIN
from vault.client import sealing
from vault.crypto import contexts, hpke, memory
from vault.server.methods import RULES
from vault.v1 import approval_pb2
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.vault import VaultSite

CANARY = "canary-7f3a9c51e0"
NAME = "acme/bad-input/login"
DELETED = "acme/bad-input/deleted"
IN_HSM = "acme/bad-input/in-hsm"
ABSENT = "acme/bad-input/absent"
FOREIGN = "globex/bad-input/login"
KIND = "bank_login"
STRIPE, PLAID_APP, PLAID_ITEM = (f"acme/bad-input/{name}" for name in ("stripe", "plaid-app", "plaid-item"))
GRANT, OAUTH_CLIENT, SHORT = (f"acme/bad-input/{name}" for name in ("grant", "oauth-client", "short"))
PROVIDERS = {
    STRIPE: ("stripe_account", {"api_key": "sk_test_" + CANARY}),
    PLAID_APP: ("plaid_app", {"client_id": "me", "secret": "s-" + CANARY}),
    PLAID_ITEM: ("plaid_item", {"access_token": "access-" + CANARY}),
    GRANT: ("oauth_grant", {"refresh_token": "refresh-" + CANARY}),
    OAUTH_CLIENT: ("oauth_client", {"client_id": "me", "client_secret": "c-" + CANARY}),
    SHORT: ("stripe_account", {"api_key": "short"}),
}
F, S = "FIELD_INVALID", "SCOPE_DENIED"
HUGE = 2**32 - 1

BAD_NAMES = {
    "one segment": "acme",
    "nine segments": "acme/2/3/4/5/6/7/8/9",
    "a segment of 64": "acme/" + "a" * 64,
    "100,000 characters": "acme/" + "a" * 100_000,
    "upper case": "acme/Bad-Input/login",
    "upper-case tenant": "ACME/bad-input/login",
    "a Cyrillic letter": "acme/b\u0430d-input/login",
    "full-width letters": "acme/\uff42ad-input/login",
    "the Kelvin sign": "acme/\u212aey",
    "a long s": "acme/bad-input/\u017fecret",
    "a combining accent": "acme/bad-input/login\u0301",
    "a zero-width space": "acme/bad-input/login\u200b",
    "a direction override": "acme/\u202ebad-input/login",
    "other digits": "acme/bad-input/\u0661",
    "NUL at the end": NAME + "\0",
    "NUL in the middle": "acme/bad-input\0/login",
    "a newline at the end": NAME + "\n",
    "a space at the end": NAME + " ",
    "a slash at the end": NAME + "/",
    "a slash at the beginning": "/" + NAME,
    "an empty segment": "acme//login",
    "dot dot": "acme/../globex/bad-input",
    "a dot": "acme/./bad-input",
    "dots in hex": "acme/%2e%2e/globex",
    "a slash in hex": "acme%2fbad-input",
    "a backslash": "acme\\bad-input",
    "a star": "acme/bad-input/*",
    "two stars": "acme/**",
    "a star as tenant": "*/bad-input/login",
    "an SQL wildcard": "acme/bad-input/%",
    "an SQL quote": "acme/bad-input/'--",
}
BAD_TENANTS = {
    "missing": "",
    "two segments": "acme/x",
    "64 characters": "a" * 64,
    "100,000 characters": "a" * 100_000,
    "upper case": "Acme",
    "a Cyrillic letter": "\u0430cme",
    "NUL at the end": "acme\0",
    "a newline at the end": "acme\n",
    "dot dot": "..",
    "hex": "%61cme",
    "a star": "*",
    "a dash first": "-acme",
}
BAD_REQUEST_IDS = {
    "65 characters": "a" * 65,
    "100,000 characters": "a" * 100_000,
    "a space": "a b",
    "NUL": "a\0",
    "a newline at the end": "a\n",
    "another alphabet": "\u0430",
    "a star": "*",
}
BAD_PURPOSES = {
    "129 characters": "a" * 129,
    "100,000 characters": "a" * 100_000,
    "a newline": "pay\nout",
    "NUL": "pay\0out",
    "an escape": "\x1b[31m",
    "not ASCII": "caf\u00e9",
}
BAD_PAGES = {
    "not base64": "***",
    "not ASCII": "\u00e9" * 32,
    "NUL": "\0" * 32,
    "too short": "AAAA",
    "of nobody": "A" * 64,
    "not UTF-8": "A" * 22 + "_____w",
    "100,000 characters": "A" * 100_000,
}
BAD_FIELDS = {
    "65": [f"f{number}" for number in range(65)],
    "one twice": ["password", "password"],
    "upper case": ["Password"],
    "64 characters": ["a" * 64],
    "NUL": ["password\0"],
    "a star": ["*"],
    "dot dot": [".."],
    "another alphabet": ["p\u0430ssword"],
}
BAD_KEYS = {
    "missing": b"",
    "31 bytes": b"\x07" * 31,
    "33 bytes": b"\x07" * 33,
    "all zero": b"\0" * 32,
    "of small order": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "of small order, spelt beyond the field": bytes.fromhex("ee" + "ff" * 30 + "7f"),
    "100,000 bytes": b"\x07" * 100_000,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing wrong in an otherwise good request."""

    method: str
    field: str
    what: str
    value: Any
    reason: str
    also: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.method.rpartition('.')[2]}-{self.field}-{self.what}".replace("/", ".").replace(
            " ", "_"
        )


@dataclasses.dataclass(frozen=True)
class Good:
    """A request that is answered, and what can be wrong with each of its fields."""

    fields: Callable[[World], dict[str, Any]]
    bad: dict[str, tuple[tuple[str, Any, str], ...]]
    tenant: str = "acme"


class World:
    """A vault with something in it, and clients of it."""

    def __init__(self, site: VaultSite) -> None:
        self.site = site
        self.books = Books(site)
        self.wires = {
            "acme": Wire(site.profile("payments"), "acme"),
            "globex": Wire(site.profile("globex"), "globex"),
            "system": Wire(site.profile("operator"), "system"),
        }
        self.identity = f"spiffe://{TRUST_DOMAIN}/payments"
        self.recipient = sealing.Recipient()
        for client in (site.client(), site.client("globex", "globex")):
            with client:
                for name in (NAME, DELETED) if client.profile.tenant == "acme" else (FOREIGN,):
                    if not client.list_credentials(name, show_deleted=True) and not _exists(client, name):
                        client.put(name, {"password": CANARY, "username": "u-" + CANARY}, kind=KIND)
        with site.client() as client:
            for name, (kind, values) in PROVIDERS.items():
                if not _exists(client, name):
                    client.put(name, values, kind=kind)
        self.wires["acme"].call("/vault.v1.CredentialService/Delete", name=DELETED)
        wire = self.wires["acme"]
        wire.call("/vault.v1.CredentialService/CreateKey", name=IN_HSM, algorithm="ES256", etag="new")
        jwks = wire.call("/vault.v1.TokenService/GetJwks").response.jwks
        signed = wire.call("/vault.v1.CredentialService/GetIngestKey").response.signed_key
        self.ingest_key = sealing.verify_ingest_key(signed, jwks)
        asked = wire.call("/vault.v1.ApprovalService/Request", operation=_operation(), purpose="test")
        self.approval_id = asked.response.approval.approval_id
        started = wire.call("/vault.v1.JobService/Start", tenant="acme", kind=1)
        self.job_id = started.response.job.job_id
        job = {"tenant": "acme", "job_id": self.job_id}
        until(lambda: wire.call("/vault.v1.JobService/Get", **job).response.job.report)

    def close(self) -> None:
        self.books.close()
        for wire in self.wires.values():
            wire.channel.close()

    def signed_size(self) -> int:
        """The size of a checkpoint."""
        note = self.wires["acme"].call("/vault.v1.AuditService/GetCheckpoint").response.note
        return int(note.split("\n")[1])

    def seal(self, name: str = NAME, kind: str = KIND) -> bytes:
        return sealing.seal_fields({"password": CANARY}, name, kind, self.ingest_key)

    def seal_handover(self) -> bytes:
        return sealing.seal_handover({"password": CANARY}, NAME, self.identity, self.ingest_key)

    def endpoint_signer(self) -> str:
        """A credential that signs webhooks."""
        name = "acme/bad-input/signer"
        with self.site.client() as client:
            if not _exists(client, name):
                client.put(name, {"signing_secret": "whsec_" + "A" * 44}, kind="webhook_endpoint")
        return name

    def endpoint(self) -> str:
        """A webhook endpoint, made when it is first asked for."""
        wire = self.wires["acme"]
        found = wire.call("/vault.v1.WebhookService/ListEndpoints").response.endpoints
        if found:
            return str(found[0].endpoint_id)
        fields = GOOD["/vault.v1.WebhookService/CreateEndpoint"].fields(self)
        made = wire.call("/vault.v1.WebhookService/CreateEndpoint", **fields)
        return str(made.response.endpoint.endpoint_id)

    def handover(self) -> str:
        """A hand-over that waits for the caller of these tests."""
        made = self.wires["acme"].call("/vault.v1.HandoverService/Wrap", **_wrap(self))
        assert made.ok
        handover_id: str = made.response.handover_id
        return handover_id

    def seal_bytes(self, plain: bytes, name: str = NAME) -> bytes:
        """Whatever bytes, sealed as if they were a bundle."""
        with memory.absorb(plain) as buffer:
            key = self.ingest_key
            info = contexts.put_info(name, KIND, key.key_id)
            return hpke.seal(hpke.SUITES[key.hpke_suite], key.public_bytes, info, buffer.view)


def _exists(client: Any, name: str) -> bool:
    from vault.client import StrongroomError

    try:
        client.get(name)
    except StrongroomError:
        return False
    return True


def each(cases: dict[str, Any], reason: str) -> tuple[tuple[str, Any, str], ...]:
    return tuple((what, value, reason) for what, value in cases.items())


NAMES = (
    ("missing", "", F),
    *each(BAD_NAMES, F),
    ("of another tenant", FOREIGN, S),
    ("of the vault's own", "system/a", S),
)
KNOWN = (*NAMES, ("absent", ABSENT, "CREDENTIAL_NOT_FOUND"))
TENANTS = (
    *each(BAD_TENANTS, F), ("the vault's own", "system", F), ("another", "globex", S), ("absent", "initech", S),
)  # fmt: skip
KEY_VERSIONS = (
    ("absent", 99, "KEY_NOT_FOUND"),
    ("just beyond 31 bits", 2**31, "KEY_NOT_FOUND"),
    ("the greatest number", HUGE, "KEY_NOT_FOUND"),
)
JOB_IDS = (
    ("missing", "", F),
    ("unknown", "A" * 22, "JOB_NOT_FOUND"),
    ("23 characters", "A" * 23, F),
    ("100,000 characters", "A" * 100_000, F),
    ("NUL", "A" * 21 + "\0", F),
    ("another alphabet", "\u00e9" * 22, F),
)
HOMES = (
    ("of an unknown placement", {"placement": 99}, F),
    ("in an HSM that there is not", {"backends": ["third"]}, F),
    ("in the same HSM twice", {"backends": ["first", "first"]}, F),
    ("in three HSMs", {"backends": ["first", "second", "third"]}, F),
)
LABELS = (
    ("33", {f"l{n}": "" for n in range(33)}, F),
    ("an empty key", {"": "a"}, F),
    ("an upper-case key", {"Team": "a"}, F),
    ("a key of 64", {"a" * 64: "a"}, F),
    ("a key with NUL", {"team\0": "a"}, F),
    ("a key in another alphabet", {"te\u0430m": "a"}, F),
    ("a value of 129", {"team": "a" * 129}, F),
    ("a value with a newline", {"team": "a\nb"}, F),
    ("a value with NUL", {"team": "\0"}, F),
    ("a value that is not ASCII", {"team": "\u00e9"}, F),
)
REQUEST_IDS = each(BAD_REQUEST_IDS, F)
ETAGS = (
    ("not the current one", "AAAAAAAAAAAAAAAA", "ETAG_MISMATCH"),
    ("100,000 characters", "A" * 100_000, "ETAG_MISMATCH"),
    ("NUL", "\0", "ETAG_MISMATCH"),
    ("another alphabet", "\u00e9", "ETAG_MISMATCH"),
    ("a star", "*", "ETAG_MISMATCH"),
)
PAGE_SIZES = (("negative", -1, F), ("the least number", -(2**31), F))
PAGES = each(BAD_PAGES, "PAGE_TOKEN_INVALID")
VERSIONS = (
    ("absent", 99, "VERSION_NOT_FOUND"),
    ("just beyond 31 bits", 2**31, "VERSION_NOT_FOUND"),
    ("the greatest number", HUGE, "VERSION_NOT_FOUND"),
)
SUITES = (("unknown", 3, F), ("the greatest number", HUGE, F))
MAX_SESSIONS = (("negative", -1, F), ("1,000,001", 1_000_001, F), ("the least number", -(2**31), F))
SCOPE = "session.reveal:acme/bad-input/login"


def selector(name: str = NAME, **more: Any) -> pb.CredentialSelector:
    return pb.CredentialSelector(name=name, **more)


CREDENTIALS = (
    ("missing", [], F),
    ("101", [selector(f"acme/bad-input/n{n}") for n in range(101)], F),
    ("one twice", [selector(), selector()], F),
    *((f"a name that is {what}", [selector(name)], F) for what, name in BAD_NAMES.items()),
    ("of another tenant", [selector(FOREIGN)], S),
    ("one of another tenant among own", [selector(), selector(FOREIGN)], S),
    ("absent", [selector(ABSENT)], "CREDENTIAL_NOT_FOUND"),
    ("one absent among others", [selector(), selector(ABSENT)], "CREDENTIAL_NOT_FOUND"),
    ("deleted", [selector(DELETED)], "CREDENTIAL_DELETED"),
    *(
        (f"a version that is {what}", [selector(version=version)], reason)
        for what, version, reason in VERSIONS
    ),
)
FILTERS = (
    ("512 characters", "a" * 512, F),
    ("100,000 characters", "a" * 100_000, F),
    ("NUL", "a\0", F),
    ("a newline", "a\n", F),
    ("a direction override", "\u202e", F),
)
MOMENTS = (
    ("the greatest number", {"seconds": 2**63 - 1}, F),
    ("the least number", {"seconds": -(2**63)}, F),
    ("too many nanoseconds", {"nanos": 2**31 - 1}, F),
    ("negative nanoseconds", {"nanos": -1}, F),
)
SPANS = (
    ("zero", {"seconds": 0}, F),
    ("negative", {"seconds": -1}, F),
    ("eleven years", {"seconds": 11 * 366 * 86_400}, F),
    ("the greatest number", {"seconds": 2**63 - 1}, F),
)
BAD_NETWORKS = {
    "a name": "localhost",
    "too long a prefix": "10.0.0.0/33",
    "100,000 characters": "1" * 100_000,
    "NUL": "10.0.0.1\0",
    "an SQL quote": "10.0.0.1'--",
    "another alphabet": "\u0661.0.0.1",
    "two": "10.0.0.1,10.0.0.2",
}
PURPOSES = (("missing", "", F), *each(BAD_PURPOSES, F))
KEYS = each(BAD_KEYS, "RECIPIENT_KEY_INVALID")
REVEAL_SUITES = (*SUITES, ("not that of the key", 2, "RECIPIENT_KEY_INVALID"))


def _put(world: World) -> dict[str, Any]:
    return {
        "name": NAME, "kind": KIND, "labels": {"team": "a"}, "sealed": world.seal(),
        "ingest_key_id": world.ingest_key.key_id,
    }  # fmt: skip


def _wrap(world: World) -> dict[str, Any]:
    return {
        "name": NAME, "recipient": world.identity, "sealed": world.seal_handover(),
        "ingest_key_id": world.ingest_key.key_id,
    }  # fmt: skip


def _reveal(world: World) -> dict[str, Any]:
    return {"credentials": [selector()], "purpose": "test", "recipient_key": world.recipient.public_bytes}


def _operation(
    action: str = "key.destroy", resource: str = "acme/keys", **arguments: str
) -> approval_pb2.Operation:
    return approval_pb2.Operation(action=action, resource=resource, arguments=arguments)


IDENTITIES = (
    ("missing", "", F), ("256 characters", "a" * 256, F), ("NUL", "a\0", F), ("not ASCII", "\u00e9", F),
)  # fmt: skip
CIRCUMSTANCES = (
    ("no life", {"ttl": {"nanos": 1}}, F),
    ("a life of more than a day", {"ttl": {"seconds": 86_401}}, F),
    ("a purpose of 129 characters", {"purpose": "a" * 129}, F),
    ("a time beyond the calendar", {"time": {"seconds": 2**62}}, F),
    ("17 approvals", {"approvals": 17}, F),
)
_LOCKS_OUT = POLICY + 'forbid (principal, action == Strongroom::Action::"policy.write", resource);'
THREAT_IDS = (
    ("missing", "", F),
    ("21 characters", "A" * 21, F),
    ("NUL", "A" * 21 + "\0", F),
    ("absent", "B" * 22, "THREAT_NOT_FOUND"),
)
APPROVAL_IDS = (
    ("missing", "", F),
    ("21 characters", "A" * 21, F),
    ("100,000 characters", "A" * 100_000, F),
    ("NUL", "A" * 21 + "\0", F),
    ("absent", "B" * 22, "APPROVAL_NOT_FOUND"),
)
GOOD: dict[str, Good] = {
    "/vault.v1.TokenService/Issue": Good(
        lambda _: {"tenant": "acme", "scopes": [SCOPE], "ttl": {"seconds": 60}, "purpose": "test"},
        {
            "tenant": (*each(BAD_TENANTS, F), ("another than the scopes'", "globex", F)),
            "scopes": (
                ("missing", [], F),
                ("33", [f"session.reveal:acme/n{n}" for n in range(33)], F),
                ("one twice", [SCOPE, SCOPE], F),
                ("257 characters", ["session.reveal:acme/" + "/".join(["a" * 60] * 4)], F),
                ("100,000 characters", ["session.reveal:acme/" + "a" * 100_000], F),
                ("empty", [""], F),
                ("no action", ["acme/stripe"], F),
                ("no resource", ["session.reveal:"], F),
                ("an unknown action", ["session.export:acme/stripe"], F),
                ("a star as action", ["*:acme/stripe"], F),
                ("upper-case action", ["Session.Reveal:acme/stripe"], F),
                ("a star as tenant", ["session.reveal:*/stripe"], F),
                ("two stars alone", ["session.reveal:**"], F),
                ("two stars in the middle", ["session.reveal:acme/**/live"], F),
                ("a star within a segment", ["session.reveal:acme/str*"], F),
                ("three stars", ["session.reveal:acme/***"], F),
                ("upper case", ["session.reveal:acme/Stripe"], F),
                ("another alphabet", ["session.reveal:acme/strip\u0435"], F),
                ("dot dot", ["session.reveal:acme/../globex"], F),
                ("hex", ["session.reveal:acme/%2e%2e"], F),
                ("NUL", ["session.reveal:acme/stripe\0"], F),
                ("a space, to make two of one", ["session.reveal:acme/a session.reveal:acme/b"], F),
                ("nine segments", ["session.reveal:acme/2/3/4/5/6/7/8/9"], F),
                ("of another tenant", ["session.reveal:globex/bad-input/login"], F),
                ("one of another tenant among own", [SCOPE, "session.reveal:globex/a"], F),
            ),
            "ttl": (
                ("zero", {"seconds": 0}, F),
                ("negative", {"seconds": -1}, F),
                ("half a second", {"nanos": 500_000_000}, F),
                ("24 hours and a second", {"seconds": 86_401}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
                ("the least number", {"seconds": -(2**63)}, F),
                ("too many nanoseconds", {"seconds": 60, "nanos": 2**31 - 1}, F),
                ("negative nanoseconds", {"nanos": -1}, F),
            ),
            "purpose": each(BAD_PURPOSES, F),
            "max_sessions": MAX_SESSIONS,
            "narrowable": (),
            "approval_id": (
                ("absent", "B" * 22, "APPROVAL_NOT_FOUND"),
                ("malformed", "*", "APPROVAL_NOT_FOUND"),
                ("100,000 characters", "A" * 100_000, "APPROVAL_NOT_FOUND"),
            ),
        },
    ),
    "/vault.v1.TokenService/Exchange": Good(
        lambda _: {"scopes": [SCOPE], "ttl": {"seconds": 60}, "purpose": "test"},
        {
            "scopes": (
                ("missing", [], F),
                ("33", [f"session.reveal:acme/n{n}" for n in range(33)], F),
                ("one twice", [SCOPE, SCOPE], F),
                ("an unknown action", ["session.export:acme/stripe"], F),
                ("another alphabet", ["session.reveal:acme/strip\u0435"], F),
                ("NUL", ["session.reveal:acme/stripe\0"], F),
                ("of another tenant", ["session.reveal:globex/bad-input/login"], F),
                ("that the parent lacks", ["token.delegate:acme/tokens"], S),
                ("one that the parent lacks among others", [SCOPE, "token.delegate:acme/tokens"], S),
            ),
            "ttl": (
                ("zero", {"seconds": 0}, F),
                ("negative", {"seconds": -1}, F),
                ("longer than the parent's", {"seconds": 3601}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
                ("the least number", {"seconds": -(2**63)}, F),
            ),
            "certificate_thumbprint": (
                ("of another, without the scope", "A" * 43, S),
                ("42 characters, without the scope", "A" * 42, S),
            ),
            "purpose": each(BAD_PURPOSES, F),
            "max_sessions": MAX_SESSIONS,
            "narrowable": (),
        },
    ),
    "/vault.v1.TokenService/Revoke": Good(
        lambda _: {"token_id": "A" * 22},
        {
            "token_id": (
                ("missing", "", F),
                ("21 characters", "A" * 21, F),
                ("23 characters", "A" * 23, F),
                ("100,000 characters", "A" * 100_000, F),
                ("another alphabet", "\u00e9" * 22, F),
                ("NUL", "A" * 21 + "\0", F),
                ("a newline", "A" * 21 + "\n", F),
                ("a star", "*", F),
            ),
            "parent_id": (("beside a token's id", "A" * 22, F),),
            "identity": (("beside a token's id", "spiffe://x/y", F),),
            "all": (("beside a token's id", True, F),),
            "tenant": (
                ("another", "globex", S),
                ("every one", "*", F),
                *each({k: v for k, v in BAD_TENANTS.items() if v not in ("", "*")}, F),
            ),
            "issued_before": (
                ("for a single token", {"seconds": 1}, F),
                ("in no calendar", {"seconds": 2**62}, F),
            ),
        },
    ),
    "/vault.v1.TokenService/Introspect": Good(
        lambda _: {"token": "a.b.c"},
        {
            "token": (
                ("missing", "", F),
                ("4,097 characters", "a" * 4097, F),
                ("100,000 characters", "a" * 100_000, F),
            )
        },
    ),
    "/vault.v1.TokenService/GetJwks": Good(lambda _: {}, {}),
    "/vault.v1.CredentialService/GetIngestKey": Good(lambda _: {"hpke_suite": 1}, {"hpke_suite": SUITES}),
    "/vault.v1.CredentialService/Put": Good(
        _put,
        {
            "name": NAMES,
            "subject": (
                ("129 characters", "a" * 129, F),
                ("a newline", "a\nb", F),
                ("NUL", "a\0", F),
                ("another alphabet", "\u0430", F),
            ),
            "rotation_period": (
                ("a second less than a day", {"seconds": 86_399}, F),
                ("a day and a half", {"seconds": 129_600}, F),
                ("3651 days", {"seconds": 3651 * 86_400}, F),
                ("negative", {"seconds": -86_400}, F),
                ("a nanosecond less than none", {"nanos": -1000}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
            ),
            "kind": (
                ("another than before", "generic", "SEALED_PAYLOAD_INVALID"),
                ("one that only the HSM makes", "hsm_signing_key", F),
                ("upper case", "Bank", F),
                ("64 characters", "a" * 64, F),
                ("NUL", "bank\0", F),
                ("another alphabet", "b\u0430nk", F),
                ("a dash", "bank-login", F),
                ("a star", "*", F),
            ),
            "labels": LABELS,
            "sealed": (
                ("missing", b"", F),
                ("98,305 bytes", b"\0" * 98_305, F),
                ("one byte", b"\0", "SEALED_PAYLOAD_INVALID"),
                ("zeros", b"\0" * 200, "SEALED_PAYLOAD_INVALID"),
                ("98,304 bytes of zeros", b"\0" * 98_304, "SEALED_PAYLOAD_INVALID"),
                ("in the clear", CANARY.encode(), "SEALED_PAYLOAD_INVALID"),
                ("cut by a byte", lambda w: w.seal()[:-1], "SEALED_PAYLOAD_INVALID"),
                ("a byte longer", lambda w: w.seal() + b"\0", "SEALED_PAYLOAD_INVALID"),
                ("one bit flipped", lambda w: _flip(w.seal(), -1), "SEALED_PAYLOAD_INVALID"),
                ("one bit of its key flipped", lambda w: _flip(w.seal(), 3), "SEALED_PAYLOAD_INVALID"),
                ("for another name", lambda w: w.seal(name=ABSENT), "SEALED_PAYLOAD_INVALID"),
                ("for another kind", lambda w: w.seal(kind="generic"), "SEALED_PAYLOAD_INVALID"),
                ("for another tenant", lambda w: w.seal(name=FOREIGN), "SEALED_PAYLOAD_INVALID"),
                ("holds no bundle", lambda w: w.seal_bytes(CANARY.encode()), "SEALED_PAYLOAD_INVALID"),
                (
                    "holds a bundle without fields",
                    lambda w: w.seal_bytes(b"\x01\0\0"),
                    "SEALED_PAYLOAD_INVALID",
                ),
                (
                    "holds a bundle that promises too much",
                    lambda w: w.seal_bytes(b"\x01\xff\xff" + CANARY.encode()),
                    "SEALED_PAYLOAD_INVALID",
                ),
                (
                    "holds a field name in upper case",
                    lambda w: w.seal_bytes(b"\x01\0\x01\x01A\0\0\0\x01x"),
                    "SEALED_PAYLOAD_INVALID",
                ),
                (
                    "holds a field twice",
                    lambda w: w.seal_bytes(b"\x01\0\x02\x01a\0\0\0\x01x\x01a\0\0\0\x01y"),
                    "SEALED_PAYLOAD_INVALID",
                ),
            ),
            "ingest_key_id": (
                ("missing", "", F),
                ("unknown", "A" * 43, "INGEST_KEY_UNKNOWN"),
                ("short", "A", "INGEST_KEY_UNKNOWN"),
                ("100,000 characters", "A" * 100_000, "INGEST_KEY_UNKNOWN"),
                ("43 times NUL", "\0" * 43, "INGEST_KEY_UNKNOWN"),
                ("43 characters of another alphabet", "\u00e9" * 43, "INGEST_KEY_UNKNOWN"),
                ("SQL", "' OR 1=1 --" + "a" * 32, "INGEST_KEY_UNKNOWN"),
            ),
            "etag": (*ETAGS, ("new, of what exists", "new", "ETAG_MISMATCH")),
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.CredentialService/Get": Good(lambda _: {"name": NAME}, {"name": KNOWN}),
    "/vault.v1.CredentialService/List": Good(
        lambda _: {"prefix": "acme/bad-input"},
        {
            "prefix": (
                *((what, value, F) for what, value in BAD_NAMES.items() if value != "acme"),
                ("of another tenant", "globex/bad-input", S),
                ("another tenant", "globex", F),
            ),
            "page_size": PAGE_SIZES,
            "page_token": PAGES,
            "show_deleted": (),
        },
    ),
    "/vault.v1.CredentialService/Watch": Good(
        lambda _: {"prefix": "acme/bad-input"},
        {
            "prefix": (
                *((what, value, F) for what, value in BAD_NAMES.items() if value != "acme"),
                ("of another tenant", "globex/bad-input", S),
                ("another tenant", "globex", F),
            ),
            "cursor": PAGES,
        },
    ),
    "/vault.v1.CredentialService/ListVersions": Good(
        lambda _: {"name": NAME}, {"name": KNOWN, "page_size": PAGE_SIZES, "page_token": PAGES}
    ),
    "/vault.v1.CredentialService/SetStanding": Good(
        lambda _: {"name": NAME, "standing": 2, "note": "test"},
        {
            "name": (*KNOWN, ("deleted", DELETED, "CREDENTIAL_DELETED")),
            "standing": (("unknown", 99, F), ("negative", -1, F)),
            "note": PURPOSES,
            "expire_time": (
                ("now past", {"seconds": 1}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
                ("negative nanoseconds", {"seconds": 2**33, "nanos": -1}, F),
            ),
            "etag": ETAGS,
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.CredentialService/CreateKey": Good(
        lambda _: {"name": IN_HSM, "algorithm": "ES256", "labels": {"team": "a"}},
        {
            "name": (
                *NAMES,
                ("deleted", DELETED, "CREDENTIAL_DELETED"),
                ("of another kind", NAME, F),
            ),
            "algorithm": (
                ("missing", "", F),
                ("one for software keys", "PS256", F),
                ("none", "none", F),
                ("lower case", "es256", F),
                ("NUL", "ES256\0", F),
            ),
            "labels": LABELS,
            "kid": (
                ("129 characters", "a" * 129, F),
                ("a quote", 'a"b', F),
                ("a newline", "a\nb", F),
                ("another alphabet", "\u0430", F),
            ),
            "formats": (
                ("unknown", ["jwt"], F),
                ("two in one", ["jws raw", "jwt"], F),
                ("NUL", ["\0"], F),
            ),
            "etag": (*ETAGS, ("new, of what exists", "new", "ETAG_MISMATCH")),
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.CredentialService/GetPublicKey": Good(
        lambda _: {"name": IN_HSM},
        {
            "name": (*KNOWN, ("of another kind", NAME, "SECRET_UNSUITABLE")),
            "version": VERSIONS,
        },
    ),
    "/vault.v1.CredentialService/Delete": Good(
        lambda _: {"name": NAME},
        {
            "name": (*KNOWN, ("deleted already", DELETED, "CREDENTIAL_DELETED")),
            "etag": ETAGS,
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.CredentialService/Undelete": Good(
        lambda _: {"name": DELETED},
        {
            "name": (*KNOWN, ("not deleted", NAME, "CREDENTIAL_NOT_DELETED")),
            "etag": ETAGS,
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.CredentialService/DestroyVersion": Good(
        lambda _: {"name": NAME, "version": 1},
        {
            "name": KNOWN,
            "version": (("missing", 0, F), *VERSIONS),
            "etag": ETAGS,
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.WebhookService/CreateEndpoint": Good(
        lambda w: {
            "url": "https://hooks.example/vault",
            "events": ["credential.put"],
            "credential": w.endpoint_signer(),
        },
        {
            "url": (
                ("missing", "", F),
                ("not HTTPS", "http://hooks.example/", F),
                ("no host", "https:///x", F),
                ("with a user", "https://me:pw@hooks.example/", F),
                ("with a query", "https://hooks.example/?token=1", F),
                ("with a fragment", "https://hooks.example/#x", F),
                ("an upper-case host", "https://Hooks.example/", F),
                ("a host of another alphabet", "https://h\u043e\u043eks.example/", F),
                ("a newline in the path", "https://hooks.example/a\nb", F),
                ("port 0", "https://hooks.example:0/", F),
                ("port 65536", "https://hooks.example:65536/", F),
                ("513 characters", "https://hooks.example/" + "a" * 491, F),
                ("100,000 characters", "https://hooks.example/" + "a" * 100_000, F),
            ),
            "events": (
                ("missing", [], F),
                ("unknown", ["credential.revealed"], F),
                ("one twice", ["credential.put", "credential.put"], F),
                ("a star", ["*"], F),
            ),
            "credential": (
                *KNOWN,
                ("deleted", DELETED, "CREDENTIAL_DELETED"),
                ("of another kind", NAME, "SECRET_UNSUITABLE"),
            ),
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.WebhookService/ListEndpoints": Good(lambda _: {}, {}),
    "/vault.v1.WebhookService/DeleteEndpoint": Good(
        lambda w: {"endpoint_id": w.endpoint()},
        {
            "endpoint_id": (
                ("missing", "", F),
                ("21 characters", "A" * 21, F),
                ("100,000 characters", "A" * 100_000, F),
                ("NUL", "A" * 21 + "\0", F),
                ("absent", "A" * 22, "ENDPOINT_NOT_FOUND"),
            )
        },
    ),
    "/vault.v1.HandoverService/Wrap": Good(
        _wrap,
        {
            "name": NAMES,
            "recipient": (
                *PURPOSES,
                ("another than it was sealed for", "spiffe://test/else", "SEALED_PAYLOAD_INVALID"),
            ),
            "sealed": (
                ("missing", b"", F),
                ("98,305 bytes", b"\0" * 98_305, F),
                ("zeros", b"\0" * 200, "SEALED_PAYLOAD_INVALID"),
                ("in the clear", CANARY.encode(), "SEALED_PAYLOAD_INVALID"),
                ("sealed as a credential", lambda w: w.seal(), "SEALED_PAYLOAD_INVALID"),
                ("one bit flipped", lambda w: _flip(w.seal_handover(), -1), "SEALED_PAYLOAD_INVALID"),
            ),
            "ingest_key_id": (("missing", "", F), ("unknown", "A" * 43, "INGEST_KEY_UNKNOWN")),
            "ttl": (
                ("zero", {"seconds": 0}, F),
                ("negative", {"seconds": -1}, F),
                ("24 hours and a second", {"seconds": 86_401}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
            ),
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.HandoverService/Unwrap": Good(
        lambda w: {"name": NAME, "handover_id": w.handover(), "recipient_key": w.recipient.public_bytes},
        {
            "name": (*NAMES, ("of another hand-over", ABSENT, "HANDOVER_NOT_FOUND")),
            "handover_id": (
                ("missing", "", F),
                ("21 characters", "A" * 21, F),
                ("100,000 characters", "A" * 100_000, F),
                ("another alphabet", "\u00e9" * 22, F),
                ("absent", "A" * 22, "HANDOVER_NOT_FOUND"),
            ),
            "recipient_key": KEYS,
            "hpke_suite": REVEAL_SUITES,
        },
    ),
    "/vault.v1.SessionService/Reveal": Good(
        _reveal,
        {
            "credentials": (
                *CREDENTIALS,
                *(
                    (f"field names: {what}", [selector(field_names=names)], F)
                    for what, names in BAD_FIELDS.items()
                ),
                ("an unknown field", [selector(field_names=["pin"])], "UNKNOWN_FIELD"),
                (
                    "an unknown field among known",
                    [selector(field_names=["password", "pin"])],
                    "UNKNOWN_FIELD",
                ),
            ),
            "purpose": PURPOSES,
            "recipient_key": KEYS,
            "hpke_suite": REVEAL_SUITES,
            # With an approval another scope is asked for, and this token has it not.
            "approval_id": (("any", "A" * 22, S), ("malformed", "*", S)),
        },
    ),
    "/vault.v1.ApprovalService/Request": Good(
        lambda _: {"operation": _operation(), "purpose": "test"},
        {
            "operation": (
                ("missing", None, F),
                ("an action that needs no approval", _operation(action="credential.read"), F),
                ("an unknown action", _operation(action="*"), F),
                *(
                    (f"a resource that is {what}", _operation(resource=name), F)
                    for what, name in BAD_NAMES.items()
                ),
                ("a resource of another tenant", _operation(resource="globex/keys"), S),
                ("17 arguments", _operation(**{f"a{n}": "x" for n in range(17)}), F),
                ("an argument's name in upper case", _operation(Version="1"), F),
                ("a control character", _operation(version="1\n"), F),
                ("129 characters", _operation(version="1" * 129), F),
            ),
            "purpose": PURPOSES,
            "request_id": REQUEST_IDS,
            "document": (("of what has none", "x", F),),
        },
    ),
    "/vault.v1.ThreatService/List": Good(
        lambda _: {}, {"only_open": (), "page_size": PAGE_SIZES, "page_token": PAGES}, "system"
    ),
    "/vault.v1.ThreatService/Explain": Good(
        lambda _: {"threat_id": "A" * 22}, {"threat_id": THREAT_IDS}, "system"
    ),
    "/vault.v1.ThreatService/Release": Good(
        lambda _: {"threat_id": "A" * 22, "purpose": "test"},
        {"threat_id": THREAT_IDS, "purpose": PURPOSES},
        "system",
    ),
    "/vault.v1.ThreatService/GetBlastRadius": Good(
        lambda _: {"identity": "a.example"},
        {
            "identity": (("missing", "", F), ("another alphabet", "\u0430.example", F)),
            "token_id": (("21 characters", "A" * 21, F), ("a quote", "'" * 22, F)),
            "certificate": (("42 characters", "A" * 42, F), ("a wildcard", "%" * 43, F)),
        },
        "system",
    ),
    "/vault.v1.PolicyService/Get": Good(
        lambda _: {},
        {"version": (("absent", 99, "POLICY_NOT_FOUND"), ("huge", HUGE, "POLICY_NOT_FOUND"))},
        "system",
    ),
    "/vault.v1.PolicyService/List": Good(
        lambda _: {}, {"page_size": PAGE_SIZES, "page_token": PAGES}, "system"
    ),
    "/vault.v1.PolicyService/Validate": Good(lambda _: {"text": POLICY}, {"text": ()}, "system"),
    "/vault.v1.PolicyService/Apply": Good(
        lambda _: {"text": POLICY, "comment": "test", "approval_id": "A" * 22},
        {
            "text": (
                ("missing", "", "POLICY_INVALID"),
                ("not Cedar", "permit (", "POLICY_INVALID"),
                ("only a comment", "// nothing", "POLICY_INVALID"),
                (
                    "beside the schema",
                    "permit (principal, action, resource) when { principal.x };",
                    "POLICY_INVALID",
                ),
                ("too long", POLICY + "//" + "x" * 131_072, "POLICY_INVALID"),
                ("one that locks out", _LOCKS_OUT, "POLICY_INVALID"),
            ),
            "base_version": (("absent", 99, "POLICY_CHANGED"), ("huge", HUGE, "POLICY_CHANGED")),
            "comment": PURPOSES,
            "approval_id": (("missing", "", "APPROVAL_REQUIRED"), ("absent", "B" * 22, "APPROVAL_NOT_FOUND")),
            "request_id": REQUEST_IDS,
        },
        "system",
    ),
    "/vault.v1.PolicyService/Explain": Good(
        lambda _: {"identity": "spiffe://x/y", "scope": SCOPE},
        {
            "identity": IDENTITIES,
            "scope": (("missing", "", F), ("no action", "acme/x", F), ("an unknown action", "a.b:acme/x", F)),
            "circumstances": CIRCUMSTANCES,
        },
        "system",
    ),
    "/vault.v1.PolicyService/ListReachers": Good(
        lambda _: {"name": NAME},
        {
            "name": each(BAD_NAMES, F),
            "identities": (("101", ["a"] * 101, F), *((what, [value], F) for what, value, _ in IDENTITIES)),
            "circumstances": CIRCUMSTANCES,
        },
        "system",
    ),
    "/vault.v1.ApprovalService/Approve": Good(
        lambda _: {"approval_id": "A" * 22, "signature": b"x"},
        {"approval_id": APPROVAL_IDS, "signature": (("of nothing", b"x" * 64, "APPROVAL_NOT_FOUND"),)},
    ),
    "/vault.v1.ApprovalService/Get": Good(
        lambda world: {"approval_id": world.approval_id}, {"approval_id": APPROVAL_IDS}
    ),
    "/vault.v1.ApprovalService/List": Good(
        lambda _: {}, {"only_open": (), "page_size": PAGE_SIZES, "page_token": PAGES}
    ),
    "/vault.v1.ApprovalService/Cancel": Good(
        lambda _: {"approval_id": "A" * 22}, {"approval_id": APPROVAL_IDS}
    ),
    "/vault.v1.KeyService/CreateTenant": Good(
        lambda _: {"tenant": "initech"},
        {
            "tenant": (
                *each(BAD_TENANTS, F),
                ("the vault's own", "system", F),
                ("one that exists", "acme", "TENANT_EXISTS"),
            ),
            "homes": HOMES,
            "request_id": REQUEST_IDS,
            "validate_only": (),
        },
        tenant="system",
    ),
    "/vault.v1.ErasureService/Describe": Good(
        lambda _: {"tenant": "acme"},
        {
            "tenant": (*each(BAD_TENANTS, F), ("the vault's own", "system", F)),
            "subject": (("unknown", "nobody", "SCOPE_DENIED"),),
            "identity": (("beside a tenant", "person:" + "A" * 22, F),),
        },
        tenant="system",
    ),
    "/vault.v1.ErasureService/Erase": Good(
        lambda _: {"tenant": "acme"},
        {
            "tenant": (*each(BAD_TENANTS, F), ("the vault's own", "system", F)),
            "subject": (("of another scope", "nobody", "SCOPE_DENIED"),),
            "identity": (("beside a tenant", "person:" + "A" * 22, F),),
            "approval_id": (("none", "", "APPROVAL_REQUIRED"), ("unknown", "A" * 22, "APPROVAL_NOT_FOUND")),
        },
        tenant="system",
    ),
    "/vault.v1.KeyService/Rotate": Good(
        lambda _: {"tenant": "acme"},
        {
            "tenant": TENANTS,
            "request_id": REQUEST_IDS,
            "purpose": (("not a tenant's", 2, F), ("unknown", 99, F)),
            "homes": HOMES,
            "validate_only": (),
        },
    ),
    "/vault.v1.KeyService/List": Good(
        lambda _: {"tenant": "acme"}, {"tenant": TENANTS, "page_size": PAGE_SIZES, "page_token": PAGES}
    ),
    "/vault.v1.KeyService/Describe": Good(
        lambda _: {"tenant": "acme"},
        {
            "tenant": TENANTS,
            "version": (
                ("absent", 99, "KEY_NOT_FOUND"),
                ("just beyond 31 bits", 2**31, "KEY_NOT_FOUND"),
                ("the greatest number", HUGE, "KEY_NOT_FOUND"),
            ),
        },
    ),
    "/vault.v1.KeyService/GetStatus": Good(
        lambda _: {"tenant": "acme"},
        {"tenant": [row for row in TENANTS if row[0] != "the vault's own"]},
    ),
    "/vault.v1.KeyService/ListUses": Good(
        lambda _: {"tenant": "acme", "version": 1},
        {
            "tenant": TENANTS,
            "version": (*KEY_VERSIONS, ("missing", 0, "KEY_NOT_FOUND")),
            "page_size": PAGE_SIZES,
            "page_token": PAGES,
        },
    ),
    "/vault.v1.KeyService/Retire": Good(
        lambda _: {"tenant": "acme", "version": 1, "validate_only": True},
        {"tenant": TENANTS, "version": (*KEY_VERSIONS, ("missing", 0, F)), "validate_only": ()},
    ),
    "/vault.v1.KeyService/Quarantine": Good(
        lambda _: {"tenant": "acme", "version": 1, "validate_only": True},
        {
            "tenant": TENANTS,
            "version": (*KEY_VERSIONS, ("missing", 0, F)),
            "refuse_reads": (),
            "validate_only": (),
        },
    ),
    "/vault.v1.KeyService/Restore": Good(
        lambda _: {"tenant": "acme", "version": 1, "validate_only": True},
        {"tenant": TENANTS, "version": (*KEY_VERSIONS, ("missing", 0, F)), "validate_only": ()},
    ),
    "/vault.v1.KeyService/Destroy": Good(
        lambda _: {"tenant": "acme", "version": 1, "validate_only": True},
        {
            "tenant": TENANTS,
            "version": (*KEY_VERSIONS, ("missing", 0, F)),
            "delay": (
                ("negative", {"seconds": -1}, F),
                ("beyond the most", {"seconds": 90 * 86_400 + 1}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
            ),
            "approval_id": (),
            "validate_only": (),
        },
    ),
    "/vault.v1.KeyService/SetSchedule": Good(
        lambda _: {"tenant": "acme", "schedule": {"max_wraps": 1000}, "validate_only": True},
        {
            "tenant": TENANTS,
            "schedule": (
                ("of another purpose", {"purpose": 2}, F),
                ("of an unknown purpose", {"purpose": 99}, F),
                ("too often", {"every": {"seconds": 59}}, F),
                ("too seldom", {"every": {"seconds": 731 * 86_400}}, F),
                ("negative", {"every": {"seconds": -1}}, F),
                ("the greatest number", {"every": {"seconds": 2**63 - 1}}, F),
                ("too many wraps", {"max_wraps": 2**31 + 1}, F),
            ),
            "validate_only": (),
        },
    ),
    "/vault.v1.JobService/Start": Good(
        lambda _: {"tenant": "acme", "kind": 1, "validate_only": True},
        {
            "tenant": TENANTS,
            "kind": (("missing", 0, F), ("unknown", 99, F)),
            "source_version": (
                ("absent", 99, "KEY_NOT_FOUND"),
                ("the greatest number", HUGE, "KEY_NOT_FOUND"),
            ),
            "suite": (("for a rewrap", "AES-256-GCM-HKDF-SHA256-COMMIT", F), ("unknown", CANARY, F)),
            "max_per_second": (("beyond the most", 1_000_001, F), ("the greatest number", HUGE, F)),
            "validate_only": (),
            "request_id": REQUEST_IDS,
        },
    ),
    "/vault.v1.JobService/Get": Good(
        lambda w: {"tenant": "acme", "job_id": w.job_id}, {"tenant": TENANTS, "job_id": JOB_IDS}
    ),
    "/vault.v1.JobService/List": Good(
        lambda _: {"tenant": "acme"},
        {"tenant": TENANTS, "page_size": PAGE_SIZES, "page_token": PAGES},
    ),
    "/vault.v1.JobService/ListFailures": Good(
        lambda w: {"tenant": "acme", "job_id": w.job_id},
        {"tenant": TENANTS, "job_id": JOB_IDS, "page_size": PAGE_SIZES, "page_token": PAGES},
    ),
    "/vault.v1.JobService/Update": Good(
        lambda w: {"tenant": "acme", "job_id": w.job_id, "command": 1},
        {
            "tenant": TENANTS,
            "job_id": JOB_IDS,
            "command": (("unknown", 99, F),),
            "max_per_second": (("beyond the most", 1_000_001, F), ("the greatest number", HUGE, F)),
            "validate_only": (),
        },
    ),
    "/vault.v1.JobService/Watch": Good(
        lambda w: {"tenant": "acme", "job_id": w.job_id}, {"tenant": TENANTS, "job_id": JOB_IDS}
    ),
    "/vault.v1.AuditService/List": Good(
        lambda _: {"page_size": 1},
        {
            "tenant": (
                *((what, value, S) for what, value in BAD_TENANTS.items() if value),
                ("another", "globex", S),
                ("the vault's own", "system", S),
            ),
            "action": FILTERS,
            "resource": FILTERS,
            "identity": FILTERS,
            "device_id": FILTERS,
            "outcome": (("unknown", 99, F),),
            "start_time": MOMENTS,
            "end_time": MOMENTS,
            "network": each(BAD_NETWORKS, F),
            "wait": (
                ("negative", {"seconds": -1}, F),
                ("half a minute and a second", {"seconds": 31}, F),
                ("the greatest number", {"seconds": 2**63 - 1}, F),
                ("too many nanoseconds", {"nanos": 2**31 - 1}, F),
            ),
            "first_sequence": (),
            "newest_first": (),
            "page_size": PAGE_SIZES,
            "page_token": PAGES,
        },
    ),
    "/vault.v1.AuditService/GetCheckpoint": Good(lambda _: {}, {}),
    "/vault.v1.AuditService/Report": Good(
        lambda _: {"standard": "gdpr"},
        {
            "standard": each({"missing": "", "unknown": "iso-9001", "a path": "../gdpr", "NUL": "gdpr\0"}, F),
            "period": SPANS,
            "cryptoperiod": SPANS,
        },
        tenant="system",
    ),
    "/vault.v1.AuditService/Identify": Good(
        lambda _: {"pseudonyms": ["person:" + "A" * 22]},
        {
            "pseudonyms": each(
                {
                    "none": [],
                    "too many": ["person:" + "A" * 22] * 101,
                    "an identity": ["spiffe://a/people/b"],
                    "too short": ["person:A"],
                    "a path": ["person:../../etc/passwd/aaaaaa"],
                    "NUL": ["person:" + "A" * 21 + "\0"],
                    "empty": [""],
                },
                F,
            ),
        },
        tenant="system",
    ),
    "/vault.v1.AuditService/ListSinks": Good(lambda _: {}, {}, tenant="system"),
    "/vault.v1.AuditService/Verify": Good(lambda _: {}, {}, tenant="system"),
    "/vault.v1.AuditService/WatchVerify": Good(lambda _: {}, {}, tenant="system"),
    "/vault.v1.AuditService/ListCheckpoints": Good(
        lambda _: {"page_size": 1}, {"page_size": PAGE_SIZES, "page_token": PAGES}
    ),
    "/vault.v1.AuditService/GetInclusionProof": Good(
        lambda _: {"sequence": 0},
        {
            "sequence": (("absent", 10**9, "RECORD_NOT_FOUND"), ("beyond any number", 2**64 - 1, F)),
            "size": (("no checkpoint", 10**9, "CHECKPOINT_NOT_FOUND"), ("beyond any number", 2**64 - 1, F)),
        },
        tenant="system",
    ),
    "/vault.v1.AuditService/AcceptLoss": Good(
        lambda _: {"sequence": 0, "approval_id": "A" * 22},
        {
            "sequence": (
                ("absent", 10**9, "RECORD_NOT_FOUND"),
                ("a whole one", 0, F),
                ("beyond any number", 2**64 - 1, F),
            ),
            "approval_id": (("of a whole record", "A" * 22, F),),
        },
        tenant="system",
    ),
    "/vault.v1.AuditService/GetConsistencyProof": Good(
        lambda world: {"old_size": world.signed_size()},
        {
            "old_size": (
                ("none", 0, F),
                ("no checkpoint", 10**9, "CHECKPOINT_NOT_FOUND"),
                ("beyond any number", 2**64 - 1, F),
            ),
            "size": (("no checkpoint", 10**9, "CHECKPOINT_NOT_FOUND"), ("beyond any number", 2**64 - 1, F)),
        },
    ),
}
START: dict[str, tuple[tuple[str, Any, str], ...]] = {
    "credentials": (
        *CREDENTIALS,
        ("with field names", [selector(field_names=["password"])], F),
    ),
    "purpose": PURPOSES,
    "recipient_key": KEYS,
    "hpke_suite": REVEAL_SUITES,
    "ttl": (
        ("zero", {"seconds": 0}, F),
        ("negative", {"seconds": -1}, F),
        ("beyond the most", {"seconds": 3601}, F),
        ("the greatest number", {"seconds": 2**63 - 1}, F),
        ("the least number", {"seconds": -(2**63)}, F),
        ("too many nanoseconds", {"seconds": 60, "nanos": 2**31 - 1}, F),
    ),
}
CASES = [
    Case(method, field, what, value, reason)
    for method, good in GOOD.items()
    for field, bad in good.bad.items()
    for what, value, reason in bad
]
START_CASES = [
    Case(OPEN, field, what, value, reason) for field, bad in START.items() for what, value, reason in bad
]


def _flip(data: bytes, place: int) -> bytes:
    altered = bytearray(data)
    altered[place] ^= 1
    return bytes(altered)


@pytest.fixture(scope="session")
def world(site: VaultSite) -> Iterator[World]:
    made = World(site)
    yield made
    made.close()


class Watch:
    """Holds the vault's state and its log against what they were, around one refused call."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = world.books.state()
        self._log_size = world.site.log_file.stat().st_size

    def refused(self, answer: Answer, method: str, reason: str, *, value: object = None) -> None:
        """The reason and its code, nothing changed, one record, no secret, nothing repeated, no defect."""
        assert answer.reason == reason, answer
        assert answer.code is DOCUMENTED[reason]
        assert self._world.books.state() == self._before
        self.recorded(answer.request_id, method, reason)
        self.quiet(answer.raw, value)

    def recorded(self, request_id: str, method: str, reason: str) -> None:
        records = self._world.books.records(request_id)
        assert [(record["outcome"], record["reason"]) for record in records] == [("refused", reason)]
        assert records[0]["action_type"] == RULES[method].action
        assert CANARY not in repr(records)

    def quiet(self, raw: bytes, value: object = None) -> None:
        with self._world.site.log_file.open("rb") as log:
            log.seek(self._log_size)
            logged = log.read()
        for place in (raw, logged):
            assert CANARY.encode() not in place
            if isinstance(value, str) and len(value) > 8:
                assert value.encode()[:1000] not in place
        assert b"Traceback" not in logged
        assert b"defect" not in logged


def test_every_method_and_every_field_has_its_rows() -> None:
    assert set(GOOD) == set(UNARY)
    for method, good in GOOD.items():
        fields = {field.name for field in METHODS[method].input_type.fields}
        assert set(good.bad) == fields, method
    start = pb.SessionStart.DESCRIPTOR.fields
    assert set(START) == {field.name for field in start}
    assert set(METHODS) == set(RULES)


def test_every_reason_is_documented_with_its_code() -> None:
    from vault.errors import Reason

    assert set(DOCUMENTED) == set(Reason)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_field_is_refused_for_its_own_reason(
    world: World, case: Case, request: pytest.FixtureRequest
) -> None:
    good = GOOD[case.method]
    wire = world.wires[good.tenant]
    value = case.value(world) if callable(case.value) else case.value
    fields = {**good.fields(world), case.field: value}
    wire.token  # noqa: B018 - issued before the state is looked at
    watch = Watch(world)
    watch.refused(wire.call(case.method, **fields), case.method, case.reason, value=case.value)


@pytest.mark.parametrize("method", [method for method in UNARY if RULES[method].needs_token])
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ("", "TOKEN_INVALID"),
        ("a", "TOKEN_INVALID"),
        ("a.b.c", "TOKEN_INVALID"),
        ("a" * 5000, "TOKEN_INVALID"),
    ],
    ids=["none", "an empty one", "a letter", "three parts", "an oversized one"],
)
def test_a_call_without_a_good_token_is_refused(
    world: World, method: str, token: str | None, reason: str
) -> None:
    wire = world.wires[GOOD[method].tenant]
    fields = GOOD[method].fields(world)
    watch = Watch(world)
    watch.refused(wire.call(method, bearer=token, **fields), method, reason)


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize(
    "payload",
    [b"\xff\xff\xff\xff", b"\x0a\xff\xff\xff\x0f" + CANARY.encode(), b"\x0a\x04\xff\xfe\xfd\xfc"],
    ids=["no protobuf", "a length beyond the end", "not UTF-8"],
)
def test_bytes_that_are_no_message_are_refused_and_recorded(
    world: World, method: str, payload: bytes
) -> None:
    wire = world.wires[GOOD[method].tenant]
    wire.token  # noqa: B018
    watch = Watch(world)
    answer = wire.call(method, payload)
    watch.quiet(answer.raw)
    if answer.ok:
        # A field that the message does not know is skipped, as protobuf wants it.
        return
    watch.refused(answer, method, "FIELD_INVALID")


@pytest.mark.parametrize("method", UNARY)
def test_a_device_id_of_the_wrong_form_is_refused(world: World, method: str) -> None:
    wire = world.wires[GOOD[method].tenant]
    wire.token  # noqa: B018
    fields = GOOD[method].fields(world)
    watch = Watch(world)
    answer = wire.call(method, metadata=[("x-device-id", "d" * 129)], **fields)
    watch.refused(answer, method, "FIELD_INVALID", value="d" * 129)


def test_a_message_beyond_the_limit_is_refused_before_it_is_read(world: World) -> None:
    wire = world.wires["acme"]
    wire.token  # noqa: B018
    watch = Watch(world)
    answer = wire.call("/vault.v1.CredentialService/Get", name=CANARY * 30_000)
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.books.state() == watch._before
    watch.quiet(answer.raw)


def test_metadata_beyond_the_limit_is_refused_before_it_is_read(world: World) -> None:
    wire = world.wires["acme"]
    wire.token  # noqa: B018
    watch = Watch(world)
    answer = wire.call("/vault.v1.CredentialService/Get", metadata=[("x-junk", CANARY * 2000)], name=NAME)
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    watch.quiet(answer.raw)


def test_a_new_credential_needs_a_kind(world: World) -> None:
    watch = Watch(world)
    method = "/vault.v1.CredentialService/Put"
    fields = {**_put(world), "name": ABSENT, "kind": "", "sealed": world.seal(name=ABSENT)}
    watch.refused(world.wires["acme"].call(method, **fields), method, "FIELD_INVALID")


def test_a_credential_never_changes_its_kind(world: World) -> None:
    watch = Watch(world)
    method = "/vault.v1.CredentialService/Put"
    fields = {**_put(world), "kind": "generic", "sealed": world.seal(kind="generic")}
    watch.refused(world.wires["acme"].call(method, **fields), method, "FIELD_INVALID")


def test_a_deleted_credential_takes_no_new_version(world: World) -> None:
    watch = Watch(world)
    method = "/vault.v1.CredentialService/Put"
    fields = {**_put(world), "name": DELETED, "sealed": world.seal(name=DELETED)}
    watch.refused(world.wires["acme"].call(method, **fields), method, "CREDENTIAL_DELETED")


def test_a_request_id_is_not_good_for_other_arguments(world: World) -> None:
    method = "/vault.v1.CredentialService/Undelete"
    name = "acme/bad-input/repeated"
    wire = world.wires["acme"]
    put = {**_put(world), "name": name, "sealed": world.seal(name=name), "request_id": f"r-{world.site.port}"}
    put["rotation_period"] = {"seconds": 30 * 86_400}
    first = wire.call("/vault.v1.CredentialService/Put", **put)
    before = len(wire.call("/vault.v1.CredentialService/ListVersions", name=name).response.versions)
    again = wire.call("/vault.v1.CredentialService/Put", **put)
    assert first.ok
    assert again.response.credential == first.response.credential
    assert len(wire.call("/vault.v1.CredentialService/ListVersions", name=name).response.versions) == before
    watch = Watch(world)
    method = "/vault.v1.CredentialService/Put"
    put["sealed"] = world.seal(name=name)
    watch.refused(wire.call(method, **put), method, "REQUEST_ID_REUSED")


def test_a_page_token_is_good_for_its_own_query_and_caller_only(world: World) -> None:
    wire, method = world.wires["acme"], "/vault.v1.AuditService/List"
    page = wire.call(method, page_size=1).response.next_page_token
    assert page
    assert wire.call(method, page_size=1, page_token=page).ok
    other_query = {"page_size": 1, "page_token": page, "action": "credential.put"}
    watch = Watch(world)
    watch.refused(wire.call(method, **other_query), method, "PAGE_TOKEN_INVALID")
    other = "/vault.v1.CredentialService/ListVersions"
    watch.refused(wire.call(other, name=NAME, page_token=page), other, "PAGE_TOKEN_INVALID")
    foreign = world.wires["globex"].call(method, page_size=1, page_token=page)
    watch.refused(foreign, method, "PAGE_TOKEN_INVALID")
    with Wire(world.site.profile("ledger")) as ledger:
        watch.refused(ledger.call(method, page_size=1, page_token=page), method, "PAGE_TOKEN_INVALID")


CHANGING = frozenset(
    {
        "/vault.v1.CredentialService/Put",
        "/vault.v1.CredentialService/Delete",
        "/vault.v1.CredentialService/Undelete",
        "/vault.v1.CredentialService/DestroyVersion",
        "/vault.v1.ThreatService/Explain",
        "/vault.v1.ThreatService/Release",
        "/vault.v1.PolicyService/Apply",
        "/vault.v1.PolicyService/Explain",
        "/vault.v1.ApprovalService/Approve",
        "/vault.v1.ApprovalService/Cancel",
        "/vault.v1.KeyService/CreateTenant",
        "/vault.v1.ErasureService/Erase",
        "/vault.v1.KeyService/Rotate",
        "/vault.v1.KeyService/Retire",
        "/vault.v1.KeyService/Restore",
        "/vault.v1.KeyService/Destroy",
        "/vault.v1.JobService/Update",
        "/vault.v1.AuditService/AcceptLoss",
    }
)
"""What is not done to a vault that other tests share: `test_every_change.py` does it to one of its own."""


def test_every_good_request_is_answered_and_recorded(world: World) -> None:
    """The oracle of all the others: what they spoil was good."""
    for method, good in GOOD.items():
        if method not in CHANGING:
            answer = world.wires[good.tenant].call(method, **good.fields(world))
            assert answer.ok, method
            records = world.books.records(answer.request_id)
            assert (RULES[method].action, "granted") in [(r["action_type"], r["outcome"]) for r in records]


# The session's stream.


def start(world: World, **fields: Any) -> pb.SessionServiceOpenRequest:
    return pb.SessionServiceOpenRequest(start=pb.SessionStart(**{**_reveal(world), **fields}))


@pytest.fixture
def opened(world: World) -> Iterator[Stream]:
    with world.wires["acme"].stream() as stream:
        assert stream.ask(start(world)).WhichOneof("message") == "opened"
        yield stream


@pytest.mark.parametrize("case", START_CASES, ids=str)
def test_a_bad_start_is_refused_for_its_own_reason(
    world: World, case: Case, request: pytest.FixtureRequest
) -> None:
    world.wires["acme"].token  # noqa: B018
    watch = Watch(world)
    with world.wires["acme"].stream() as stream:
        answer = stream.ask(start(world, **{case.field: case.value}))
        assert isinstance(answer, Answer), answer
        watch.refused(answer, OPEN, case.reason, value=case.value)


@pytest.mark.parametrize(
    ("bearer", "reason"), [(None, "TOKEN_MISSING"), ("a.b.c", "TOKEN_INVALID")], ids=["none", "a bad one"]
)
def test_a_stream_without_a_good_token_is_refused(world: World, bearer: str | None, reason: str) -> None:
    watch = Watch(world)
    with world.wires["acme"].stream(bearer=bearer) as stream:
        watch.refused(stream.ask(start(world)), OPEN, reason)


NOT_A_START: dict[str, pb.SessionServiceOpenRequest] = {
    "nothing": pb.SessionServiceOpenRequest(),
    "only an id": pb.SessionServiceOpenRequest(operation_id=1),
    "a reveal": pb.SessionServiceOpenRequest(operation_id=1, reveal=pb.RevealOperation(name=NAME)),
    "a webhook": pb.SessionServiceOpenRequest(
        operation_id=1, verify_webhook=pb.VerifyWebhookOperation(name=NAME, body=CANARY.encode())
    ),
    "a close": pb.SessionServiceOpenRequest(close=pb.SessionClose()),
}


@pytest.mark.parametrize("first", NOT_A_START.values(), ids=NOT_A_START.keys())
def test_the_first_message_must_be_start(world: World, first: pb.SessionServiceOpenRequest) -> None:
    world.wires["acme"].token  # noqa: B018
    watch = Watch(world)
    with world.wires["acme"].stream() as stream:
        watch.refused(stream.ask(first), OPEN, "SESSION_PROTOCOL")


def test_a_stream_that_ends_before_it_starts_is_refused(world: World) -> None:
    world.wires["acme"].token  # noqa: B018
    watch = Watch(world)
    with world.wires["acme"].stream() as stream:
        stream.half_close()
        watch.refused(stream.read(), OPEN, "SESSION_PROTOCOL")


def test_a_first_message_that_is_no_protobuf_is_refused_and_recorded(world: World) -> None:
    world.wires["acme"].token  # noqa: B018
    watch = Watch(world)
    with world.wires["acme"].stream() as stream:
        watch.refused(stream.ask(b"\xff\xff\xff" + CANARY.encode()), OPEN, "FIELD_INVALID")


def webhook(**fields: Any) -> dict[str, Any]:
    operation = {
        "name": NAME, "field_names": ["password"], "scheme": pb.WEBHOOK_SCHEME_STRIPE,
        "headers": {"Stripe-Signature": "t=1,v1=00"}, "body": b"{}",
    }  # fmt: skip
    return {"operation_id": 7, "verify_webhook": pb.VerifyWebhookOperation(**{**operation, **fields})}


def use(kind: str, **fields: Any) -> dict[str, Any]:
    return {"operation_id": 7, kind: {"name": NAME, "field_name": "password", **fields}}


def reveal(**fields: Any) -> dict[str, Any]:
    return {"operation_id": 7, "reveal": pb.RevealOperation(**{"name": NAME, **fields})}


BAD_OPERATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a second start": (
        {"operation_id": 7, "start": pb.SessionStart(credentials=[selector()], purpose="again")},
        "SESSION_PROTOCOL",
    ),
    "nothing": ({"operation_id": 7}, "SESSION_PROTOCOL"),
    **{
        f"a reveal of a name that is {what}": (reveal(name=name), F)
        for what, name in {**BAD_NAMES, "missing": ""}.items()
    },
    "a reveal of a credential that the session does not hold": (reveal(name=ABSENT), "CREDENTIAL_NOT_FOUND"),
    "a reveal of another tenant's credential": (reveal(name=FOREIGN), S),
    **{f"a reveal of fields: {what}": (reveal(field_names=names), F) for what, names in BAD_FIELDS.items()},
    "a reveal of an unknown field": (reveal(field_names=["pin"]), "UNKNOWN_FIELD"),
    "a webhook without a scheme": (webhook(scheme=0), F),
    "a webhook of an unknown scheme": (webhook(scheme=99), F),
    "a webhook of a negative scheme": (webhook(scheme=-1), F),
    "a webhook without a name": (webhook(name=""), F),
    "a webhook for another tenant's credential": (webhook(name=FOREIGN), S),
    "a webhook for a credential that the session does not hold": (
        webhook(name=ABSENT),
        "CREDENTIAL_NOT_FOUND",
    ),
    "a webhook without fields": (webhook(field_names=[]), F),
    "a webhook with five fields": (webhook(field_names=list("abcde")), F),
    "a webhook with an unknown field": (webhook(field_names=["pin"]), "UNKNOWN_FIELD"),
    "a webhook with a field in upper case": (webhook(field_names=["Password"]), F),
    "a webhook with seventeen headers": (webhook(headers={f"h{n}": "" for n in range(17)}), F),
    "a webhook with a header twice": (
        webhook(headers={"Stripe-Signature": "t=1", "stripe-signature": "t=2"}),
        F,
    ),
    "a webhook with a header of 4,097": (webhook(headers={"a": "a" * 4097}), F),
    "a webhook with a body beyond 65,536": (webhook(body=b"a" * 65_537), F),
    "an HMAC without a field": (use("hmac", field_name=""), "UNKNOWN_FIELD"),
    "an HMAC with another tenant's credential": (use("hmac", name=FOREIGN), S),
    "an HMAC of an unknown hash": (use("hmac", hash=9), F),
    "an HMAC of a message beyond 65,536": (use("hmac", message=b"a" * 65_537), F),
    "a raw HMAC with a context": (use("hmac", raw=True, context="x"), F),
    "an HMAC of a context beyond 128": (use("hmac", context="x" * 129), F),
    "the verification of an HMAC with a field that is not there": (
        use("verify_hmac", field_name="pin"),
        "UNKNOWN_FIELD",
    ),
    "a one-time password from what is no seed": (use("totp"), "SECRET_UNSUITABLE"),
    "a signature in no format": (use("sign"), F),
    "a signature with what is no key": (use("sign", raw={"message": b"x"}), "SECRET_UNSUITABLE"),
    "a challenge that is none": (use("answer_challenge", challenge="%s"), F),
    "a challenge for a key that is none": (use("answer_challenge", challenge="0" * 32), "SECRET_UNSUITABLE"),
}


def http_call(**fields: Any) -> dict[str, Any]:
    asked = {"name": STRIPE, "connector": "stripe", "method": "GET", "path": "/v1/balance", **fields}
    return {"operation_id": 7, "http_call": pb.HttpCallOperation(**asked)}


def exchange(**fields: Any) -> dict[str, Any]:
    path = "/item/public_token/exchange"
    asked = {"name": PLAID_APP, "connector": "plaid-sandbox", "method": "POST", "path": path, **fields}
    return {"operation_id": 7, "http_call": pb.HttpCallOperation(**asked)}


def oauth_refresh(**fields: Any) -> dict[str, Any]:
    asked = {"name": GRANT, "client_name": OAUTH_CLIENT, "connector": "bank", **fields}
    return {"operation_id": 7, "oauth_refresh": pb.OauthRefreshOperation(**asked)}


def link_token(**fields: Any) -> dict[str, Any]:
    asked = {
        "name": PLAID_ITEM, "also_name": PLAID_APP, "connector": "plaid-sandbox", "client_user_id": "customer-1",
        "client_name": "Acme", "country_codes": ["DE"], **fields,
    }  # fmt: skip
    return {"operation_id": 7, "link_token": pb.LinkTokenOperation(**asked)}


def plaid_webhook(**fields: Any) -> dict[str, Any]:
    # The header of a JWT that names a key: what comes before any key is fetched.
    jwt = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.e30." + "A" * 86
    asked = {
        "name": PLAID_APP, "field_names": [], "scheme": pb.WEBHOOK_SCHEME_PLAID, "connector": "plaid-sandbox",
        "headers": {"Plaid-Verification": jwt}, "body": b"{}", **fields,
    }  # fmt: skip
    return {"operation_id": 7, "verify_webhook": pb.VerifyWebhookOperation(**asked)}


NOWHERE, UNREFRESHED = "DESTINATION_DENIED", "CONNECTOR_NOT_FOUND"
BAD_PATHS = {
    "missing": "",
    "without a slash": "v1/balance",
    "of no route": "/v1/webhook_endpoints",
    "below another": "/v1/balance/more",
    "with dot dot": "/v1/charges/../webhook_endpoints",
    "with a dot": "/v1/./balance",
    "with dots in hex": "/v1/charges/%2e%2e/webhook_endpoints",
    "with NUL in hex": "/v1/balance%00",
    "with NUL": "/v1/balance\0",
    "with two slashes": "//evil.example/v1/balance",
    "a whole URI": "https://evil.example/v1/balance",
    "with another line": "/v1/balance HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "with a line feed": "/v1/balance\n",
    "with a space": "/v1/balance ",
    "with a query": "/v1/balance?expand=all",
    "with a fragment": "/v1/balance#x",
    "with a semicolon": "/v1/balance;x",
    "with a backslash": "/v1\\balance",
    "in other letters": "/v1/b\u0430lance",
    "in upper case": "/V1/BALANCE",
    "of 100,000": "/v1/charges/" + "a" * 100_000,
}
BAD_HOSTS = {
    "another": "evil.example",
    "one behind an at": "api.stripe.com@evil.example",
    "one with a port": "api.stripe.com:8443",
    "one in upper case": "API.STRIPE.COM",
    "one with a dot": "api.stripe.com.",
    "one with NUL": "api.stripe.com\0.evil.example",
    "an address": "127.0.0.1",
    "an address in decimal": "2130706433",
    "metadata": "169.254.169.254",
}
BAD_METHODS = {
    "missing": "",
    "small": "get",
    "TRACE": "TRACE",
    "CONNECT": "CONNECT",
    "two lines": "GET\r\nX: y",
}
BAD_HEADERS = {
    "two lines": "a\r\nHost: evil.example",
    "a line feed": "a\nb",
    "NUL": "a\0",
    "other letters": "caf\u00e9",
    "4,097 characters": "a" * 4097,
}
BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "a request without a name": (http_call(name=""), F),
    "a request with another tenant's credential": (http_call(name=FOREIGN), S),
    "a request with what the session does not hold": (http_call(name=ABSENT), "CREDENTIAL_NOT_FOUND"),
    "a request lent by another tenant's": (http_call(also_name=FOREIGN), S),
    "a request lent by what the session does not hold": (http_call(also_name=ABSENT), "CREDENTIAL_NOT_FOUND"),
    "a request lent by no name": (http_call(also_name="acme"), F),
    "a request lent by one of another kind": (http_call(also_name=PLAID_APP), "CONNECTOR_NOT_FOUND"),
    "a request by no connector": (http_call(connector=""), "CONNECTOR_NOT_FOUND"),
    "a request by an unknown connector": (http_call(connector="../stripe"), "CONNECTOR_NOT_FOUND"),
    "a request by a connector for another kind": (
        http_call(connector="plaid-sandbox"),
        "CONNECTOR_NOT_FOUND",
    ),
    **{
        f"a request with the method {what}": (http_call(method=m), NOWHERE) for what, m in BAD_METHODS.items()
    },
    **{f"a request to a path {what}": (http_call(path=path), NOWHERE) for what, path in BAD_PATHS.items()},
    **{f"a request to a host, {what}": (http_call(host=host), NOWHERE) for what, host in BAD_HOSTS.items()},
    "a request with a header twice": (
        http_call(headers={"Idempotency-Key": "a", "idempotency-key": "b"}),
        F,
    ),
    **{
        f"a request with a header of {what}": (http_call(headers={"idempotency-key": value}), F)
        for what, value in BAD_HEADERS.items()
    },
    "a request with 65 parameters": (http_call(query=[{"name": "a"}] * 65), F),
    "a request with a parameter of 4,097": (http_call(query=[{"name": "a", "value": "a" * 4097}]), F),
    "a request with a body beyond 131,072": (http_call(body=b"a" * 131_073), F),
    "a request that captures where nothing is captured": (http_call(capture_name="acme/x/y"), F),
    "a request with a secret too short to be found": (http_call(name=SHORT), "SECRET_UNSUITABLE"),
    "a capture without a name": (exchange(), F),
    **{
        f"a capture into a name that is {what}": (exchange(capture_name=n), F)
        for what, n in BAD_NAMES.items()
    },
    "a capture into another tenant's": (exchange(capture_name=FOREIGN), S),
    "a refresh without a name": (oauth_refresh(name=""), F),
    "a refresh of another tenant's grant": (oauth_refresh(name=FOREIGN), S),
    "a refresh of what the session does not hold": (oauth_refresh(name=ABSENT), "CREDENTIAL_NOT_FOUND"),
    "a refresh of what is no grant": (oauth_refresh(name=STRIPE), F),
    "a refresh without a client": (oauth_refresh(client_name=""), F),
    "a refresh for another tenant's client": (oauth_refresh(client_name=FOREIGN), S),
    "a refresh for a client that the session does not hold": (
        oauth_refresh(client_name=ABSENT),
        "CREDENTIAL_NOT_FOUND",
    ),
    "a refresh for what is no client": (oauth_refresh(client_name=STRIPE), F),
    "a refresh by no connector": (oauth_refresh(connector=""), UNREFRESHED),
    "a refresh by an unknown connector": (oauth_refresh(connector="a\r\nb"), UNREFRESHED),
    "a refresh by a connector for another kind": (oauth_refresh(connector="stripe"), UNREFRESHED),
    "a link token without a name": (link_token(name=""), F),
    "a link token for another tenant's item": (link_token(name=FOREIGN), S),
    "a link token for what the session does not hold": (link_token(name=ABSENT), "CREDENTIAL_NOT_FOUND"),
    "a link token lent by another tenant's": (link_token(also_name=FOREIGN), S),
    "a link token for an item without its app": (link_token(also_name=""), "UNKNOWN_FIELD"),
    "a link token by an unknown connector": (link_token(connector="plaid"), "CONNECTOR_NOT_FOUND"),
    "a link token by a connector that has none": (
        link_token(name=STRIPE, also_name="", connector="stripe"),
        "CONNECTOR_NOT_FOUND",
    ),
    **{
        f"a link token for a customer who is {what}": (link_token(client_user_id=value), F)
        for what, value in {**BAD_PURPOSES, "missing": ""}.items()
    },
    "a link token without a name to show": (link_token(client_name=""), F),
    "a link token with a name of 31": (link_token(client_name="a" * 31), F),
    "a link token with a name of two lines": (link_token(client_name="a\nb"), F),
    "a link token in no language": (link_token(language="EN"), F),
    "a link token for no country": (link_token(country_codes=[]), F),
    "a link token for 33 countries": (link_token(country_codes=["DE"] * 33), F),
    "a link token for a country in small letters": (link_token(country_codes=["de"]), F),
    "a link token that leads back without TLS": (link_token(redirect_uri="http://acme.example"), F),
    "a link token that leads back to two lines": (link_token(redirect_uri="https://a\r\nb"), F),
    "a webhook by fetch and by fields": (plaid_webhook(field_names=["secret"]), F),
    "a webhook by fetch of another scheme": (plaid_webhook(scheme=pb.WEBHOOK_SCHEME_STRIPE), F),
    "a webhook by an unknown connector": (plaid_webhook(connector="plaid"), "CONNECTOR_NOT_FOUND"),
    "a webhook by fetch with what has no app": (plaid_webhook(name=PLAID_ITEM), "UNKNOWN_FIELD"),
}


def test_every_operation_has_its_rows() -> None:
    rows = [fields for fields, _ in (*BAD_OPERATIONS.values(), *BAD_REQUESTS.values())]
    named = {kind for fields in rows for kind in fields} - {"operation_id"}
    kinds = {field.name for field in pb.SessionServiceOpenRequest.DESCRIPTOR.oneofs_by_name["message"].fields}
    assert named == kinds - {"close"}


def test_a_bad_request_to_a_provider_is_refused_and_nothing_is_sent(world: World) -> None:
    names = (NAME, *PROVIDERS)
    with world.wires["acme"].stream(timeout=120) as stream:
        begin = start(world, credentials=[selector(name) for name in names])
        assert stream.ask(begin).WhichOneof("message") == "opened"
        for what, (fields, reason) in BAD_REQUESTS.items():
            watch = Watch(world)
            answer = stream.ask(**fields)
            assert (answer.operation_id, answer.error.reason) == (7, reason), what
            assert answer.error.code == DOCUMENTED[reason].value[0]
            records = world.books.records(stream.request_id)
            assert (records[-1]["outcome"], records[-1]["reason"]) == ("refused", reason), what
            assert "status" not in records[-2]["after_state"], f"{what}: it was sent"
            watch.quiet(answer.SerializeToString())
        assert "evil" not in repr(world.books.records(stream.request_id)), "nothing of the input is recorded"
        closed = stream.ask(close=pb.SessionClose()).closed
        assert closed.buffers == closed.buffers_wiped == 1 + len(names)


@pytest.mark.parametrize(("fields", "reason"), BAD_OPERATIONS.values(), ids=BAD_OPERATIONS.keys())
def test_a_bad_operation_is_refused_and_the_session_goes_on(
    world: World, opened: Stream, fields: dict[str, Any], reason: str
) -> None:
    watch = Watch(world)
    answer = opened.ask(**fields)
    assert answer.operation_id == 7
    assert answer.error.reason == reason
    assert answer.error.code == DOCUMENTED[reason].value[0]
    refused = world.books.records(opened.request_id)[-1]
    assert (refused["outcome"], refused["reason"]) == ("refused", reason)
    assert refused["session_id"]
    watch.quiet(answer.SerializeToString())
    good = opened.ask(operation_id=8, reveal=pb.RevealOperation(name=NAME))
    assert good.operation_id == 8
    assert good.WhichOneof("message") == "reveal"
    closed = opened.ask(close=pb.SessionClose()).closed
    assert closed.reason == pb.CLOSE_REASON_CLOSED_BY_CALLER
    assert closed.buffers == closed.buffers_wiped == 2


def test_a_webhook_without_a_body_is_refused(opened: Stream) -> None:
    assert opened.ask(**webhook(body=b"")).error.reason == "FIELD_INVALID"


@pytest.mark.parametrize("fields", [reveal(), webhook()], ids=["a reveal", "a webhook"])
def test_an_operation_without_an_id_is_refused(world: World, opened: Stream, fields: dict[str, Any]) -> None:
    answer = opened.ask(**{**fields, "operation_id": 0})
    assert answer.operation_id == 0
    assert answer.error.reason == "FIELD_INVALID"
    assert world.books.records(opened.request_id)[-1]["reason"] == "FIELD_INVALID"


def test_a_later_message_that_is_no_protobuf_ends_the_session_with_a_reason(
    world: World, opened: Stream
) -> None:
    watch = Watch(world)
    answer = opened.ask(b"\xff\xff\xff" + CANARY.encode())
    if isinstance(answer, Answer):
        assert answer.reason in ("FIELD_INVALID", "SESSION_PROTOCOL")
    else:
        assert answer.WhichOneof("message") == "closed"
        assert answer.closed.buffers == answer.closed.buffers_wiped == 2
    watch.quiet(b"")
    actions = [record["action_type"] for record in world.books.records(opened.request_id)]
    assert "session.close" in actions


def test_a_secret_that_does_not_suit_the_scheme_is_told_without_telling_it(
    world: World, opened: Stream
) -> None:
    watch = Watch(world)
    answer = opened.ask(
        **webhook(
            scheme=pb.WEBHOOK_SCHEME_STANDARD_WEBHOOKS,
            headers={"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"},
        )
    )
    assert answer.error.reason == "SECRET_UNSUITABLE"
    watch.quiet(answer.SerializeToString())
