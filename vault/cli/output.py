"""How results are shown: a table for people, JSON for programs. Never a secret unless it was asked for."""

from __future__ import annotations

import enum
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message


_WIDTH_OF_A_FILE = 10_000


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
        if value not in ("", [], {}, None):
            print(f"{key.replace('_', ' '):<{width}}  {_text(value)}")


def show_line(output: Format, message: Message, columns: Sequence[str]) -> None:
    """Show one of things that come one by one, on a line of its own: all of it as JSON, else these columns."""
    row = as_dict(message)
    line = json.dumps(row) if output is Format.JSON else "  ".join(_text(row[name]) for name in columns)
    print(line, flush=True)


def show_all(output: Format, messages: Iterable[Message], columns: Sequence[str]) -> None:
    """Show a list: all of it as JSON, these columns as a table."""
    show_rows(output, [as_dict(message) for message in messages], columns)


def show_rows(output: Format, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Show a list of plain values: all of them as JSON, these columns as a table."""
    if output is Format.JSON:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only tables need it
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    # Where nobody looks at a screen, a row is a line.
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    Console(width=width, soft_wrap=not rows).print(table)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    text = str(value)
    for prefix in (
        "STANDING_",
        "CREDENTIAL_CHANGE_",
        "CREDENTIAL_STATE_",
        "VERSION_STATE_",
        "KEY_STATE_",
        "KEY_PURPOSE_",
        "JOB_KIND_",
        "JOB_STATE_",
        "OUTCOME_",
        "APPROVAL_STATE_",
        "THREAT_STATE_",
        "CLOSE_REASON_",
        "WEBHOOK_VERDICT_",
    ):
        text = text.removeprefix(prefix)
    return text
