"""An archive of the log: a file with its records from one checkpoint to another, and a signed statement about it.

The file is an export (`export.py`) that begins where the archive before it ends. The statement says which records it
holds, by what digest, and everything that whoever goes on after it must know: the frontier of the tree, and the keys of
checkpoints that the log had introduced by then. So the rest of the log verifies without the file, and the file without
the rest. `docs/formats.md`, "Archive".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from vault.core import evidence, export, statements
from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError, FormatError
from vault.store.audit import BENEATH
from vault.store.engine import in_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from vault.core.verification import Verification
    from vault.model import AuditQuery

FORMAT = "strongroom/audit-archive/v1"
_NAME = re.compile(r"audit-([0-9]{20})-([0-9]{20})\.jsonl")
SUFFIX = ".archive"
"""Of the file that holds the statement, beside the records' own."""


class Archive(NamedTuple):
    """What a statement says of an archive."""

    origin: str
    first: int
    end: int
    frontier: merkle.Frontier
    """Of the tree of the log's first `end` records."""
    since: str
    until: str
    """When its first and its last record were made: RFC 3339."""
    file: str
    sha256: str
    size_bytes: int
    keys: tuple[str, ...]
    """The verifier keys that the log had introduced by its end."""


def file_name(first: int, end: int) -> str:
    """What an archive's file is called, so that names sort as the log does."""
    return f"audit-{first:020}-{end:020}.jsonl"


def values(archive: Archive) -> dict[str, Any]:
    """A statement's members, as JSON has them."""
    return {
        **archive._asdict(),
        "frontier": merkle.encode_frontier(archive.frontier).hex(),
        "keys": list(archive.keys),
    }


def text(archive: Archive) -> str:
    """The text that is signed."""
    return statements.text(FORMAT, values(archive))


def verify(note: str, keys: Iterable[str]) -> Archive:
    """What a signed statement says. Raises `FormatError`, `IntegrityError` unless one of these keys signed it."""
    return _parse(notes.verify_note(note, keys))


def claims(note: str) -> Archive:
    """What a statement says, whoever signed it: to be shown, not believed. Raises `FormatError`."""
    return _parse(note.partition("\n\n")[0])


def _parse(body: str) -> Archive:
    found = statements.values(FORMAT, body)
    try:
        found["frontier"] = merkle.decode_frontier(bytes.fromhex(found["frontier"]))
        found["keys"] = tuple(found["keys"])
        archive = Archive(**found)
    except (ValueError, TypeError, KeyError):
        raise FormatError("not a statement about an archive") from None
    if archive.frontier.size != archive.end or archive.file != file_name(archive.first, archive.end):
        raise FormatError("not a statement about an archive")
    return archive


def read_folder(folder: Path) -> list[tuple[str, str]]:
    """The statements in a folder as (name, note), in the order of the log."""
    return [(path.name, path.read_text(errors="replace")) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def replay(
    folder: Path,
    archive: Archive,
    verification: Verification,
    take: Callable[[Sequence[Mapping[str, Any]]], object],
) -> None:
    """Have an archive's file judged by a verification that has come to its beginning. `take` gets its records."""
    report, path = verification.report, folder / archive.file
    name = f"archive {archive.file}"
    if not path.is_file():
        report.find(f"{name}: it is missing")
        verification.missing(archive.end)
        return
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            items = export.read(_lines(file, digest))
            header = next(items)
            if not isinstance(header, export.Header) or header.start != verification.frontier:
                report.find(f"{name}: it does not begin where the log before it ends")
            for item in items:
                match item:
                    case export.Page(found):
                        take(found)
                    case export.Signed():
                        verification.checkpoint(*item)
                    case export.End(size) if size != archive.end:
                        report.find(f"{name}: it ends at {size}, not at {archive.end}")
    except (OSError, CryptoError) as error:
        report.find(f"{name}: {error}")
    if digest.hexdigest() != archive.sha256:
        report.find(f"{name}: it is not the file that was sealed")
    verification.missing(archive.end)


def verify_folder(
    folder: Path,
    keys: Sequence[str],
    verification: Verification,
    watch: Callable[[int], None] = lambda _records: None,
) -> int:
    """Judge every archive of a folder with nothing but public keys; how many there are.

    A later statement may be signed by a key that the records before it introduce.
    """
    count = 0

    def take(found: Sequence[Mapping[str, Any]]) -> None:
        verification.take(found)
        watch(verification.report.records)

    for name, note in read_folder(folder):
        try:
            archive = verify(note, (*keys, *verification.learned))
        except CryptoError as error:
            verification.report.find(f"{name}: {error}")
            continue
        count += 1
        if archive.first > verification.next:
            verification.missing(archive.first)
        replay(folder, archive, verification, take)
    return count


def search(path: Path, query: AuditQuery) -> Iterator[dict[str, Any]]:
    """The records of an archive, or of a folder of them, that meet every condition, in the order of the log.

    What is found is shown as it is in the file; that the file is whole, `verify_folder` says. Raises `FormatError`.
    """
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        with file.open(encoding="utf-8", errors="surrogateescape") as lines:
            for item in export.read(lines):
                if isinstance(item, export.Page):
                    yield from (row for row in item.rows if _meets(row, query))


def prove(path: Path, sequence: int) -> str:
    """The proof that a record is in the log, to the checkpoint at its archive's end, from the file alone.

    Its form is that of `evidence.inclusion_text`; so it says nothing that need be believed. Raises `FormatError`.
    """
    file = _holding(path, sequence)
    end = _range(file)[1]
    spans = sorted(merkle.inclusion_path(sequence, end))
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        items = export.read(lines)
        header = next(items)
        assert isinstance(header, export.Header)
        parts = {span: merkle.frontier_within(header.start, span) for span in spans}
        found: dict[str, Any] | None = None
        note, at = "", 0
        for item in items:
            match item:
                case export.Page(rows):
                    for row in rows:
                        if row["sequence"] == sequence:
                            found = row
                            continue
                        while row["sequence"] >= spans[at].end:
                            at += 1
                        parts[spans[at]] = parts[spans[at]].append(row["leaf_hash"])
                case export.Signed():
                    note = item.note
    if found is None or any(part.size != span.end - span.first for span, part in parts.items()):
        raise FormatError("this archive is not whole")
    order = merkle.inclusion_path(sequence, end)
    return evidence.inclusion_text(found, [parts[span].root() for span in order], note)


def _holding(path: Path, sequence: int) -> Path:
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        first, end = _range(file)
        if first <= sequence < end:
            return file
    raise FormatError("no archive here holds this record")


def _range(file: Path) -> tuple[int, int]:
    """From which record to before which an archive goes, by its name."""
    name = _NAME.fullmatch(file.name)
    if name is None:
        raise FormatError(f"{file.name} is not the name of an archive")
    return int(name[1]), int(name[2])


def _meets(row: Mapping[str, Any], query: AuditQuery) -> bool:
    """The conditions of `store.audit.list_records`, on a row of a file."""
    equal = {
        "tenant": query.tenant,
        "user_id": query.identity,
        "action_type": query.action,
        "device_id": query.device_id,
        "outcome": query.outcome.value if query.outcome else "",
    }
    if any(wanted and row[name] != wanted for name, wanted in equal.items()):
        return False
    if query.resource.endswith(BENEATH):
        if not row["resource"].startswith(query.resource.removesuffix("**")):
            return False
    elif query.resource and row["resource"] != query.resource:
        return False
    if query.network and not in_network(row["ip_address"], query.network):
        return False
    since, until = query.start_time, query.end_time
    return (since is None or row["created_at"] >= since) and (until is None or row["created_at"] < until)


def _lines(file: Iterable[bytes], digest: Any) -> Iterator[str]:
    for line in file:
        digest.update(line)
        yield line.decode(errors="surrogateescape")
