"""Whatever is altered in the database, at random and by somebody who knows the formats, is found.

One log with its rows, checkpoints and anchors; then again and again one alteration of a copy, and the verdict on it.
Only the private key is not in the hands of who alters. 1,000 alterations, and 10,000 in `make soak`.
"""

from __future__ import annotations

import os
import random
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit_log import ORIGIN, Copy
from vault.core.anchors import Held
from vault.crypto import merkle, notes
from vault.store.ledger import leaf_hash
from vault.store.tables import UtcDateTime, audit_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

COLUMNS = tuple(column.name for column in audit_records.columns)
TEXTS = tuple(name for name in COLUMNS if name not in ("sequence", "created_at", "leaf_hash"))


@pytest.fixture
async def copy(tmp_path: Path) -> AsyncIterator[Copy]:
    made = Copy(tmp_path / "log.db")
    await made.make()
    yield made
    await made.database.close()


# What somebody with the database in hand, and without the key, may do. Each gives the anchors as they are then.


def edit(db: sqlite3.Connection, choose: random.Random) -> None:
    """Any column of any record."""
    column = choose.choice(COLUMNS)
    sequence = _some(db, choose)
    (value,) = db.execute(f"SELECT {column} FROM audit_records WHERE sequence = ?", (sequence,)).fetchone()
    if column == "sequence":
        new: object = choose.choice([-1, 22, 1000, 2**40])
    elif column == "created_at":
        digit = choose.choice([place for place, sign in enumerate(value) if sign.isdigit() and place > 16])
        new = value[:digit] + str((int(value[digit]) + choose.randint(1, 9)) % 10) + value[digit + 1 :]
    else:
        new = _altered(value, choose)
    db.execute(f"UPDATE audit_records SET {column} = ? WHERE sequence = ?", (new, sequence))


def edit_with_a_fitting_leaf(db: sqlite3.Connection, choose: random.Random) -> None:
    """Any text of any record, and the leaf hash that belongs to it."""
    sequence, column = _some(db, choose), choose.choice(TEXTS)
    row = _row(db, sequence)
    row[column] = _altered(row[column], choose)
    db.execute(
        f"UPDATE audit_records SET {column} = ?, leaf_hash = ? WHERE sequence = ?",
        (row[column], leaf_hash(row), sequence),
    )


def delete(db: sqlite3.Connection, choose: random.Random) -> None:
    """Some records, anywhere."""
    for _ in range(choose.randint(1, 3)):
        db.execute("DELETE FROM audit_records WHERE sequence = ?", (_some(db, choose),))


def cut(db: sqlite3.Connection, choose: random.Random) -> None:
    """The tail, and whatever tells of it, but for the anchors."""
    size = choose.randint(1, 19)
    _rebuild(db, keep=size)


def insert(db: sqlite3.Connection, choose: random.Random) -> None:
    """A record of one's own: at the end, or in between, with all others moved."""
    at = choose.randint(0, 22)
    # Behind the last checkpoint nothing is signed yet: there only what does not fit can be found.
    fitting = at < 20 and choose.random() < 0.5
    db.execute("UPDATE audit_records SET sequence = -2 - sequence WHERE sequence >= ?", (at,))
    db.execute("UPDATE audit_records SET sequence = -1 - sequence WHERE sequence < -1")
    row = _row(db, 0 if at else 1)
    row |= {"sequence": at, "user_id": "intruder"}
    _put(db, row)
    if fitting:
        _rebuild(db, keep=23)


def swap(db: sqlite3.Connection, choose: random.Random) -> None:
    """Two records."""
    first, second = choose.sample(range(22), 2)
    for old, new in ((first, -1), (second, first), (-1, second)):
        db.execute("UPDATE audit_records SET sequence = ? WHERE sequence = ?", (new, old))
    if choose.random() < 0.5:
        _rehash(db)


def duplicate(db: sqlite3.Connection, choose: random.Random) -> None:
    """A record, once more at the end."""
    row = _row(db, _some(db, choose))
    row["sequence"] = 22
    _put(db, row)


def renumber(db: sqlite3.Connection, choose: random.Random) -> None:
    """All from somewhere on."""
    at = choose.randint(0, 21)
    db.execute("UPDATE audit_records SET sequence = -2 - sequence WHERE sequence >= ?", (at,))
    db.execute("UPDATE audit_records SET sequence = -1 - sequence WHERE sequence < -1")


def rebuild(db: sqlite3.Connection, choose: random.Random) -> None:
    """The whole tree after an edit: leaves, head, the roots and frontiers of checkpoints; only not signatures."""
    sequence = choose.randint(0, 19)
    row = _row(db, sequence)
    row["user_id"] = _altered(row["user_id"], choose)
    db.execute("UPDATE audit_records SET user_id = ? WHERE sequence = ?", (row["user_id"], sequence))
    _rebuild(db, keep=22, checkpoints=choose.random() < 0.5)


def move_head(db: sqlite3.Connection, choose: random.Random) -> None:
    """The head's size or frontier."""
    (size, frontier) = db.execute("SELECT size, frontier FROM audit_head").fetchone()
    if choose.random() < 0.5:
        size += choose.choice([-3, -1, 1, 5])
    else:
        frontier = frontier[:8] + _altered(frontier[8:], choose)
    db.execute("UPDATE audit_head SET size = ?, frontier = ?", (size, frontier))


def damage_a_checkpoint(db: sqlite3.Connection, choose: random.Random) -> None:
    """What is signed, its signature, or what is stored beside it."""
    size = choose.randint(1, 2) * 10
    column = choose.choice(["note", "root", "frontier", "size"])
    (value,) = db.execute(f"SELECT {column} FROM checkpoints WHERE size = ?", (size,)).fetchone()
    new = value + choose.choice([1, 3]) if column == "size" else _altered(value, choose)
    db.execute(f"UPDATE checkpoints SET {column} = ? WHERE size = ?", (new, size))


def edit_a_row(db: sqlite3.Connection, choose: random.Random) -> None:
    """A row that the log vouches for: any column."""
    column = choose.choice(["tenant", "kek_version", "created_by"])
    name = f"t{choose.randint(0, 9)}"
    (value,) = db.execute(f"SELECT {column} FROM tenants WHERE tenant = ?", (name,)).fetchone()
    new = value + choose.choice([-10, 1, 7]) if column == "kek_version" else _altered(value, choose)
    db.execute(f"UPDATE OR REPLACE tenants SET {column} = ? WHERE tenant = ?", (new, name))


def swap_rows(db: sqlite3.Connection, choose: random.Random) -> None:
    """Two rows, under each other's names."""
    first, second = (f"t{number}" for number in choose.sample(range(10), 2))
    for old, new in ((first, "x"), (second, first), ("x", second)):
        db.execute("UPDATE tenants SET tenant = ? WHERE tenant = ?", (new, old))


def delete_or_insert_a_row(db: sqlite3.Connection, choose: random.Random) -> None:
    """One of them."""
    name = f"t{choose.randint(0, 9)}"
    if choose.random() < 0.5:
        db.execute("DELETE FROM tenants WHERE tenant = ?", (name,))
    else:
        db.execute(
            "INSERT INTO tenants SELECT 'new', kek_version, create_time, created_by FROM tenants WHERE tenant = ?",
            (name,),
        )


def _some(db: sqlite3.Connection, choose: random.Random) -> int:
    return int(choose.choice(db.execute("SELECT sequence FROM audit_records").fetchall())[0])


def _row(db: sqlite3.Connection, sequence: int) -> dict[str, Any]:
    row = dict(db.execute("SELECT * FROM audit_records WHERE sequence = ?", (sequence,)).fetchone())
    row["created_at"] = _moment(row["created_at"])
    return row


def _moment(text: str) -> Any:
    import datetime

    return UtcDateTime().process_result_value(datetime.datetime.fromisoformat(text), None)  # type: ignore[arg-type]


def _put(db: sqlite3.Connection, row: dict[str, Any]) -> None:
    row["leaf_hash"] = leaf_hash(row)
    values = [
        row[name].strftime("%Y-%m-%d %H:%M:%S.%f") if name == "created_at" else row[name] for name in COLUMNS
    ]
    db.execute(
        f"INSERT INTO audit_records ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", values
    )


def _rehash(db: sqlite3.Connection) -> None:
    for (sequence,) in db.execute("SELECT sequence FROM audit_records").fetchall():
        digest = leaf_hash(_row(db, sequence))
        db.execute("UPDATE audit_records SET leaf_hash = ? WHERE sequence = ?", (digest, sequence))


def _rebuild(db: sqlite3.Connection, *, keep: int, checkpoints: bool = True) -> None:
    """Make everything fit that can be made to fit without the key."""
    db.execute("DELETE FROM audit_records WHERE sequence >= ?", (keep,))
    db.execute("DELETE FROM checkpoints WHERE size > ?", (keep,))
    _rehash(db)
    frontier = merkle.EMPTY
    for sequence, digest in db.execute("SELECT sequence, leaf_hash FROM audit_records ORDER BY sequence"):
        frontier = frontier.append(digest)
        if checkpoints:
            db.execute(
                "UPDATE checkpoints SET root = ?, frontier = ? WHERE size = ?",
                (frontier.root(), merkle.encode_frontier(frontier), sequence + 1),
            )
    db.execute("UPDATE audit_head SET size = ?, frontier = ?", (keep, merkle.encode_frontier(frontier)))


def _altered(value: Any, choose: random.Random) -> Any:
    """Another value of the same kind: a bit flipped, a part lost, something added."""
    if isinstance(value, bytes):
        place = choose.randrange(len(value))
        return value[:place] + bytes((value[place] ^ 1 << choose.randrange(8),)) + value[place + 1 :]
    how = choose.randrange(4) if value else 3
    place = choose.randrange(len(value)) if value else 0
    if how == 0:
        return value[:place] + value[place + 1 :]
    if how == 1:
        sign = chr(33 + (ord(value[place]) - 33 + choose.randint(1, 90)) % 93)
        return value[:place] + sign + value[place + 1 :]
    if how == 2 and value != value[::-1]:
        return value[::-1]
    return value[:place] + choose.choice(" \tx\u00e9") + value[place:]


OF_ROWS = (edit_a_row, swap_rows, delete_or_insert_a_row)
ALTERATIONS: tuple[Callable[[sqlite3.Connection, random.Random], None], ...] = (
    edit, edit_with_a_fitting_leaf, delete, cut, insert, swap, duplicate, renumber, rebuild, move_head,
    damage_a_checkpoint, *OF_ROWS,
)  # fmt: skip


async def alter_and_judge(copy: Copy, times: int) -> None:
    seed = int(os.environ.get("TAMPERING_SEED") or random.SystemRandom().randrange(2**32))
    choose = random.Random(seed)
    db = copy.open()
    assert await copy.findings(copy.anchors) == []
    for number in range(times):
        alteration = ALTERATIONS[number % len(ALTERATIONS)]
        db.execute("BEGIN IMMEDIATE")
        alteration(db, choose)
        db.execute("COMMIT")
        # What was done to the log shows without looking at the rows.
        found = await copy.findings(copy.anchors, state=alteration in OF_ROWS)
        assert found, f"{alteration.__name__} was not found; seed {seed}, alteration {number}"
        copy.restore(db)
    assert await copy.findings(copy.anchors) == []
    db.close()


@pytest.mark.timeout(600)
async def test_a_thousand_random_alterations_are_all_found(copy: Copy) -> None:
    await alter_and_judge(copy, 1000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_ten_thousand_random_alterations_are_all_found(copy: Copy) -> None:
    await alter_and_judge(copy, 10_000)


async def test_an_older_database_is_found_by_its_anchor(copy: Copy) -> None:
    db = copy.open()
    copy.older_database.backup(db)
    db.close()
    assert await copy.findings([]) == [], "it is whole, as far as it goes"
    assert any("anchor 20" in text and "seen 20" in text for text in await copy.findings(copy.anchors))


async def test_an_anchor_that_was_replaced_is_found(copy: Copy) -> None:
    stranger = Copy(copy._file.with_name("other.db"))
    await stranger.make()
    await stranger.database.close()
    held = copy.anchors[-1]
    other = stranger.anchors[-1]
    assert any("does not verify" in text for text in await copy.findings([other]))
    body = notes.checkpoint_body(ORIGIN, 20, bytes(32))
    forged = Held("anchor", notes.sign_with(body, copy.verifier, copy.key.sign(body.encode())))
    assert any("was anchored" in text for text in await copy.findings([held, forged]))
    for place in range(0, len(held.note), 7):
        damaged = held.note[:place] + chr(ord(held.note[place]) ^ 1) + held.note[place + 1 :]
        assert await copy.findings([Held("anchor", damaged)]), place
