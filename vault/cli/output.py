"""How results are shown: a table for people, JSON for programs. Never a secret unless it was asked for."""

from __future__ import annotations

import enum
import json
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message


_WIDTH_OF_A_FILE = 10_000
_GAP = "  "


class Format(enum.StrEnum):
    """How to show results."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    Format, typer.Option("--output", "-o", envvar="STRONGROOM_OUTPUT", help="How to show the result.")
]


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON would have it, with the field names of the proto."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def show(output: Format, message: Message) -> None:
    """Show one thing."""
    show_dict(output, as_dict(message))


def show_dict(output: Format, values: dict[str, Any]) -> None:
    """Show one thing."""
    if output is Format.JSON:
        print(json.dumps(values, indent=2))
        return
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        if text := _text(value):
            print(f"{key.replace('_', ' '):<{width}}  {text}")


def show_line(output: Format, message: Message, columns: Sequence[str]) -> None:
    """Show one of things that come one by one, on a line of its own: all of it as JSON, else these columns."""
    row = as_dict(message)
    line = json.dumps(row) if output is Format.JSON else "  ".join(_text(row[name]) for name in columns)
    print(line, flush=True)


def show_all(output: Format, messages: Iterable[Message], columns: Sequence[str]) -> None:
    """Show a list: all of it as JSON, these columns as a table."""
    show_rows(output, [as_dict(message) for message in messages], columns)


def show_rows(output: Format, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Show a list of plain values: all of them as JSON, these columns as a table.

    On a screen that is too narrow for the table each row is a paragraph. Where there is no screen, a row is a line.
    """
    if output is Format.JSON:
        print(json.dumps(rows, indent=2))
        return
    heads = [column.replace("_", " ") for column in columns]
    texts = [[_text(row.get(column, "")) for column in columns] for row in rows]
    if sys.stdout.isatty() and _width(heads, texts) > shutil.get_terminal_size().columns:
        paragraphs = (
            "\n".join(_line(head, text, heads) for head, text in zip(heads, row, strict=True) if text)
            for row in texts
        )
        print("\n\n".join(paragraphs))
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only tables need it
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in texts:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    Console(width=width, soft_wrap=not rows, highlight=False).print(table)


def _width(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    columns = zip(heads, *rows, strict=True)
    return sum(max(map(len, column)) for column in columns) + len(_GAP) * (len(heads) - 1)


def _line(head: str, text: str, heads: Sequence[str]) -> str:
    return f"{head:<{max(map(len, heads))}}{_GAP}{text}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    text = "" if value is None else str(value)
    for prefix in (
        "STANDING_",
        "CREDENTIAL_CHANGE_",
        "CREDENTIAL_STATE_",
        "VERSION_STATE_",
        "KEY_STATE_",
        "KEY_PURPOSE_",
        "KEY_PLACEMENT_",
        "JOB_KIND_",
        "JOB_STATE_",
        "OUTCOME_",
        "APPROVAL_STATE_",
        "THREAT_STATE_",
        "CLOSE_REASON_",
        "WEBHOOK_VERDICT_",
    ):
        if text.startswith(prefix):
            # The value 0 of an enumeration: there is none.
            return text.removeprefix(prefix).removesuffix("UNSPECIFIED")
    return text
