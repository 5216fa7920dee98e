"""How secrets come in: from a file, stdin or a prompt, never from an argument, which others can see."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

import typer

MAX_INT32 = 2**31 - 1
"""The largest number that most messages hold."""


def read_text(file: Path) -> str:
    """What a file of text holds. Raises `typer.BadParameter` if it is none."""
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not a file of text") from None


def read_fields(specs: list[str], document: Path | None) -> dict[str, bytes]:
    """Fields from `NAME` (prompt), `NAME=@FILE`, `NAME=-` (stdin), and a JSON object in a file (`-`: stdin)."""
    fields: dict[str, bytes] = {}
    if document is not None:
        fields.update(_read_document(document))
    for spec in specs:
        name, given, source = spec.partition("=")
        if not given:
            value = getpass.getpass(f"{name}: ").encode()
        elif source == "-":
            value = sys.stdin.buffer.read().removesuffix(b"\n")
        elif source.startswith("@"):
            value = Path(source[1:]).read_bytes().removesuffix(b"\n")
        else:
            raise typer.BadParameter(
                f"--field {name}: a value on the command line can be seen by others; "
                f"use {name}=@FILE, {name}=- for stdin, or {name} alone to be asked"
            )
        fields[name] = value
    if not fields:
        raise typer.BadParameter("give at least one --field, or --fields FILE")
    return fields


def read_pairs(pairs: list[str], separator: str, option: str) -> dict[str, str]:
    """`name<separator>value` pairs, which are not secret."""
    result = {}
    for pair in pairs:
        name, found, value = pair.partition(separator)
        if not found:
            raise typer.BadParameter(f"{option}: must be NAME{separator}VALUE")
        result[name.strip()] = value.strip()
    return result


def _read_document(document: Path) -> dict[str, bytes]:
    data = sys.stdin.buffer.read() if str(document) == "-" else document.read_bytes()
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise typer.BadParameter("--fields: not JSON") from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise typer.BadParameter("--fields: must be a JSON object of strings")
    try:
        return {name: value.encode() for name, value in values.items()}
    except UnicodeEncodeError:
        raise typer.BadParameter("--fields: holds half a character (a lone surrogate)") from None
