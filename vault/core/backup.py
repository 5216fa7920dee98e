"""Backups: the whole database of one moment, encrypted, in one file that shows whether it is whole.

The file (`docs/formats.md`, "Backup"): a header with the wrapped data key, chunks of ciphertext, and a manifest that
is signed in the HSM like a checkpoint. Whoever has the public key sees, without the HSM, that the file is whole and
whose it is; with the HSM it opens. What the database holds encrypted stays so within: a backup holds no secret that
the HSM's keys do not protect, and what they no longer open, no backup opens.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from hsm import KeyRef
from vault.clock import UTC, micros
from vault.core import statements
from vault.core.checkpoint_keys import public_verifier
from vault.core.hsm import Unwrapping, Wrapping
from vault.crypto import notes, suites
from vault.crypto.chunks import CHUNK_BYTES, Chunks
from vault.crypto.encoding import encode
from vault.crypto.envelope import new_dek
from vault.crypto.errors import FormatError, IntegrityError
from vault.model import SYSTEM_TENANT, Key, KeyPurpose, KeyState
from vault.store import audit, backup
from vault.store.keys import key_from
from vault.store.ledger import read_head
from vault.store.rows import COLUMNS, canonical_json
from vault.store.schema import wanted_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.store.engine import Database
    from vault.store.rows import Row

MAGIC = b"strongroom-backup\n"
FORMAT = 1
_SIGNED_AS = "strongroom/backup/v1"
_MAX_HEADER = 65_536
_MAX_SEALED = CHUNK_BYTES + 16
_LAST = 1 << 31
_PAGE = 500


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself, signed."""

    note: str = field(repr=False)
    digest: str
    schema: str
    create_time: str
    rows: dict[str, int]
    log_size: int
    log_root: str
    checkpoint: str


@dataclass(frozen=True)
class Header:
    """How a backup is encrypted: the suite, and the data key with the HSM key that wraps it."""

    suite: int
    schema: str
    key: Key
    wrapped_key: bytes = field(repr=False)
    encoded: bytes = field(repr=False)

    @property
    def bound(self) -> bytes:
        """What every chunk is bound to."""
        return hashlib.sha256(self.encoded).digest()


class Page(NamedTuple):
    """Some rows of a table, each with its values in the order of the columns."""

    table: str
    columns: list[str]
    rows: list[list[Any]]

    def whole_rows(self) -> Iterator[Row]:
        """The rows by column, with None for columns that came after the backup."""
        for values in self.rows:
            yield dict.fromkeys(COLUMNS[self.table]) | dict(zip(self.columns, values, strict=True))


class _Digesting:
    """A file of which everything that passes is hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes. Raises `FormatError`."""
        data = b""
        try:
            while len(data) < size and (part := self._file.read(size - len(data))):
                data += part
        except OSError as error:
            raise FormatError(f"the backup cannot be read: {error.strerror}") from None
        if len(data) < size:
            raise FormatError("the backup is cut short")
        self._hash.update(data)
        return data

    def at_end(self) -> bool:
        return not self._file.read(1)

    def digest(self) -> str:
        return self._hash.hexdigest()


async def create(
    database: Database,
    hsm: Hsm,
    keyring: Keyring,
    attest: Callable[[str], Awaitable[str]],
    file: IO[bytes],
    now: datetime.datetime,
) -> Manifest:
    """Write a backup of the whole database as it is at one moment. Memory stays flat. `attest` signs the manifest.

    Raises `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE`, `OSError`.
    """
    suite = suites.current()
    out = _Digesting(file)
    counts: Counter[str] = Counter()
    wrapping = await keyring.active(SYSTEM_TENANT, KeyPurpose.BACKUP)
    with new_dek() as data_key:
        wrapped = await hsm.wrap(Wrapping(wrapping, data_key, _aad(suite.number, wrapping)))
        header = _header(suite.number, wanted_revision(), wrapping, wrapped)
        out.write(MAGIC + len(header.encoded).to_bytes(4, "big") + header.encoded)
        chunks = Chunks(suite, data_key, header.bound)
    try:
        async with database.snapshot() as connection:
            head = await read_head(connection)
            checkpoint = await audit.latest_checkpoint(connection)
            pending = bytearray()
            async for text in _text(backup.tables(connection), counts):
                pending += text
                while len(pending) > CHUNK_BYTES:
                    _write_chunk(out, chunks, bytes(pending[:CHUNK_BYTES]), last=False)
                    del pending[:CHUNK_BYTES]
            _write_chunk(out, chunks, bytes(pending), last=True)
    finally:
        chunks.close()
    values = {
        "digest": out.digest(),
        "schema": header.schema,
        "create_time": now.isoformat(),
        "rows": dict(counts),
        "log_size": head.size,
        "log_root": head.frontier.root().hex(),
        "checkpoint": checkpoint.note if checkpoint else "",
    }
    body = statements.text(_SIGNED_AS, values)
    note = await attest(body)
    encoded = note.encode()
    out.write(len(encoded).to_bytes(4, "big") + encoded)
    return _manifest(note, body)


def check(file: IO[bytes], keys: Iterable[str]) -> Manifest:
    """Verify a backup without the HSM: its form, that it is whole, and that one of these keys signed it.

    Raises `FormatError`, `IntegrityError`.
    """
    source = _Digesting(file)
    _read_header(source)
    for _chunk, _last in _sealed_chunks(source):
        pass
    return _read_manifest(source, source.digest(), keys)


class Contents:
    """What lies in a backup, read once from its beginning to its end: the rows, then what its manifest vouches for.

    The rows are those that somebody with the HSM's key wrote; that they are all, and whose, is known with the manifest.
    """

    def __init__(self, source: _Digesting, header: Header, chunks: Chunks, hsm: Hsm) -> None:
        self.schema = header.schema
        self._source = source
        self._chunks = chunks
        self._hsm = hsm
        self._counts: Counter[str] = Counter()
        self._checkpoint_keys: list[Key] = []

    async def pages(self) -> AsyncIterator[Page]:
        """The rows in pages, each with its table and columns; at least one page a table.

        Raises `FormatError`, `IntegrityError`.
        """
        async for page in _pages(_lines(self._source, self._chunks)):
            self._counts[page.table] += len(page.rows)
            if page.table == "keys":
                self._checkpoint_keys += [key_from(row) for row in page.whole_rows() if _signs(row)]
            yield page

    async def manifest(self, origin: str, keys: Sequence[str]) -> Manifest:
        """What vouches for the pages, all of which must have been read.

        It must be signed by one of these keys; if none is given, by one that the HSM has and the rows say signed
        checkpoints. Raises `FormatError`, `IntegrityError`, `HSM_UNAVAILABLE`.
        """
        digest = self._source.digest()
        note = _read_note(self._source)
        trusted = keys or [await public_verifier(origin, self._hsm, key) for key in self._checkpoint_keys]
        manifest = _vouched(note, digest, trusted)
        if {name: count for name, count in manifest.rows.items() if count} != +self._counts:
            raise IntegrityError("the manifest counts other rows than the backup holds")
        return manifest


@contextlib.asynccontextmanager
async def opened(hsm: Hsm, file: IO[bytes]) -> AsyncIterator[Contents]:
    """A backup, opened with the HSM. Raises `FormatError`, `HSM_UNAVAILABLE`, `STORED_DATA_DAMAGED`."""
    source = _Digesting(file)
    header = _read_header(source)
    unwrapping = Unwrapping(header.key, header.wrapped_key, _aad(header.suite, header.key))
    with await hsm.unwrap(unwrapping) as data_key:
        chunks = Chunks(suites.suite(header.suite), data_key, header.bound)
    with contextlib.closing(chunks):
        yield Contents(source, header, chunks, hsm)


async def _text(tables: AsyncIterator[backup.TableRows], counts: Counter[str]) -> AsyncIterator[bytes]:
    """Every row of the database as a line, behind a line for its table."""
    async for name, columns, pages in tables:
        yield _line({"table": name, "columns": columns})
        async for rows in pages:
            counts[name] += len(rows)
            yield b"".join(encode_values(row) for row in rows)


def _header(suite: int, schema: str, key: Key, wrapped: bytes) -> Header:
    values = {
        "format": FORMAT,
        "suite": suite,
        "schema": schema,
        "backend": key.backend,
        "key_version": key.version,
        "key_label": key.label,
        "key_id": key.object_id.hex(),
        "wrapped_key": wrapped.hex(),
    }
    return Header(suite, schema, key, wrapped, canonical_json(values).encode())


def _read_header(source: _Digesting) -> Header:
    if source.read(len(MAGIC)) != MAGIC:
        raise FormatError("not a backup")
    size = int.from_bytes(source.read(4), "big")
    if size > _MAX_HEADER:
        raise FormatError("not a backup")
    encoded = source.read(size)
    try:
        values = json.loads(encoded)
        if values["format"] != FORMAT:
            raise FormatError("a backup in a form that this version does not know")
        key = Key(
            tenant=SYSTEM_TENANT,
            purpose=KeyPurpose.BACKUP,
            version=int(values["key_version"]),
            state=KeyState.ACTIVE,
            algorithm="AES-256",
            backend=str(values["backend"]),
            label=KeyRef(str(values["key_label"]), bytes.fromhex(values["key_id"])).label,
            object_id=bytes.fromhex(values["key_id"]),
            create_time=datetime.datetime.fromtimestamp(0, UTC),
            created_by="",
        )
        schema, wrapped = str(values["schema"]), bytes.fromhex(values["wrapped_key"])
        return Header(suites.suite(values["suite"]).number, schema, key, wrapped, encoded)
    except (ValueError, KeyError, TypeError):
        raise FormatError("the backup's header is not one") from None


def _write_chunk(out: _Digesting, chunks: Chunks, chunk: bytes, *, last: bool) -> None:
    sealed = chunks.seal(chunk, last=last)
    out.write((len(sealed) | (_LAST if last else 0)).to_bytes(4, "big") + sealed)


def _sealed_chunks(source: _Digesting) -> Iterator[tuple[bytes, bool]]:
    last = False
    while not last:
        head = int.from_bytes(source.read(4), "big")
        size, last = head & ~_LAST, bool(head & _LAST)
        if size > _MAX_SEALED:
            raise FormatError("a chunk is too long")
        yield source.read(size), last


def _lines(source: _Digesting, chunks: Chunks) -> Iterator[bytes]:
    """The plaintext, in whole lines."""
    rest = b""
    for sealed, last in _sealed_chunks(source):
        *lines, rest = (rest + chunks.open(sealed, last=last)).split(b"\n")
        yield from lines
    if rest:
        raise FormatError("the backup's last line is cut short")


async def _pages(lines: Iterator[bytes]) -> AsyncIterator[Page]:
    page = Page("", [], [])
    for line in lines:
        item = json.loads(line)
        if isinstance(item, dict):
            if page.table:
                yield page
            page = Page(item["table"], item["columns"], [])
        else:
            page.rows.append([_value(value) for value in item])
            if len(page.rows) >= _PAGE:
                yield page
                page = Page(page.table, page.columns, [])
    yield page


def _signs(row: Row) -> bool:
    of_checkpoints = (row["tenant"], row["purpose"]) == (SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
    return of_checkpoints and row["state"] != KeyState.PENDING


def _read_note(source: _Digesting) -> str:
    size = int.from_bytes(source.read(4), "big")
    if size > _MAX_HEADER:
        raise FormatError("the manifest is too long")
    try:
        note = source.read(size).decode()
    except UnicodeDecodeError:
        raise FormatError("the manifest is not text") from None
    if not source.at_end():
        raise FormatError("something follows the manifest")
    return note


def _read_manifest(source: _Digesting, digest: str, keys: Iterable[str]) -> Manifest:
    return _vouched(_read_note(source), digest, keys)


def _vouched(note: str, digest: str, keys: Iterable[str]) -> Manifest:
    manifest = _manifest(note, notes.verify_note(note, keys))
    if manifest.digest != digest:
        raise IntegrityError("the manifest is of another backup, or this one was altered")
    return manifest


def _manifest(note: str, body: str) -> Manifest:
    try:
        return Manifest(note=note, **statements.values(_SIGNED_AS, body))
    except TypeError:
        raise FormatError("the manifest is not one") from None


def _aad(suite: int, key: Key) -> bytes:
    return encode("strongroom/backup-key/v1", FORMAT, suite, key.label, key.version)


def encode_values(values: Sequence[Any]) -> bytes:
    """A row's values as a line of JSON."""
    return _line([_plain(value) for value in values])


def decode_values(line: bytes) -> list[Any]:
    """The values of such a line."""
    return [_value(value) for value in json.loads(line)]


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """A column's value as JSON has it: bytes and moments as objects of one member."""
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"t": micros(value)}
    return value


def _value(value: Any) -> Any:
    match value:
        case {"b": str(text)}:
            return base64.b64decode(text)
        case {"t": int(moment)}:
            return datetime.datetime.fromtimestamp(0, UTC) + datetime.timedelta(microseconds=moment)
    return value
