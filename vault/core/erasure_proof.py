"""The proof of an erasure: all that was erased is tried, and nothing of it may open.

Only that the HSM does not know the key, or that what it has is another's, counts: an HSM that does not answer proves
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hsm import HsmIntegrityError, KeyNotFound
from vault.core.envelopes import name_of
from vault.core.subjects import wrap_aad
from vault.crypto import copies, envelope, memory, suites
from vault.crypto.envelope import DEK_BYTES
from vault.errors import Reason, VaultError
from vault.model import KeyPurpose, StoredVersion
from vault.store import credentials as stored_credentials
from vault.store import erasures as store
from vault.store import keys as stored_keys
from vault.store.reach import with_system

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from vault.core.envelopes import Envelopes
    from vault.core.hsm import Hsm
    from vault.core.subjects import Subjects
    from vault.model import Erasure, Key, Subject
    from vault.store.engine import Database


class Tried(NamedTuple):
    """How many credential versions were found, and how many of all that was wrapped was tried and did not open."""

    versions: int
    tried: int


class ErasureProof:
    """Tries to open what was erased."""

    def __init__(self, database: Database, hsm: Hsm, subjects: Subjects, envelopes: Envelopes) -> None:
        self._database = database
        self._hsm = hsm
        self._subjects = subjects
        self._envelopes = envelopes

    async def attempt(
        self, erasure: Erasure, destroyed: Sequence[Key], names: AsyncIterator[Sequence[str]]
    ) -> Tried:
        """Try to open all of an erasure, whose credentials these are. Raises `STORED_DATA_DAMAGED` if anything does."""
        subject = await self._subjects.get(erasure.tenant, erasure.subject_id) if erasure.subject_id else None
        wrapped = await self._try_subject(subject) if subject is not None and subject.wrapped_key else 0
        by_version = {key.version: key for key in destroyed if key.purpose is KeyPurpose.KEK}
        versions = 0
        async for page in names:
            async with self._database.read() as connection:
                wanted = await store.holding_versions(connection, page)
                found = await stored_credentials.get_stored(connection, wanted)
            for item in found:
                assert isinstance(item, StoredVersion)
                if subject is not None:
                    await self._must_be_erased(item)
                else:
                    await self._must_not_unwrap(item, by_version)
                versions += 1
        return Tried(versions, versions + wrapped)

    async def _try_subject(self, subject: Subject) -> int:
        async with self._database.read(with_system()) as connection:
            versions = await stored_keys.list_keys(connection, subject.tenant, KeyPurpose.SUBJECT)
        for key in versions:
            aad = wrap_aad(subject.tenant, subject.subject_id, key.version)
            await self._hsm.call(_must_not_open, self._hsm, key, subject.wrapped_key, aad)
        return len(versions)

    async def _must_be_erased(self, item: StoredVersion) -> None:
        """Open the data of a subject as any reveal would: it must be refused for the reason that its key is gone."""
        try:
            opened = await self._envelopes.open_all([item])
        except VaultError as error:
            if error.reason is Reason.VERSION_DESTROYED:
                return
            raise
        for buffer in opened:
            buffer.close()
        raise _still_opens()

    async def _must_not_unwrap(self, item: StoredVersion, keys: Mapping[int, Key]) -> None:
        parsed = envelope.parse(item.envelope)
        key = keys[item.kek_version]
        context = envelope.EnvelopeContext(
            tenant=item.tenant,
            credential=item.name,
            version=item.version,
            kek_name=name_of(key),
            kek_version=key.version,
        )
        aad = envelope.wrap_aad(suites.suite(parsed.suite), context)
        await self._hsm.call(_must_not_open, self._hsm, key, parsed.wrapped_dek, aad)


def _must_not_open(hsm: Hsm, key: Key, wrapped: bytes, aad: bytes) -> None:
    """Try to unwrap, wherever the key lay."""
    blobs = copies.split(wrapped) if len(key.backends) > 1 else (wrapped,)
    for name, blob in zip(key.backends, blobs, strict=True):
        one = hsm.one(name)
        with memory.allocate(DEK_BYTES * 2) as buffer:
            try:
                one.backend.unwrap(one.kek(key), blob, aad, buffer.view)
            except (KeyNotFound, HsmIntegrityError):
                continue
        raise _still_opens()


def _still_opens() -> VaultError:
    return VaultError(Reason.STORED_DATA_DAMAGED, "something of what was erased still opens; no certificate")
