"""Recovery: a database that is older than its anchors is accepted, by people who sign for what is lost.

A vault whose database was set back does not start, so nobody can approve over the wire. Instead the operator makes a
statement of what is lost; approvers whose certificates the configuration pins sign it, each with a private key that
the operator does not have; and it is put into the log as a record, with its signatures. At start that record is read
and verified again: who can write to the database cannot forge it. It is for one database (size and root) and for the
very heads that the anchors held, so it excuses nothing that happens later.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vault.clock import micros
from vault.core import requests
from vault.core.approvals import RECOVER_DATABASE
from vault.crypto import approvals, notes
from vault.crypto.errors import CryptoError
from vault.errors import StartError
from vault.model import SYSTEM_TENANT, AuditDraft, AuditQuery, Origin, Outcome
from vault.store import archives, audit
from vault.store.ledger import Head, read_head
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vault.core.anchors import Held
    from vault.store.engine import Database

RECOVER = "database.recover"
_RESOURCE = f"{SYSTEM_TENANT}/database"
_ASKS = "strongroom recover"
_LIFE = datetime.timedelta(days=7)
_MOST = 1000


class Lost(NamedTuple):
    """A head that an anchor holds and the database does not."""

    name: str
    size: int
    root: bytes


@dataclass(frozen=True)
class Recovery:
    """Who may accept a database that was set back: pinned certificates (DER), and how many must sign."""

    certificates: tuple[bytes, ...]
    required: int

    def check(self, statement: Mapping[str, Any]) -> list[str]:
        """The subjects of those who signed, if they are enough. Raises `StartError`.

        One certificate counts once, and so does one key.
        """
        message = _message(statement)
        signers: dict[bytes, str] = {}
        try:
            for item in statement["signatures"]:
                der = base64.b64decode(item["certificate"])
                key = x509.load_der_x509_certificate(der).public_key()
                if der in self.certificates and approvals.verifies(
                    key, base64.b64decode(item["signature"]), message
                ):
                    name = x509.load_der_x509_certificate(der).subject.rfc4514_string()
                    signers[key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)] = name
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise StartError("recover: the statement's signatures are malformed") from None
        if len(signers) < self.required:
            raise StartError(
                f"recover: {len(signers)} of {self.required} approvers have signed "
                "(approvals.recovery_certificates names who may)"
            )
        return sorted(signers.values())

    async def accepted(self, database: Database) -> set[tuple[int, bytes]]:
        """The heads of anchors that approved recoveries have given up, as the log says and the signatures prove."""
        found: set[tuple[int, bytes]] = set()
        query = AuditQuery(tenant=SYSTEM_TENANT, action=RECOVER)
        async with database.read() as connection:
            records = await audit.list_records(connection, query, _MOST)
        for record in records:
            try:
                statement = json.loads(record.after_state)
                self.check(statement)
                found.update((item["size"], bytes.fromhex(item["root"])) for item in statement["lost"])
            except (StartError, ValueError, KeyError, TypeError):
                continue
        return found

    async def in_force(self, database: Database, held: Sequence[Held], keys: Iterable[str]) -> list[Held]:
        """The anchored heads that the log must hold: all but those that approved recoveries have given up."""
        try:
            lost = await lost_heads(database, held, keys)
        except StartError:
            return list(held)  # one that does not verify is for the verification to find
        gone = await self.accepted(database) if lost else set()
        names = {item.name for item in lost if (item.size, item.root) in gone}
        return [item for item in held if item.name not in names]


async def lost_heads(database: Database, held: Sequence[Held], keys: Iterable[str]) -> list[Lost]:
    """The anchored heads that the database is older than, or holds otherwise. Raises `StartError`."""
    keys = tuple(keys)
    async with database.read() as connection:
        stored = await read_head(connection)
        first = await archives.first_sequence(connection)
    lost: list[Lost] = []
    for name, note in held:
        try:
            head = notes.verify_checkpoint(note, keys)
        except CryptoError:
            raise StartError(
                f"audit: the checkpoint of {name} is by no key of this log; is audit.origin what it was"
            ) from None
        async with database.read() as connection:
            known = await audit.get_checkpoint(connection, head.size)
        # Every head that is anchored is a checkpoint first, and stays one until it is archived: a log that was set back
        # and has grown since lacks it.
        other = head.size > first if known is None else known.root != head.root
        if stored.size < head.size or other:
            lost.append(Lost(name, head.size, head.root))
    return lost


def statement(head: Head, lost: Sequence[Lost], now: datetime.datetime) -> dict[str, Any]:
    """What is to be signed: which database is accepted, and what is lost by it. Without signatures yet."""
    return {
        "approval_id": requests.new_id(),
        "database_size": head.size,
        "database_root": head.frontier.root().hex(),
        "lost": [{"name": item.name, "size": item.size, "root": item.root.hex()} for item in lost],
        "expire_time": (now + _LIFE).isoformat(),
        "signatures": [],
    }


def sign(unsigned: Mapping[str, Any], certificate: bytes, key: Any) -> dict[str, Any]:
    """The statement with one signature more, by the private key of a certificate (PEM)."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    signature = {
        "certificate": base64.b64encode(der).decode(),
        "signature": base64.b64encode(approvals.sign(key, _message(unsigned))).decode(),
    }
    return {**unsigned, "signatures": [*unsigned["signatures"], signature]}


def fits(approved: Mapping[str, Any], head: Head, lost: Sequence[Lost], now: datetime.datetime) -> None:
    """Raise `StartError` unless the statement is of this database and these heads, and has not expired."""
    same = statement(head, lost, now)
    names = ("database_size", "database_root", "lost")
    if any(approved.get(name) != same[name] for name in names):
        raise StartError("recover: the statement is of another database, or of other anchors")
    if datetime.datetime.fromisoformat(approved["expire_time"]) <= now:
        raise StartError("recover: the statement has expired; make a new one")


def record(approved: Mapping[str, Any]) -> AuditDraft:
    """The record that accepts: what was lost, and who signed for it, with their signatures."""
    return AuditDraft(
        SYSTEM_TENANT, _ASKS, RECOVER, "", Outcome.GRANTED, Origin(), after_state=canonical_json(approved)
    )


def _message(unsigned: Mapping[str, Any]) -> bytes:
    try:
        operation = approvals.Operation(
            RECOVER_DATABASE,
            _RESOURCE,
            {
                "database_size": str(unsigned["database_size"]),
                "database_root": unsigned["database_root"],
                "lost": canonical_json(unsigned["lost"]),
            },
        )
        expire = micros(datetime.datetime.fromisoformat(unsigned["expire_time"]))
        return approvals.statement(unsigned["approval_id"], operation, _ASKS, expire)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StartError("recover: this is no statement of a recovery") from None
