"""The inner nodes of the log's tree: what a proof is made of, without reading the log."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from vault.store import lenient
from vault.store.tables import audit_records, tree_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.crypto.merkle import Node
    from vault.store.engine import Database


async def look_up(
    connection: AsyncConnection, wanted: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Nodes by (level, position), those that are there and are hashes. Level 0 are the records' leaf hashes."""
    by_level: dict[int, list[int]] = defaultdict(list)
    for level, position in wanted:
        by_level[level].append(position)
    found: dict[tuple[int, int], bytes] = {}
    for level, positions in by_level.items():
        kept = select(tree_nodes.c.position, tree_nodes.c.hash).where(
            tree_nodes.c.level == level, tree_nodes.c.position.in_(positions)
        )
        statement = (
            kept
            if level
            else select(
                audit_records.c.sequence.label("position"), audit_records.c.leaf_hash.label("hash")
            ).where(audit_records.c.sequence.in_(positions))
        )
        for part in (statement,) if level else (kept, statement):
            rows = await lenient.read(connection, part)
            found |= {(level, row["position"]): row["hash"] for row in rows if isinstance(row["hash"], bytes)}
    return found


async def stored_until(connection: AsyncConnection) -> int:
    """How many complete subtrees of 256 records, from the first on, have their node."""
    statement = select(func.max(tree_nodes.c.position)).where(tree_nodes.c.level == 1)
    last: int | None = (await connection.execute(statement)).scalar()
    return 0 if last is None else last + 1


async def keep(connection: AsyncConnection, database: Database, nodes: Sequence[Node]) -> None:
    """Store nodes, but those that are there."""
    if nodes:
        insert = postgresql.insert if database.is_postgresql else sqlite.insert
        await connection.execute(
            insert(tree_nodes).on_conflict_do_nothing(), [node._asdict() for node in nodes]
        )
