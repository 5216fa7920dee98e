"""Proofs: that a record is in the log, and that one checkpoint is the beginning of another.

Made from the stored nodes of the tree (`store/tree.py`): some hundreds of hashes, however long the log is. Each is
verified against what was signed before it is handed out, so a damaged node makes no false proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vault.crypto import merkle
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.store import audit, tree
from vault.store.ledger import leaf_hash
from vault.store.reach import ALL_TENANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.core.checkpoint_keys import CheckpointKeys
    from vault.core.checkpoints import Checkpoints
    from vault.model import AuditRecord, Checkpoint
    from vault.store.engine import Database
    from vault.store.rows import Row


class Inclusion(NamedTuple):
    """A record, the checkpoint that covers it, and the audit path between them."""

    record: AuditRecord
    checkpoint: Checkpoint
    path: list[bytes]


class Consistency(NamedTuple):
    """Two checkpoints, and the path that proves that the older is the beginning of the newer."""

    old: Checkpoint
    new: Checkpoint
    path: list[bytes]


class Paths:
    """Makes the paths of proofs from the stored nodes."""

    def __init__(self, database: Database, keys: CheckpointKeys) -> None:
        self._database = database
        self._keys = keys

    async def inclusion(self, row: Row, checkpoint: Checkpoint) -> list[bytes]:
        """From a record to a checkpoint that covers it. Raises `STORED_DATA_DAMAGED`."""
        root = self._keys.signed_head(checkpoint).root
        path = await self._roots(merkle.inclusion_path(row["sequence"], checkpoint.size))
        try:
            merkle.verify_inclusion(leaf_hash(row), row["sequence"], checkpoint.size, path, root)
        except CryptoError:
            raise _damaged() from None
        return path

    async def consistency(self, old_size: int, new: Checkpoint) -> list[bytes]:
        """From the checkpoint of `old_size` to a newer one. Raises `CHECKPOINT_NOT_FOUND`, `STORED_DATA_DAMAGED`."""
        async with self._database.read() as connection:
            old = await audit.get_checkpoint(connection, old_size)
        if old is None or old.size > new.size:
            raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "no such older checkpoint")
        roots = [self._keys.signed_head(checkpoint).root for checkpoint in (old, new)]
        path = await self._roots(merkle.consistency_path(old.size, new.size))
        try:
            merkle.verify_consistency(old.size, roots[0], new.size, roots[1], path)
        except CryptoError:
            raise _damaged() from None
        return path

    async def _roots(self, path: Sequence[merkle.Span]) -> list[bytes]:
        wanted = {node for span in path for node in merkle.stored_nodes(span)}
        # Hashes of everybody's records, and nothing else.
        async with self._database.read(ALL_TENANTS) as connection:
            nodes = await tree.look_up(connection, wanted)
        if len(nodes) != len(wanted):
            raise _damaged()
        return [merkle.subtree_root(span, nodes) for span in path]


class Proofs:
    """Makes proofs to checkpoints that are there, or are signed for it."""

    def __init__(self, database: Database, checkpoints: Checkpoints, paths: Paths) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._paths = paths

    async def inclusion(self, sequence: int, size: int, tenant: str) -> Inclusion:
        """That a record (of this tenant; empty for any) is in the tree of `size`; 0: of the newest checkpoint.

        Raises `RECORD_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, `STORED_DATA_DAMAGED`.
        """
        async with self._database.read() as connection:
            row = await audit.get_row(connection, sequence)
        if row is None or tenant not in ("", row["tenant"]):
            raise VaultError(Reason.RECORD_NOT_FOUND, "no such record")
        checkpoint = await self._checkpoint(size, beyond=sequence)
        if sequence >= checkpoint.size:
            raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "that checkpoint does not cover the record")
        return Inclusion(audit.record_from(row), checkpoint, await self._paths.inclusion(row, checkpoint))

    async def consistency(self, old_size: int, size: int) -> Consistency:
        """That the checkpoint of `old_size` is the beginning of that of `size`; 0: of the newest.

        Raises `CHECKPOINT_NOT_FOUND`, `STORED_DATA_DAMAGED`.
        """
        old = await self._checkpoint(old_size)
        new = await self._checkpoint(size)
        return Consistency(old, new, await self._paths.consistency(old.size, new))

    async def _checkpoint(self, size: int, *, beyond: int | None = None) -> Checkpoint:
        """The checkpoint of a size; for 0 the newest if it goes beyond a record, else one that is signed now."""
        async with self._database.read() as connection:
            found = (
                await audit.get_checkpoint(connection, size)
                if size
                else await audit.latest_checkpoint(connection)
            )
            if found is not None and (size or (beyond is not None and found.size > beyond)):
                (whole,) = await audit.with_cosignatures(connection, [found])
                return whole
        if size:
            raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "no checkpoint of this size")
        return await self._checkpoints.sign()


def _damaged() -> VaultError:
    return VaultError(Reason.STORED_DATA_DAMAGED, "the stored tree is not the one that was signed")
