"""The people among the callers: what is written of them, and who may know whom it stands for.

Which identities are people's is configuration. Inside the vault a person goes by a pseudonym: it is what a `Caller`
and a `Token` say, so whatever is written, compared or counted by identity is by pseudonym without anyone's doing. The
true identity is needed in three places only: to judge by policy, to take in a request that names somebody, and to tell
those who may know (`audit.identify`).

A person is a subject of the vault's own tenant (`core/subjects.py`), with a key of its own. The pseudonym is made with
that key, and the identity is stored nowhere but sealed by it. So no index leads from an identity to its pseudonym: each
worker opens the rows of all people at start, and keeps them in memory. Erasing the person (`core/erasures.py`) destroys
the key, in backups too, and with it every way back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vault.core import audit, requests
from vault.core.subjects import new_subject
from vault.core.suspicions import network
from vault.crypto import memory, scopes
from vault.crypto import people as crypto
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, KeyPurpose, KeyState, Origin, SubjectState
from vault.store import people as store
from vault.store import subjects as stored_subjects
from vault.store.ledger import Commit, Unit
from vault.store.reach import declared, of
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from vault.core.audit import AuditLog
    from vault.core.keys import Keyring
    from vault.core.subjects import Subjects
    from vault.crypto.memory import LockedBuffer
    from vault.model import AuditDraft, AuditRecord, Caller, Key
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.people")

CREATE, ERASE, ERASED = "person.create", "person.erase", "person.erased"
DEVICE = "device:"
IDENTIFY = "audit.identify"
RESOURCE = f"{SYSTEM_TENANT}/people"
MAX_PSEUDONYMS = 100
_IDENTITY = "identity"
_PAGE = 1000
_TRIES = 5
_RETRY_SECONDS = 0.5
_PASSING = (Reason.HSM_UNAVAILABLE, Reason.OVERLOADED, Reason.STORAGE_UNAVAILABLE)
_MATCHED = 10_000
_MENTION = re.compile(r"(?:spiffe://)?[a-z0-9][a-z0-9._/-]*[a-z0-9_-]")
_PSEUDONYM = re.compile(rf"{crypto.PREFIX}[A-Za-z0-9_-]{{22}}")


class _Behind(Exception):  # noqa: N818 - not an error: somebody came first
    """Another person was entered, or the key replaced, since this worker looked."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who calls. `key` is theirs, open for as long as this worker knows them."""

    identity: str
    pseudonym: str
    key: LockedBuffer = field(repr=False)

    def written(self, origin: Origin) -> Origin:
        """What may be written of where they called from: the network, not the address, and an alias of the device."""
        device = self.device(origin.device_id) if origin.device_id else ""
        return replace(origin, ip_address=network(origin.ip_address), device_id=device)

    def device(self, device_id: str) -> str:
        """What stands for one of their devices."""
        return DEVICE + crypto.alias(self.key, "device", device_id)

    def seal(self, what: str, plaintext: bytes) -> bytes:
        """A copy that dies with their key."""
        return crypto.seal(self.key, f"{self.pseudonym} {what}", plaintext)

    def open(self, what: str, sealed: bytes) -> bytes:
        """What a copy holds. Raises `CryptoError`."""
        return crypto.open(self.key, f"{self.pseudonym} {what}", sealed)

    def certificate(self, thumbprint: str) -> str:
        """What stands for the thumbprint of one of their certificates."""
        return crypto.alias(self.key, "certificate", thumbprint)


class People:
    """Knows people by identity and by pseudonym."""

    def __init__(
        self,
        patterns: Sequence[str],
        trust_domains: Sequence[str],
        database: Database,
        log_: AuditLog,
        keyring: Keyring,
        subjects: Subjects,
    ) -> None:
        self._pattern = matcher(patterns) if patterns else None
        self._trust_domains = tuple(trust_domains)
        self._database = database
        self._log = log_
        self._keyring = keyring
        self._subjects = subjects
        self._by_identity: dict[str, Person] = {}
        self._by_pseudonym: dict[str, Person] = {}
        self._number = 0
        self._entering = asyncio.Lock()
        self._behind = asyncio.Event()
        self.is_personal = functools.lru_cache(_MATCHED)(self._matches)

    def _matches(self, identity: str) -> bool:
        """Whether an identity is a person's."""
        return self._pattern is not None and self._pattern.fullmatch(identity) is not None

    async def start(self) -> None:
        """Learn who there is. Raises `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE`."""
        await self._refresh()

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log: somebody came, or was erased."""
        if record.action == CREATE:
            self._behind.set()
        elif record.action == ERASE:
            self.forget(crypto.PREFIX + record.resource.rpartition("/")[2])

    def forget(self, pseudonym: str) -> None:
        """Close the key of somebody who is erased: from now on nobody here goes by this pseudonym."""
        person = self._by_pseudonym.pop(pseudonym, None)
        if person is None:
            return
        if self._by_identity.get(person.identity) is person:
            del self._by_identity[person.identity]
        person.key.close()

    async def run(self) -> None:
        """Learn of everybody who comes to another worker, until cancelled."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                async with self._entering:
                    await self._refresh()
            except VaultError as error:
                log.warning("cannot learn of people", extra={"reason": error.reason.value})
                self._behind.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def person(self, identity: str) -> Person | None:
        """Who this is, entered if need be; None for what is no person.

        Raises `KEY_CHANGED`, `AUDIT_UNAVAILABLE`, `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE`.
        """
        if self._pattern is None or not self.is_personal(identity):
            return None
        found = self._by_identity.get(identity)
        if found is not None:
            return found
        async with self._entering:
            for _ in range(_TRIES):
                await self._refresh()
                if (found := self._by_identity.get(identity)) is not None:
                    return found
                try:
                    return await self._enter(identity)
                except _Behind:
                    self._keyring.forget_tenant(SYSTEM_TENANT)
        raise VaultError(Reason.KEY_CHANGED, "others come at this moment; try again")

    async def written(self, identity: str) -> str:
        """What may be written of an identity. Raises as `person`."""
        found = await self.person(identity)
        return identity if found is None else found.pseudonym

    async def sought(self, identity: str) -> str:
        """What an identity stands under, to look for it; nobody is entered for that."""
        if not self.is_personal(identity):
            return identity
        if identity not in self._by_identity:
            async with self._entering:
                await self._refresh()
        found = self._by_identity.get(identity)
        return identity if found is None else found.pseudonym

    async def sought_by(self, caller: Caller, identity: str) -> str:
        """The same for a caller, who learns by it whom a pseudonym stands for. Raises `SCOPE_DENIED`."""
        if self.is_personal(identity):
            require_identify(caller)
        return await self.sought(identity)

    async def named(self, pseudonym: str) -> str | None:
        """The identity behind a pseudonym; None once it is erased. What is no pseudonym is an identity itself."""
        if not pseudonym.startswith(crypto.PREFIX):
            return pseudonym
        if pseudonym not in self._by_pseudonym:
            async with self._entering:
                await self._refresh()
        found = self._by_pseudonym.get(pseudonym)
        return None if found is None else found.identity

    async def identify(self, caller: Caller, pseudonyms: Sequence[str]) -> list[str]:
        """Whom pseudonyms stand for, each or an empty string. Raises `FIELD_INVALID`, `SCOPE_DENIED`."""
        require_identify(caller)
        if not 0 < len(pseudonyms) <= MAX_PSEUDONYMS or not all(map(_PSEUDONYM.fullmatch, pseudonyms)):
            raise invalid_field("pseudonyms", f"1 to {MAX_PSEUDONYMS}, each `person:` and 22 characters")
        found = [await self.named(pseudonym) or "" for pseudonym in pseudonyms]
        after = canonical_json({"pseudonyms": list(pseudonyms)})
        tenant = requests.token_of(caller).tenant
        await self._log.record(audit.granted(caller, IDENTIFY, f"{tenant}/audit", after=after))
        return found

    def known(self, pseudonym: str) -> Person | None:
        """Who goes by a pseudonym, if this worker knows."""
        return self._by_pseudonym.get(pseudonym)

    def present(self, caller: Caller) -> Person:
        """Who calls, a person. Raises `TOKEN_REVOKED` for one who was erased while the call lasted."""
        person = self._by_pseudonym.get(caller.pseudonym)
        if person is None:
            raise VaultError(Reason.TOKEN_REVOKED, "the token was revoked")
        return person

    def certificates(self, thumbprint: str) -> list[str]:
        """What a certificate's thumbprint may stand under in the log: itself, and each person's alias of it."""
        return [thumbprint, *(person.certificate(thumbprint) for person in self._by_pseudonym.values())]

    async def hide(self, text: str) -> str:
        """A text with each person's identity in it replaced by the pseudonym. Raises as `person`."""
        for identity in sorted(set(_MENTION.findall(text)), key=len, reverse=True):
            if self.is_personal(identity):
                hidden = await self.written(identity)
                text = re.sub(
                    rf"(?<![a-z0-9._/-]){re.escape(identity)}(?![a-z0-9_/-]|\.[a-z0-9])", hidden, text
                )
        return text

    async def show(self, text: str) -> str:
        """The same with the identities of those who are not erased. Raises `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE`."""
        for pseudonym in set(_PSEUDONYM.findall(text)):
            text = text.replace(pseudonym, await self.named(pseudonym) or pseudonym)
        return text

    def alluded(self, text: str) -> bool:
        """Whether a text names a person by the path of a SPIFFE ID alone, which could not be replaced."""
        if self._pattern is None:
            return False
        return any(
            self.is_personal(f"spiffe://{domain}/{mention}")
            for mention in _MENTION.findall(text)
            for domain in self._trust_domains
        )

    async def _refresh(self) -> None:
        """Open the rows of those who came since. Whose key is gone stays unknown."""
        while True:
            async with self._database.read(of(SYSTEM_TENANT)) as connection:
                page = await store.list_after(connection, self._number, _PAGE)
            opened = await asyncio.gather(*map(self._opened, page))
            for one, person in zip(page, opened, strict=True):
                self._number = max(self._number, one.number)
                if person is not None:
                    self._remember(person)
            if len(page) < _PAGE:
                return

    async def _opened(self, stored: store.StoredPerson) -> Person | None:
        if not stored.sealed or stored.subject.state is not SubjectState.ACTIVE:
            return None
        pseudonym = crypto.PREFIX + stored.subject.subject_id
        try:
            key = await self._subjects.key(stored.subject)
        except VaultError as error:
            # A backup from before an erasure holds keys under one that is no more.
            if error.reason in _PASSING and not await self._subjects.is_key_gone(stored.subject):
                raise
            log.warning("a person's key does not open", extra={"pseudonym": pseudonym})
            return None
        try:
            identity = crypto.open(key, f"{pseudonym} {_IDENTITY}", stored.sealed).decode()
        except CryptoError:
            key.close()
            log.error("a person's row is damaged", extra={"pseudonym": pseudonym})  # noqa: TRY400
            return None
        return Person(identity, pseudonym, key)

    async def _enter(self, identity: str) -> Person:
        number = self._number + 1
        fresh = memory.absorb(os.urandom(crypto.KEY_BYTES))
        person = Person(identity, crypto.pseudonym(fresh, identity), fresh)
        try:
            subject_id = person.pseudonym.removeprefix(crypto.PREFIX)
            draft = audit.by_vault(SYSTEM_TENANT, CREATE, f"{RESOURCE}/{subject_id}")
            # Whoever calls, people are the vault's own.
            with declared(of(SYSTEM_TENANT)):
                key = await self._keyring.ensure_subject_key(SYSTEM_TENANT, draft)
                wrapped = await self._subjects.wrap(SYSTEM_TENANT, subject_id, key, fresh)
                sealed = person.seal(_IDENTITY, identity.encode())
                await self._log.commit(_enter_unit(draft, number, subject_id, key, wrapped, sealed))
        except BaseException:
            fresh.close()
            raise
        self._number = number
        self._remember(person)
        return person

    def _remember(self, person: Person) -> None:
        self._by_identity[person.identity] = person
        self._by_pseudonym[person.pseudonym] = person


def require_identify(caller: Caller) -> None:
    """Raise `SCOPE_DENIED` for a caller who may not know whom pseudonyms stand for."""
    requests.require(caller, IDENTIFY, f"{requests.token_of(caller).tenant}/audit")


def may_identify(caller: Caller) -> bool:
    """Whether a caller may know whom pseudonyms stand for."""
    token = requests.token_of(caller)
    return any(scopes.covers(scope, IDENTIFY, f"{token.tenant}/audit") for scope in token.scopes)


def is_pseudonym(text: str) -> bool:
    """Whether this is a pseudonym."""
    return _PSEUDONYM.fullmatch(text) is not None


def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """What identities of people match as a whole. A `*` is one segment of a path, or one label of a DNS name."""
    return re.compile(
        "|".join(
            re.escape(pattern).replace(r"\*", "[^/]+" if pattern.startswith("spiffe://") else "[^.]+")
            for pattern in patterns
        )
    )


def _enter_unit(
    draft: AuditDraft, number: int, subject_id: str, key: Key, wrapped: bytes, sealed: bytes
) -> Unit:
    own = RowKey("people", (number,))
    key_row = RowKey("keys", (SYSTEM_TENANT, KeyPurpose.SUBJECT.value, key.version))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        active = rows.get(key_row.table, *key_row.key)
        taken = rows.get(own.table, *own.key) is not None
        if taken or active is None or active["state"] != KeyState.ACTIVE.value:
            raise _Behind
        subject = new_subject(SYSTEM_TENANT, subject_id, key, wrapped, now)
        writes = (
            Write("subjects", stored_subjects.subject_row(subject)),
            Write("people", store.person_row(number, subject_id, sealed)),
        )
        record = draft._replace(after_state=canonical_json({"key_version": key.version}))
        return Commit((record,), writes, urgent=True)

    return Unit((own, key_row), decide)
