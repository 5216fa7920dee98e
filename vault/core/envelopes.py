"""The way of a secret into its envelope and out again: the HSM for the data key, locked memory for both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from vault.core.hsm import Unwrapping, Wrapping, damaged
from vault.crypto import envelope, memory, parcel, subject_data, suites
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.model import KeyPurpose, KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.subjects import Subjects
    from vault.crypto.memory import LockedBuffer
    from vault.model import Key, StoredVersion, Subject


class _Sealed(NamedTuple):
    envelope: envelope.Envelope
    bound: bytes
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

    async def open_all(self, stored: Sequence[StoredVersion]) -> list[LockedBuffer]:
        """Decrypt versions into locked memory, each into a buffer of its own, all or none.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`, and `VERSION_DESTROYED` for the data of an erased subject.
        """
        sealed = await self._parse(stored)
        with await self._hsm.unwrap_all([item.unwrapping for item in sealed]) as deks:
            opened = _open_apart(sealed, deks)
        try:
            for at, (item, content) in enumerate(zip(stored, opened, strict=True)):
                if (subject_id := subject_data.subject_of(content.view)) is not None:
                    with content:
                        opened[at] = await self._open_content(item, subject_id, content.view)
        except BaseException:
            for buffer in opened:
                buffer.close()
            raise
        return opened

    async def open_parcel(self, stored: Sequence[StoredVersion]) -> LockedBuffer:
        """Decrypt versions into one locked buffer, as a parcel (`crypto/parcel.py`), all or none.

        Raises as `open_all`.
        """
        sealed = await self._parse(stored)
        with await self._hsm.unwrap_all([item.unwrapping for item in sealed]) as deks:
            whole = _open_together(sealed, deks)
        try:
            subjects = [subject_data.subject_of(content) for content in parcel.split(whole.view)]
            if not any(subjects):
                return whole
            opened = await self._open_contents(stored, subjects, whole)
        except BaseException:
            whole.close()
            raise
        whole.close()
        return opened

    async def _open_contents(
        self, stored: Sequence[StoredVersion], subjects: Sequence[str | None], whole: LockedBuffer
    ) -> LockedBuffer:
        with contextlib.ExitStack() as opened:
            contents = parcel.split(whole.view)
            for at, subject_id in enumerate(subjects):
                if subject_id is not None:
                    content = await self._open_content(stored[at], subject_id, contents[at])
                    contents[at] = opened.enter_context(content).view
            return parcel.join(contents)

    async def _open_content(
        self, stored: StoredVersion, subject_id: str, content: memoryview
    ) -> LockedBuffer:
        subject = await self._subjects.get(stored.tenant, subject_id)
        if subject is None:
            raise damaged()
        with await self._subjects.key(subject) as key:
            try:
                return subject_data.open(content, key, stored.name, stored.version)
            except CryptoError:
                raise damaged() from None

    async def _parse(self, stored: Sequence[StoredVersion]) -> list[_Sealed]:
        # Most of what is asked for at once lies under one key: it is looked up, and its part encoded, once.
        under: dict[tuple[str, int, int], tuple[Key, Callable[[str, int], envelope.Binding]]] = {}
        sealed = []
        for item in stored:
            try:
                parsed = envelope.parse(item.envelope)
            except CryptoError:
                raise damaged() from None
            # The row's columns are for queries; what is opened must agree with them.
            if (
                parsed.kek_version != item.kek_version
                or parsed.suite != item.suite
                or item.name.partition("/")[0] != item.tenant
            ):
                raise damaged()
            place = (item.tenant, item.kek_version, item.suite)
            known = under.get(place)
            if known is None:
                key = await self._key(item)
                suite = suites.suite(item.suite)
                bind = envelope.bindings(suite, item.tenant, name_of(key), key.version)
                known = under[place] = (key, bind)
            key, bind = known
            dek_aad, bound = bind(item.name, item.version)
            sealed.append(_Sealed(parsed, bound, Unwrapping(key, parsed.wrapped_dek, dek_aad)))
        return sealed

    async def _key(self, stored: StoredVersion) -> Key:
        try:
            key = await self._keyring.version(stored.tenant, KeyPurpose.KEK, stored.kek_version)
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


def _open_apart(sealed: Sequence[_Sealed], deks: LockedBuffer) -> list[LockedBuffer]:
    opened: list[LockedBuffer] = []
    try:
        opened.extend(memory.allocate(envelope.plaintext_bytes(item.envelope)) for item in sealed)
        _open(sealed, deks, [buffer.view for buffer in opened])
    except BaseException:
        for buffer in opened:
            buffer.close()
        raise
    return opened


def _open_together(sealed: Sequence[_Sealed], deks: LockedBuffer) -> LockedBuffer:
    whole, places = parcel.room([envelope.plaintext_bytes(item.envelope) for item in sealed])
    try:
        _open(sealed, deks, places)
    except BaseException:
        whole.close()
        raise
    return whole


def _open(sealed: Sequence[_Sealed], deks: LockedBuffer, places: Sequence[memoryview]) -> None:
    """Decrypt each into its place. The key of each content lies in the one buffer, which is wiped at the end."""
    with memory.allocate(envelope.KEY_BYTES) as key:
        key_view = key.view
        try:
            for item, dek, place in zip(sealed, envelope.dek_places(deks.view), places, strict=True):
                envelope.open_into(item.envelope, item.bound, dek, key_view, place)
        except CryptoError:
            raise damaged() from None


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
