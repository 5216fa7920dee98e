"""What every request is held to: form, scope, and repetition.

The order is: form of the name (it decides the scope), scope, then everything else. So a caller without the
scope learns nothing, not even whether the rest was well formed or the thing exists.
"""

from __future__ import annotations

import base64
import datetime
import functools
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from vault.crypto import scopes
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT
from vault.store.ledger import request_digest
from vault.store.rows import Row, RowKey, Write

if TYPE_CHECKING:
    from vault.model import Caller, Token
    from vault.store.ledger import Rows

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KIND = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_IDENTITY = re.compile(r"[!-~]{1,255}")
_TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_PRINTABLE = re.compile(r"[ -~]*")

MAX_TEXT = 128
MAX_IDENTITY = 255
MAX_VERSION = 2**31 - 1
MAX_RATE = 1_000_000
MAX_ROTATION_DAYS = 3650
MAX_LABELS = 32
MAX_FIELDS = 64
MAX_PAGE = 1000
DEFAULT_PAGE = 100


def token_of(caller: Caller) -> Token:
    """The caller's token. The edge refuses calls that need one and have none; this is its second wall."""
    if caller.token is None:
        raise VaultError(Reason.TOKEN_MISSING, "this call needs a token")
    return caller.token


def require(caller: Caller, action: str, resource: str) -> Token:
    """The caller's token, if one of its scopes covers the action on the resource. Raises `SCOPE_DENIED`."""
    token = token_of(caller)
    if not any(scopes.covers(scope, action, resource) for scope in token.scopes):
        raise VaultError(Reason.SCOPE_DENIED, "the token's scopes do not cover this", action=action)
    return token


def credential_name(value: str, field: str = "name") -> str:
    """A credential's name. Raises `FIELD_INVALID`."""
    if not scopes.valid_name(value):
        raise invalid_field(field, "must be tenant/segment/..., 2 to 8 segments of [a-z0-9][a-z0-9_-]{0,62}")
    return value


def prefix(tenant: str, value: str) -> str:
    """What a caller that may read looks at: its whole tenant, or one credential and those under it.

    Raises `FIELD_INVALID`, `SCOPE_DENIED`.
    """
    if not value or value == tenant:
        return tenant
    credential_name(value, "prefix")
    if value.partition("/")[0] != tenant:
        raise VaultError(
            Reason.SCOPE_DENIED, "the token's scopes do not cover this", action="credential.read"
        )
    return value


def tenant_name(value: str) -> str:
    """A tenant's name. Raises `FIELD_INVALID`."""
    if not _TENANT.fullmatch(value):
        raise invalid_field("tenant", "must be [a-z0-9][a-z0-9_-]{0,62}")
    return value


def customer_tenant(value: str) -> str:
    """The name of a tenant that can own credentials. Raises `FIELD_INVALID`."""
    if tenant_name(value) == SYSTEM_TENANT:
        raise invalid_field("tenant", "must not be the vault's own")
    return value


def kind(value: str) -> str:
    """A credential's kind. Raises `FIELD_INVALID`."""
    if not _KIND.fullmatch(value):
        raise invalid_field("kind", "must be [a-z][a-z0-9_]{0,62}")
    return value


def labels(value: dict[str, str]) -> dict[str, str]:
    """A credential's labels. Raises `FIELD_INVALID`."""
    if len(value) > MAX_LABELS:
        raise invalid_field("labels", f"at most {MAX_LABELS}")
    for key, text in value.items():
        if not _LABEL.fullmatch(key):
            raise invalid_field("labels", "keys must be [a-z][a-z0-9_.-]{0,62}")
        printable("labels", text)
    return value


def version(value: int) -> int:
    """A version's number as the database can hold it; none is ever as great as the greatest."""
    return min(value, MAX_VERSION)


def printable(field: str, value: str, *, required: bool = False) -> str:
    """A short text for people and for the log: printable ASCII, so that it can forge no log line."""
    if required and not value:
        raise invalid_field(field, "is required")
    if len(value) > MAX_TEXT or not _PRINTABLE.fullmatch(value):
        raise invalid_field(field, f"at most {MAX_TEXT} printable ASCII characters")
    return value


def rotation_days(value: datetime.timedelta) -> int:
    """How many days a rotation period has; 0: none. Raises `FIELD_INVALID`."""
    if value % datetime.timedelta(days=1) or not 0 <= value.days <= MAX_ROTATION_DAYS:
        raise invalid_field("rotation_period", f"whole days, 1 to {MAX_ROTATION_DAYS}; zero for none")
    return value.days


@functools.lru_cache(maxsize=1024)
def field_names(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names of wanted fields, sorted. Raises `FIELD_INVALID`.

    Those that were found good are remembered: on a session the same are asked for again and again.
    """
    if len(value) > MAX_FIELDS or len(set(value)) != len(value):
        raise invalid_field("field_names", f"at most {MAX_FIELDS}, each at most once")
    if not all(_FIELD.fullmatch(name) for name in value):
        raise invalid_field("field_names", "must be [a-z][a-z0-9_]{0,62}")
    return tuple(sorted(value))


def token_id(value: str) -> str:
    """A token's id. Raises `FIELD_INVALID`."""
    if not _TOKEN_ID.fullmatch(value):
        raise invalid_field("token_id", "must be 22 characters of base64url")
    return value


def thumbprint(value: str) -> str:
    """A certificate's SHA-256 thumbprint. Raises `FIELD_INVALID`."""
    if not _THUMBPRINT.fullmatch(value):
        raise invalid_field("certificate_thumbprint", "must be 43 characters of base64url")
    return value


def identity(value: str) -> str:
    """A client's identity, as its certificate would name it. Raises `FIELD_INVALID`."""
    if not _IDENTITY.fullmatch(value):
        raise invalid_field("identity", "must be a SPIFFE ID or a DNS name")
    return value


def job_id(value: str) -> str:
    """A job's id. Raises `FIELD_INVALID`."""
    if not _TOKEN_ID.fullmatch(value):
        raise invalid_field("job_id", "must be 22 characters of base64url")
    return value


def rate(value: int) -> int:
    """How many versions a second a job may do; 0 for no limit. Raises `FIELD_INVALID`."""
    if not 0 <= value <= MAX_RATE:
        raise invalid_field("max_per_second", f"at most {MAX_RATE}")
    return value


def check_etag(wanted: str, current: str) -> None:
    """Raise `ETAG_MISMATCH` if the caller named an etag and it is not the current one."""
    if wanted and wanted != current:
        raise etag_mismatch()


def etag_mismatch() -> VaultError:
    """The error for a change of what has changed since the caller looked."""
    return VaultError(Reason.ETAG_MISMATCH, "the etag is not the current one")


def new_id() -> str:
    """An id that never was."""
    return id_of(secrets.token_bytes(16))


def id_of(digest: bytes) -> str:
    """16 bytes as an id: 22 characters of base64url.

    Their first bit is left out: an id that began with `-` would be an option on a command line.
    """
    first = bytes((digest[0] & 0x7F,))
    return base64.urlsafe_b64encode(first + digest[1:16]).rstrip(b"=").decode()


def new_etag() -> str:
    """An etag that never was."""
    return secrets.token_urlsafe(12)


def endpoint_id(value: str) -> str:
    """A webhook endpoint's id. Raises `FIELD_INVALID`."""
    if not _TOKEN_ID.fullmatch(value):
        raise invalid_field("endpoint_id", "must be 22 characters of base64url")
    return value


def page_size(value: int) -> int:
    """How many to list: the default for 0, never more than the most. Raises `FIELD_INVALID` if negative."""
    if value < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(value or DEFAULT_PAGE, MAX_PAGE)


class Repeat(NamedTuple):
    """How a repeated write is recognised: by who sent it, what it does, its id and its arguments."""

    identity: str
    action: str
    request_id: str
    digest: bytes

    @property
    def reads(self) -> tuple[RowKey, ...]:
        """The row to look at, if the caller gave an id."""
        return (RowKey("requests", self._key),) if self.request_id else ()

    def earlier(self, rows: Rows) -> str | None:
        """The answer given before, if there was one. Raises `REQUEST_ID_REUSED`."""
        row: Row | None = rows.get("requests", *self._key) if self.request_id else None
        if row is None:
            return None
        if row["digest"] != self.digest:
            raise VaultError(Reason.REQUEST_ID_REUSED, "this request_id was used with other arguments")
        answer: str = row["answer"]
        return answer

    def remember(self, answer: str, now: datetime.datetime) -> tuple[Write, ...]:
        """What to write beside the effect, so that a repeat gets the same answer."""
        if not self.request_id:
            return ()
        row: Row = {**self._identity, "digest": self.digest, "answer": answer, "create_time": now}
        return (Write("requests", row),)

    @property
    def _key(self) -> tuple[str, str, str]:
        return (self.identity, self.action, self.request_id)

    @property
    def _identity(self) -> Row:
        return {"identity": self.identity, "action": self.action, "request_id": self.request_id}


def repeat(caller: Caller, action: str, request_id: str, *arguments: bytes | str | int | None) -> Repeat:
    """How a repetition of this request is recognised. Raises `FIELD_INVALID` for a malformed id."""
    if request_id and not _REQUEST_ID.fullmatch(request_id):
        raise invalid_field("request_id", "must be 1 to 64 characters of [A-Za-z0-9_-]")
    return Repeat(caller.identity, action, request_id, request_digest(action, *arguments))
