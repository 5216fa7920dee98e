"""The log as a file that anybody can verify: JSON lines, `docs/formats.md`, "Export".

A header, then every record in the order of the log, and each checkpoint after the last record that it covers, then an
end. `verify_file` judges it with nothing but public keys: no database, no HSM, no vault.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core.verification import Report, Verification
from vault.crypto import merkle
from vault.crypto.errors import CryptoError, FormatError
from vault.errors import Reason, VaultError
from vault.store import audit
from vault.store.archives import first_sequence
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from vault.model import Checkpoint
    from vault.store.engine import Database

FORMAT = "strongroom/audit-export/v1"

COLUMNS = (
    "sequence", "id", "created_at", "tenant", "user_id", "action_type", "resource", "outcome", "reason",
    "ip_address", "device_id", "request_id", "token_id", "session_id", "before_state", "after_state",
    "rows_written", "leaf_hash",
)  # fmt: skip
"""The members of a record, as the columns of `audit_records` are called."""

_PAGE = 2000
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are there once: of two, one reader would take the first and another the last."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


_loads = json.JSONDecoder(object_pairs_hook=_once).decode


class Header(NamedTuple):
    """What an export is of: the log's origin, its verifier keys, and the frontier before its first record."""

    origin: str
    verifier_keys: tuple[str, ...]
    start: merkle.Frontier


class Source(NamedTuple):
    """A log of so many records to be exported: its records in pages, and its checkpoints, in the order of the log."""

    size: int
    header: Header
    records: AsyncIterator[Sequence[Mapping[str, Any]]]
    checkpoints: AsyncIterator[Checkpoint]


async def of_database(database: Database, origin: str, keys: Iterable[str]) -> Source:
    """The log in a database, up to its newest checkpoint; to its head if there is none.

    If its beginning is archived, from where the archive ends. Raises `STORED_DATA_DAMAGED`.
    """
    async with database.read() as connection:
        newest = await audit.latest_checkpoint(connection)
        size = newest.size if newest else (await read_head(connection)).size
        first = await first_sequence(connection)
        cut = await audit.get_checkpoint(connection, first)
    return part_of(database, Header(origin, tuple(keys), frontier_at(first, cut)), size)


def part_of(database: Database, header: Header, end: int) -> Source:
    """The log in a database from where the header says to before `end`, with the checkpoints within."""
    first = header.start.size
    return Source(
        end,
        header,
        audit.stream_rows(database, first, end),
        audit.stream_checkpoints(database, end, after=first),
    )


def frontier_at(size: int, checkpoint: Checkpoint | None) -> merkle.Frontier:
    """The tree of the first `size` records, by the checkpoint of that size. Raises `STORED_DATA_DAMAGED`."""
    with contextlib.suppress(CryptoError):
        if not size:
            return merkle.EMPTY
        if checkpoint is not None:
            return merkle.decode_frontier(checkpoint.frontier)
    raise VaultError(
        Reason.STORED_DATA_DAMAGED, f"the log begins with record {size}, and no checkpoint stands there"
    )


async def pages(source: Source) -> AsyncIterator[tuple[int, str]]:
    """An export in pieces: how many records were written by then, and the next whole lines."""
    size = source.header.start.size
    yield size, header_line(source.header)
    waiting = await anext(source.checkpoints, None)
    async for rows in source.records:
        written = []
        for row in rows:
            written.append(record_line(audit.readable(row)))
            size += 1
            while waiting is not None and waiting.size <= size:
                written.append(checkpoint_line(waiting.size, waiting.note, waiting.frontier))
                waiting = await anext(source.checkpoints, None)
        yield size, "".join(written)
    yield size, end_line(size)


def header_line(header: Header) -> str:
    """The first line."""
    return _line(
        {
            "format": FORMAT,
            "origin": header.origin,
            "verifier_keys": list(header.verifier_keys),
            "start": merkle.encode_frontier(header.start).hex(),
        }
    )


def checkpoint_line(size: int, note: str, frontier: bytes) -> str:
    """A checkpoint's line, which follows that of the last record it covers."""
    return _line({"checkpoint": {"size": size, "note": note, "frontier": frontier.hex()}})


def end_line(size: int) -> str:
    """The last line."""
    return _line({"end": {"size": size}})


def record_line(row: Mapping[str, Any]) -> str:
    """A record's line. Moments in RFC 3339 with microseconds, bytes in hexadecimal."""
    record = {name: row[name] for name in COLUMNS}
    record["created_at"] = row["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record["leaf_hash"] = row["leaf_hash"].hex()
    return _line({"record": record})


class Page(NamedTuple):
    """Records of an export, as their rows were."""

    rows: list[dict[str, Any]]


class Signed(NamedTuple):
    """A checkpoint of an export."""

    size: int
    note: str
    frontier: bytes


class End(NamedTuple):
    """The end of an export, and the size that the log had."""

    size: int


def read(text: Iterable[str]) -> Iterator[Header | Page | Signed | End]:
    """What an export holds: one header, then pages and checkpoints in the order of the log, then one end.

    Raises `FormatError` for what is not of this form. An export that was cut lacks its end.
    """
    numbered = enumerate(text, 1)
    yield _header(parse(*next(numbered, (1, "{}"))))
    page: list[dict[str, Any]] = []
    for number, line in numbered:
        item = parse(number, line)
        match item:
            case {"record": dict(record)}:
                page.append(record_of(number, record))
                if len(page) < _PAGE:
                    continue
                found: Signed | End | None = None
            case {"checkpoint": {"size": int(size), "note": str(note), "frontier": str(frontier)}}:
                found = Signed(size, note, _hex(frontier))
            case {"end": {"size": int(size)}}:
                found = End(size)
            case _:
                raise FormatError(f"line {number}: neither a record nor a checkpoint")
        if page:
            yield Page(page)
            page = []
        if found is not None:
            yield found
    if page:
        yield Page(page)


def verify_file(
    text: Iterable[str],
    keys: Iterable[str],
    *,
    origin: str = "",
    anchors: Iterable[tuple[str, str]] = (),
    watch: Callable[[int], None] = lambda _records: None,
) -> Report:
    """Judge an export by the public keys of its checkpoints, and by anchored notes as (name, note).

    What the header says is believed of nothing but where the log begins, and that is held against the first
    checkpoint; without `origin` the keys' own name is it. `watch` is told how many records were read so far. Raises
    `FormatError` for what is no export at all; what is wrong with one is a finding.
    """
    keys = tuple(keys)
    if not keys:
        raise FormatError("an export is verified by at least one public key")
    report = Report()
    items = read(text)
    header = next(items)
    assert isinstance(header, Header)
    verification = Verification(origin or keys[0].partition("+")[0], keys, report, start=header.start)
    for name, note in anchors:
        verification.anchor(name, note)
    end: int | None = None
    for item in items:
        if end is not None:
            report.find("something follows the end of the file")
            break
        match item:
            case Page(rows):
                verification.take(rows)
                watch(report.records)
            case Signed():
                verification.checkpoint(*item)
            case End(size):
                end = size
    if end is None:
        report.find("the file has no end: it was cut")
    if report.records and not report.signed_size:
        report.find("no checkpoint that verifies: no key vouches for these records")
    verification.finish(verification.frontier.size if end is None else end)
    return report


def _line(value: Mapping[str, Any]) -> str:
    return _dumps(value) + "\n"


def parse(number: int, line: str) -> dict[str, Any]:
    """The object on a line. Raises `FormatError`."""
    try:
        item = _loads(line)
    except json.JSONDecodeError:
        raise FormatError(f"line {number}: not JSON") from None
    except ValueError as error:
        raise FormatError(f"line {number}: {error}") from None
    except RecursionError:
        raise FormatError(f"line {number}: nested too deep") from None
    if not isinstance(item, dict):
        raise FormatError(f"line {number}: not an object")
    return item


def _header(item: Mapping[str, Any]) -> Header:
    match item:
        case {"format": "strongroom/audit-export/v1", "origin": str(origin), "verifier_keys": list(keys)}:
            return Header(origin, tuple(keys), merkle.decode_frontier(_hex(item.get("start", ""))))
    raise FormatError(f"not an export in the form {FORMAT}")


def record_of(number: int, record: dict[str, Any]) -> dict[str, Any]:
    """A record as its row was, from the line of this number. Raises `FormatError` for what cannot have been one."""
    try:
        if record.keys() != _KEYS or type(record["sequence"]) is not int:
            raise FormatError(f"line {number}: not the members of a record")
        record["created_at"] = datetime.datetime.fromisoformat(record["created_at"])
        record["leaf_hash"] = bytes.fromhex(record["leaf_hash"])
        if record["created_at"].tzinfo is None:
            raise FormatError(f"line {number}: a moment without a zone")
        "".join(map(record.__getitem__, _TEXTS)).encode()
    except (TypeError, ValueError):
        raise FormatError(f"line {number}: not the values of a record") from None
    return record


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise FormatError("not hexadecimal") from None


_KEYS = set(COLUMNS)
_TEXTS = tuple(name for name in COLUMNS if name not in ("sequence", "created_at", "leaf_hash"))
