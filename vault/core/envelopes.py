"""The way of a secret into its envelope and out again: the HSM for the data key, locked memory for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vault.core.hsm import Unwrapping, Wrapping, damaged
from vault.crypto import envelope, subject_data, suites
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.model import KeyPurpose, KeyState

if TYPE_CHECKING:
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.subjects import Subjects
    from vault.crypto.memory import LockedBuffer
    from vault.model import Key, StoredVersion, Subject


class _Sealed(NamedTuple):
    envelope: envelope.Envelope
    context: envelope.EnvelopeContext
    unwrapping: Unwrapping


class Envelopes:
    """Seals and opens versions of credentials."""

    def __init__(self, hsm: Hsm, keyring: Keyring, subjects: Subjects) -> None:
        self._hsm = hsm
        self._keyring = keyring
        self._subjects = subjects

    async def seal(
        self, kek: Key, name: str, version: int, plaintext: LockedBuffer, subject: Subject | None = None
    ) -> bytes:
        """Encrypt a version under a data key of its own, wrapped by `kek`; before that under its subject's key.

        Raises `HSM_UNAVAILABLE`, and `VERSION_DESTROYED` if the subject was erased.
        """
        if subject is not None:
            with await self._subjects.key(subject) as key:
                inner = subject_data.seal(
                    suites.current(), subject.subject_id, key, name, version, plaintext.view
                )
            with inner:
                return await self.seal(kek, name, version, inner)
        suite = suites.current()
        context = context_of(name, version, kek)
        with envelope.new_dek() as dek:
            wrapped = await self._hsm.wrap(Wrapping(kek, dek, envelope.wrap_aad(suite, context)))
            return envelope.seal(suite, context, dek, wrapped, plaintext.view)

    async def open_all(self, stored: list[StoredVersion]) -> list[LockedBuffer]:
        """Decrypt versions into locked memory, all or none.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`, and `VERSION_DESTROYED` for the data of an erased subject.
        """
        opened = await self._open_envelopes(stored)
        try:
            for at, (item, content) in enumerate(zip(stored, opened, strict=True)):
                if (subject_id := subject_data.subject_of(content.view)) is not None:
                    with content:
                        opened[at] = await self._open_content(item, subject_id, content)
        except BaseException:
            for buffer in opened:
                buffer.close()
            raise
        return opened

    async def _open_content(
        self, stored: StoredVersion, subject_id: str, content: LockedBuffer
    ) -> LockedBuffer:
        version = stored.version
        subject = await self._subjects.get(stored.tenant, subject_id)
        if subject is None:
            raise damaged()
        with await self._subjects.key(subject) as key:
            try:
                return subject_data.open(content.view, key, version.name, version.version)
            except CryptoError:
                raise damaged() from None

    async def _open_envelopes(self, stored: list[StoredVersion]) -> list[LockedBuffer]:
        sealed = [await self._parse(item) for item in stored]
        deks = await self._hsm.unwrap_all([item.unwrapping for item in sealed])
        opened: list[LockedBuffer] = []
        try:
            for item, dek in zip(sealed, deks, strict=True):
                opened.append(envelope.open(item.envelope, item.context, dek))
        except BaseException as error:
            for buffer in opened:
                buffer.close()
            if isinstance(error, CryptoError):
                raise damaged() from None
            raise
        finally:
            for dek in deks:
                dek.close()
        return opened

    async def _parse(self, stored: StoredVersion) -> _Sealed:
        version = stored.version
        try:
            parsed = envelope.parse(stored.envelope)
            suite = suites.suite(parsed.suite)
        except CryptoError:
            raise damaged() from None
        # The row's columns are for queries; what is opened must agree with them.
        if (parsed.kek_version, parsed.suite) != (version.kek_version, version.suite):
            raise damaged()
        kek = await self._key(stored)
        context = context_of(version.name, version.version, kek)
        return _Sealed(
            parsed, context, Unwrapping(kek, parsed.wrapped_dek, envelope.wrap_aad(suite, context))
        )

    async def _key(self, stored: StoredVersion) -> Key:
        try:
            key = await self._keyring.version(stored.tenant, KeyPurpose.KEK, stored.version.kek_version)
        except VaultError as error:
            if error.reason is Reason.KEY_NOT_FOUND:
                raise damaged() from None
            raise
        if key.state is KeyState.SEALED_OFF:
            raise VaultError(Reason.KEY_QUARANTINED, "the key of this version is in quarantine")
        if not key.state.opens:
            raise VaultError(
                Reason.KEY_STATE_UNSUITABLE,
                f"the key of this version is {key.state.value}",
                state=key.state.value,
            )
        return key


def context_of(name: str, version: int, kek: Key) -> envelope.EnvelopeContext:
    """What the envelope of a version is bound to, under a key."""
    tenant = name.partition("/")[0]
    return envelope.EnvelopeContext(
        tenant=tenant,
        credential=name,
        version=version,
        kek_name=name_of(kek),
        kek_version=kek.version,
    )


def name_of(kek: Key) -> str:
    """What a key is called in all its versions: its label without the version."""
    return kek.label.rpartition("/")[0]
