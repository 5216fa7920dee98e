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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.core.checkpoints import Checkpoints
    from vault.model import AuditRecord, Checkpoint
    from vault.store.engine import Database


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


class Proofs:
    """Makes proofs."""

    def __init__(self, database: Database, checkpoints: Checkpoints) -> None:
        self._database = database
        self._checkpoints = checkpoints

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
        path = await self._roots(merkle.inclusion_path(sequence, checkpoint.size))
        root = self._checkpoints.signed_head(checkpoint).root
        try:
            merkle.verify_inclusion(leaf_hash(row), sequence, checkpoint.size, path, root)
        except CryptoError:
            raise _damaged() from None
        return Inclusion(audit.record_from(row), checkpoint, path)

    async def consistency(self, old_size: int, size: int) -> Consistency:
        """That the checkpoint of `old_size` is the beginning of that of `size`; 0: of the newest.

        Raises `CHECKPOINT_NOT_FOUND`, `STORED_DATA_DAMAGED`.
        """
        old = await self._checkpoint(old_size)
        new = await self._checkpoint(size)
        if old.size > new.size:
            raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "no such older checkpoint")
        return Consistency(old, new, await self.consistency_path(old, new))

    async def consistency_path(self, old: Checkpoint, new: Checkpoint) -> list[bytes]:
        """The path between two checkpoints. Raises `STORED_DATA_DAMAGED`."""
        path = await self._roots(merkle.consistency_path(old.size, new.size))
        roots = [self._checkpoints.signed_head(checkpoint).root for checkpoint in (old, new)]
        try:
            merkle.verify_consistency(old.size, roots[0], new.size, roots[1], path)
        except CryptoError:
            raise _damaged() from None
        return path

    async def _checkpoint(self, size: int, *, beyond: int | None = None) -> Checkpoint:
        """The checkpoint of a size; for 0 the newest if it goes beyond a record, else one that is signed now."""
        async with self._database.read() as connection:
            found = (
                await audit.get_checkpoint(connection, size)
                if size
                else await audit.latest_checkpoint(connection)
            )
        if size:
            if found is None:
                raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "no checkpoint of this size")
            return found
        if found is not None and beyond is not None and found.size > beyond:
            return found
        return await self._checkpoints.sign()

    async def _roots(self, path: Sequence[merkle.Span]) -> list[bytes]:
        wanted = {node for span in path for node in merkle.stored_nodes(span)}
        async with self._database.read() as connection:
            nodes = await tree.look_up(connection, wanted)
        if len(nodes) != len(wanted):
            raise _damaged()
        return [merkle.subtree_root(span, nodes) for span in path]


def _damaged() -> VaultError:
    return VaultError(Reason.STORED_DATA_DAMAGED, "the stored tree is not the one that was signed")
