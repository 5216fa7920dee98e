"""Where an import comes from: KV version 2, a `.env` file on stdin, JSON lines on stdin. Nothing touches a disk."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vault.crypto.memory import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hsm.kv import KvReader

_LINE = re.compile(
    rb"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>(?!['"])[^\r\n]*?))
    [ \t]*(?:(?<=[ \t'"])\#[^\r\n]*)?(?:\r?\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(rb"[ \t]*(?:#[^\r\n]*)?(?:\r?\n|\Z)")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_BOM = b"\xef\xbb\xbf"
_MAX_STDIN = 64 * 1024 * 1024


class SourceError(Exception):
    """A source cannot be read: what is wrong and where, never what stands there."""


@dataclass(frozen=True)
class Item:
    """One thing to import. `fields` are the caller's to wipe; None: gone at the source, or no value there."""

    path: str
    version: str
    fields: Mapping[str, bytearray | None] | None = field(repr=False)

    def close(self) -> None:
        """Wipe the fields."""
        for value in filter(None, (self.fields or {}).values()):
            wipe(value)


@dataclass(frozen=True)
class Source:
    """A source: what it is called in request ids, and its items, each read when it is asked for."""

    name: str
    items: Iterator[Callable[[], Item]]


def from_kv(reader: KvReader, prefix: str) -> Source:
    """Every secret under a folder of a KV version 2 mount."""

    def later(path: str) -> Callable[[], Item]:
        def read() -> Item:
            found = reader.read(path)
            return Item(path, str(found.version), found.fields) if found else Item(path, "", None)

        return read

    return Source(reader.source, (later(path) for path in reader.paths(prefix)))


def from_env(path: str) -> Source:
    """The variables of a `.env` file on stdin, as the fields of one item. Raises `SourceError`."""
    content = _read_stdin()
    try:
        fields = parse_env(content)
    finally:
        wipe(content)
    return Source("env", iter((lambda: Item(path, "", fields),)))


def from_json_lines() -> Source:
    """Lines `{"path": ..., "fields": {...}}` on stdin."""

    def items() -> Iterator[Callable[[], Item]]:
        for number, line in enumerate(sys.stdin.buffer, 1):
            if line.strip():
                item = _item_of(number, line)
                yield lambda item=item: item  # type: ignore[misc]

    return Source("json-lines", items())


def parse_env(content: bytes | bytearray) -> dict[str, bytearray]:
    r"""The variables of a `.env` file: comments, `export`, 'single' (as it is) and "double" quotes (with \n \r \t).

    Values may span lines within quotes; nothing is interpolated. Raises `SourceError` that names the line.
    """
    fields: dict[str, bytearray] = {}
    at = len(_BOM) if content.startswith(_BOM) else 0
    while at < len(content):
        if blank := _BLANK.match(content, at):
            at = blank.end()
            continue
        found = _LINE.match(content, at)
        if found is None:
            raise SourceError(f"line {content.count(10, 0, at) + 1}: not NAME=VALUE")
        double = found["double"]
        value = found["single"] if double is None else _unescape(double)
        name = found["name"].decode()
        if name in fields:
            wipe(fields[name])
        fields[name] = bytearray(found["bare"] if value is None else value)
        at = found.end()
    return fields


def _unescape(value: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), value)


def _item_of(number: int, line: bytes) -> Item:
    try:
        document = json.loads(line, object_pairs_hook=_once)
        path, fields = document["path"], document["fields"]
        if not isinstance(path, str) or set(document) != {"path", "fields"}:
            raise ValueError  # noqa: TRY301 - the same answer for all that is wrong
        values = {str(name): bytearray(value.encode()) for name, value in fields.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        form = '{"path": "...", "fields": {"name": "text"}}, no name twice'
        raise SourceError(f"line {number}: not {form}") from None
    return Item(path, "", values)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON in which no name stands twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _read_stdin() -> bytearray:
    content = bytearray()
    while part := os.read(sys.stdin.fileno(), 65_536):
        content += part
        if len(content) > _MAX_STDIN:
            raise SourceError(f"more than {_MAX_STDIN} bytes on stdin")
    return content
