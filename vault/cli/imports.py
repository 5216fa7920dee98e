"""`strongroom import`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vault.cli import import_mapping
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.import_mapping import MappingError
from vault.cli.import_sources import SourceError, from_env, from_json_lines, from_kv
from vault.cli.output import Format, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault.cli.import_run import Line
    from vault.cli.import_sources import Source
    from vault.client import Client

app = typer.Typer(
    help="Bring credentials in from elsewhere. Nothing of them lies on a disk in the clear.",
    no_args_is_help=True,
)

T = TypeVar("T")

EXIT_NOT_ALL = 1
_AT_ONCE = 8
_CHUNK = 64

Mapping = Annotated[
    Path | None, typer.Option("--mapping", help="Which becomes which (TOML); see docs/operations.md.")
]
Kind = Annotated[str, typer.Option(help="The kind of all, if there is no mapping.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command()
def kv(
    uri: Annotated[
        str, typer.Argument(help="kv://host:port/mount?auth=token&token-source=file:/path, as in hsm.uri.")
    ],
    *,
    prefix: Annotated[str, typer.Option(help="Only what lies under it.")] = "",
    mapping: Mapping = None,
    kind: Kind = "imported",
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Import from a KV version 2 engine of HashiCorp Vault or OpenBao: the current version of every secret."""
    from hsm.errors import HsmError  # noqa: PLC0415 - slow to import, and not every command needs it
    from hsm.kv import KvReader  # noqa: PLC0415
    from hsm.uri import UriError  # noqa: PLC0415

    try:
        with KvReader(uri, clients=_AT_ONCE) as reader, client(profile, token_file) as vault:
            _import(vault, from_kv(reader, prefix), mapping, kind, dry_run=dry_run, output=output)
    except (HsmError, UriError) as error:
        raise typer.BadParameter(f"the source: {error}") from None


@app.command()
def env(
    *,
    path: Annotated[str, typer.Option(help="What the file is called in the mapping.")] = "env",
    mapping: Mapping = None,
    kind: Kind = "imported",
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Import a `.env` file from stdin: its variables are the fields of one thing."""
    with client(profile, token_file) as vault:
        _import(vault, _read(lambda: from_env(path)), mapping, kind, dry_run=dry_run, output=output)


@app.command("json-lines")
def json_lines(
    *,
    mapping: Mapping = None,
    kind: Kind = "imported",
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Import lines `{"path": "...", "fields": {"name": "text"}}` from stdin."""
    with client(profile, token_file) as vault:
        _import(vault, from_json_lines(), mapping, kind, dry_run=dry_run, output=output)


def _import(
    vault: Client, source: Source, mapping: Path | None, kind: str, *, dry_run: bool, output: Format
) -> None:
    from vault.cli.import_run import Run  # noqa: PLC0415 - gRPC is slow to import

    try:
        rules = (
            import_mapping.load(mapping) if mapping else import_mapping.default(vault.profile.tenant, kind)
        )
    except MappingError as error:
        raise typer.BadParameter(str(error)) from None
    lines: list[Line] = []
    progress = _Progress()
    run = Run(vault, source.name, rules, dry_run)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # In chunks, so that no more than a few secrets are in memory at once, however many there are.
            while chunk := _read(lambda: list(islice(source.items, _CHUNK))):
                for done in pool.map(run.one, chunk):
                    lines.extend(done)
                progress.show(lines)
    finally:
        # Also of a source that broke off: what was done is done.
        progress.end()
        counts = _report(source.name, lines, dry_run=dry_run, output=output)
    if counts["failed"] or counts["unmapped"]:
        raise typer.Exit(EXIT_NOT_ALL)


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except SourceError as error:
        raise typer.BadParameter(f"the source: {error}") from None


class _Progress:
    """One line on the terminal, if there is one."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, lines: list[Line]) -> None:
        if self._shown:
            counts = Counter(line.status for line in lines)
            text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _report(source: str, lines: list[Line], *, dry_run: bool, output: Format) -> Counter[str]:
    """Say what was done; returns how often each status stands in it."""
    counts = Counter(line.status for line in lines)
    if output is Format.JSON:
        document = {"source": source, "dry_run": dry_run, "counts": counts, "items": [*map(asdict, lines)]}
        print(json.dumps(document, indent=2))
    else:
        for line in _worth_a_look(lines, dry_run=dry_run):
            print(f"{line.status:<12}  {line.path} -> {line.name or '-'}  {line.reason}".rstrip())
        print("  ".join(f"{status}: {count}" for status, count in sorted(counts.items())) or "nothing there")
    return counts


def _worth_a_look(lines: list[Line], *, dry_run: bool) -> Iterator[Line]:
    return (line for line in lines if dry_run or line.status not in ("imported", "skipped"))
