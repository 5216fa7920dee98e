"""The keys that sign checkpoints: one in the HSM, and if wished one of ML-DSA beside it.

The HSM's key signs by Ed25519 or ECDSA. ML-DSA-44 (FIPS 204) is for the day when those are broken: it is software,
since hardly an HSM has it, and its seed is stored wrapped by the HSM, like those of ingest keys. Once there, it signs
every checkpoint, whatever the configuration says later.

Each key after the first is introduced by the log itself: a record holds it, and the checkpoint that first covers that
record is signed by the key before, too. So whoever trusts the first key can follow (`verification.py`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import mldsa

from vault.core.hsm import Unwrapping, Wrapping
from vault.core.verification import INTRODUCE
from vault.crypto import hpke, notes
from vault.crypto.encoding import encode
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.model import SYSTEM_TENANT, AuditDraft, CheckpointKey, KeyPurpose, Origin, Outcome
from vault.store import keys as stored
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.model import Checkpoint, Key
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.checkpoints")

_VERSION = 1


class CheckpointKeys:
    """Signs the texts of checkpoints, and knows the public keys of those that did."""

    def __init__(
        self,
        origin: str,
        database: Database,
        hsm: Hsm,
        keyring: Keyring,
        log_: AuditLog,
        clock: Clock,
        *,
        post_quantum: bool,
    ) -> None:
        self.origin = origin
        self._database = database
        self._hsm = hsm
        self._keyring = keyring
        self._log = log_
        self._clock = clock
        self._post_quantum = post_quantum
        self._hsm_keys: dict[str, Key] = {}
        self._ml_dsa: tuple[str, mldsa.MLDSA44PrivateKey] | None = None
        self._introduced: set[str] = set()

    async def learn(self) -> None:
        """Learn the public keys from the HSM. Raises `HSM_UNAVAILABLE`."""
        keys = await self._keyring.versions(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
        self._hsm_keys = {await public_verifier(self.origin, self._hsm, key): key for key in keys}

    @property
    def newest(self) -> str:
        """The verifier key of the HSM's key in use, in the form of the C2SP signed-note specification."""
        return next(iter(self._hsm_keys))

    @property
    def verifiers(self) -> tuple[str, ...]:
        """The verifier keys of every key in the HSM that signed checkpoints, newest first.

        That of ML-DSA is not among them: it is known from the log.
        """
        return tuple(self._hsm_keys)

    async def introduce(self, last_note: str | None) -> None:
        """Record in the log what will sign now and did not sign the checkpoint before.

        Raises `AUDIT_UNAVAILABLE`, `HSM_UNAVAILABLE`, `STORED_DATA_DAMAGED`.
        """
        active = await self._active()
        if last_note is not None and active not in self._introduced:
            if active not in self._signers(last_note):
                await self._log.record(_introduction(active))
            self._introduced.add(active)
        if self._ml_dsa is None:
            await self._open_ml_dsa()

    async def attest(self, text: str) -> str:
        """A signed note over a text of lines, by the HSM's key in use. Raises `HSM_UNAVAILABLE`."""
        return await self._sign(text, await self._active())

    async def sign(self, body: str, last_note: str | None) -> str:
        """The checkpoint's note: signed by the key in use, by that before it if it has changed, and by ML-DSA.

        Raises `HSM_UNAVAILABLE`.
        """
        active = await self._active()
        note = await self._sign(body, active)
        before = self._signers(last_note) if last_note is not None else ()
        for verifier in before if active not in before else ():
            try:
                note += (await self._sign(body, verifier)).removeprefix(body + "\n")
            except VaultError:
                # It may be gone for ever. Then a verifier must be given the new key by hand.
                log.error("the checkpoint key before the last change cannot sign")  # noqa: TRY400
        if self._ml_dsa is not None:
            verifier, private = self._ml_dsa
            seconds = int(self._clock.now().timestamp())
            signature = private.sign(notes.cosigned_message(verifier, body, seconds))
            note += notes.cosignature_line(verifier, seconds, signature)
        return note

    def signed_head(self, checkpoint: Checkpoint) -> notes.CheckpointHead:
        """What a stored checkpoint's note says, if one of these keys signed it. Raises `STORED_DATA_DAMAGED`."""
        try:
            head = notes.verify_checkpoint(checkpoint.note, self.verifiers)
        except CryptoError:
            head = None
        if head is None or (head.origin, head.size) != (self.origin, checkpoint.size):
            raise VaultError(Reason.STORED_DATA_DAMAGED, "a checkpoint does not verify")
        return head

    def _signers(self, note: str) -> tuple[str, ...]:
        try:
            return notes.verify_signatures(note, self.verifiers).signers
        except CryptoError:
            return ()

    async def _active(self) -> str:
        key = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
        if not self._hsm_keys or key.version != self._hsm_keys[self.newest].version:
            await self.learn()
        return next(verifier for verifier, known in self._hsm_keys.items() if known.version == key.version)

    async def _sign(self, body: str, verifier: str) -> str:
        key = self._hsm_keys[verifier]
        return notes.sign_with(body, verifier, await self._hsm.sign(key, key.algorithm, body.encode()))

    async def _open_ml_dsa(self) -> None:
        async with self._database.read() as connection:
            found = await stored.get_checkpoint_key(connection, _VERSION)
        if found is None and self._post_quantum:
            found = await self._make_ml_dsa()
        if found is not None:
            kek = await self._keyring.version(SYSTEM_TENANT, KeyPurpose.INGEST, found.kek_version)
            aad = _aad(found.verifier_key, found.kek_version)
            with await self._hsm.unwrap(Unwrapping(kek, found.wrapped_seed, aad)) as seed:
                self._ml_dsa = found.verifier_key, mldsa.MLDSA44PrivateKey.from_seed_bytes(seed.view)

    async def _make_ml_dsa(self) -> CheckpointKey:
        kek = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.INGEST)
        with hpke.new_seed() as seed:
            public = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed.view).public_key()
            verifier = notes.cosigner_key(self.origin, public)
            wrapped = await self._hsm.wrap(Wrapping(kek, seed, _aad(verifier, kek.version)))
        new = CheckpointKey(
            version=_VERSION,
            verifier_key=verifier,
            wrapped_seed=wrapped,
            kek_version=kek.version,
            create_time=self._clock.now(),
        )

        def decide(rows: Rows, _now: datetime.datetime) -> Commit:
            if (row := rows.get("checkpoint_keys", _VERSION)) is not None:
                # Another worker was faster. Nothing is written, but every unit has its record.
                return Commit((_introduction(row["verifier_key"]),), (), CheckpointKey(**row))
            write = Write("checkpoint_keys", stored.checkpoint_key_row(new))
            return Commit((_introduction(verifier),), (write,), new)

        made: CheckpointKey = await self._log.commit(Unit((RowKey("checkpoint_keys", (_VERSION,)),), decide))
        return made


async def verifier_keys(origin: str, keyring: Keyring, hsm: Hsm) -> list[str]:
    """The verifier keys of all keys in the HSM that signed checkpoints, newest first. Raises `HSM_UNAVAILABLE`."""
    keys = await keyring.versions(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
    return [await public_verifier(origin, hsm, key) for key in keys]


async def public_verifier(origin: str, hsm: Hsm, key: Key) -> str:
    """The verifier key of one key of the HSM. Raises `HSM_UNAVAILABLE`."""
    return notes.verifier_key(origin, await hsm.public_key(key))


def _introduction(verifier: str) -> AuditDraft:
    after = canonical_json({"verifier_key": verifier})
    return AuditDraft(
        SYSTEM_TENANT, "strongroom", INTRODUCE, "", Outcome.GRANTED, Origin(), after_state=after
    )


def _aad(verifier: str, kek_version: int) -> bytes:
    return encode("strongroom/checkpoint-key/v1", verifier, kek_version)
