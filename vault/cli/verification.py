"""`strongroom audit verify`, `prove`, `prove-consistency` and `verify-proof`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault.cli.archives import ArchivePath, verify_folder
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_text
from vault.cli.output import Format, Output, show_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from vault.core.verification import Report

EXIT_NOT_VALID = 5

Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="A verifier key of the checkpoints, or a file that holds one a line."),
]
ServerConfig = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Read the database itself, by the server's configuration (TOML)."),
]
OutFile = Annotated[Path | None, typer.Option("--out", help="Write it to this file instead.")]


def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="An export, or a folder of archives. Neither vault, database nor HSM is needed."),
    ] = None,
    *,
    key: Keys = None,
    anchor: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept elsewhere; the log must hold it.")
    ] = None,
    origin: Annotated[str, typer.Option(help="The log's origin. Default: the name in the key.")] = "",
    config: ServerConfig = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="With --config: the folder of the archives, to verify everything from record 0."),
    ] = None,
    state: Annotated[bool, typer.Option(help="Also hold every row of the database against the log.")] = True,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify the whole log: an export, the database, or by asking the vault. Exit code 5 if it does not verify.

    If the beginning of the log is archived, the database is verified from there on: `first` says so.
    """
    if archive is not None and config is None:
        raise typer.BadParameter("--archive goes with --config; a folder alone is verified as the argument")
    anchors = [(f"anchor {path.name}", read_text(path)) for path in anchor or ()]
    keys = read_keys(key)
    if file is not None:
        judge = verify_folder if file.is_dir() else _verify_file
        result = _shown(judge(file, keys, origin, anchors))
    elif config is not None:
        result = _shown(asyncio.run(_verify_database(config, keys, anchors, state=state, folder=archive)))
    else:
        result = _ask(profile, token_file)
    show_dict(output, result)
    if not result["valid"]:
        raise typer.Exit(EXIT_NOT_VALID)


def prove(
    sequence: Annotated[int, typer.Argument(min=0, help="The record's place in the log.")],
    *,
    size: Annotated[int, typer.Option(min=0, help="Prove it in the checkpoint of this size.")] = 0,
    archive: ArchivePath = None,
    out: OutFile = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Prove that a record is in the log, in a text (C2SP tlog-proof) that `verify-proof` verifies without the vault."""
    from vault.cli.export import row_of  # noqa: PLC0415
    from vault.core import archives, evidence  # noqa: PLC0415
    from vault.crypto.errors import FormatError  # noqa: PLC0415

    if archive is not None:
        try:
            _write(out, archives.prove(archive, sequence))
        except FormatError as error:
            raise typer.BadParameter(str(error), param_hint=str(archive)) from None
        return
    with client(profile, token_file) as vault:
        proof = vault.inclusion_proof(sequence, size=size)
    _write(out, evidence.inclusion_text(row_of(proof.record), proof.path, proof.checkpoint.note))


def prove_consistency(
    old_size: Annotated[int, typer.Argument(min=1, help="The size of the older checkpoint.")],
    *,
    size: Annotated[int, typer.Option(min=0, help="The size of the newer one. Default: the newest.")] = 0,
    out: OutFile = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Prove that an older checkpoint is the beginning of a newer one, in the form that witnesses read."""
    from vault.core import evidence  # noqa: PLC0415

    with client(profile, token_file) as vault:
        proof = vault.consistency_proof(old_size, size=size)
    _write(out, evidence.consistency_text(old_size, proof.path, proof.checkpoint.note))


def verify_proof(
    file: Annotated[Path, typer.Argument(help="What `prove` or `prove-consistency` wrote.")],
    *,
    key: Keys = None,
    old: Annotated[
        Path | None, typer.Option(help="The older checkpoint, which a proof of consistency is held against.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a proof, without the vault. Exit code 5 if it does not verify."""
    from vault.core.evidence import verify_text  # noqa: PLC0415
    from vault.crypto.errors import CryptoError  # noqa: PLC0415

    try:
        proven = verify_text(read_text(file), read_keys(key), old_note=read_text(old) if old else "")
    except (CryptoError, UnicodeDecodeError) as error:
        show_dict(output, {"valid": False, "reason": str(error)})
        raise typer.Exit(EXIT_NOT_VALID) from None
    shown: dict[str, Any] = {"valid": True, "origin": proven.head.origin, "size": proven.head.size}
    if proven.old_size is not None:
        shown["old_size"] = proven.old_size
    if proven.record is not None:
        shown |= {name: value for name, value in proven.record.items() if name != "leaf_hash"}
        shown["created_at"] = proven.record["created_at"].isoformat()
    show_dict(output, shown)


def accept_loss(
    sequence: Annotated[int, typer.Argument(min=0, help="The damaged record.")],
    *,
    approval_id: Annotated[str, typer.Option(help="The approval of `database.recover` for this record.")],
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Accept that a record's content is lost, so that checkpoints can be signed again. It stays in every report."""
    with client(profile, token_file) as vault:
        found = vault.accept_audit_loss(sequence, approval_id)
    show_dict(output, {"size": found.size, "note": found.note})


def _verify_file(file: Path, keys: list[str], origin: str, anchors: list[tuple[str, str]]) -> Report:
    from vault.core.export import verify_file  # noqa: PLC0415
    from vault.crypto.errors import FormatError  # noqa: PLC0415

    if not keys:
        raise typer.BadParameter("a file is verified by --key; see `strongroom audit checkpoint`")
    with progress() as bar, file.open(encoding="utf-8", errors="surrogateescape") as text:
        task = bar.add_task("verifying", total=file.stat().st_size)
        read = 0

        def lines() -> Iterator[str]:
            nonlocal read
            for line in text:
                read += len(line)
                yield line

        try:
            return verify_file(
                lines(),
                keys,
                origin=origin,
                anchors=anchors,
                watch=lambda _: bar.update(task, completed=read),
            )
        except FormatError as error:
            raise typer.BadParameter(str(error), param_hint=str(file)) from None


async def _verify_database(
    file: Path, keys: list[str], anchors: list[tuple[str, str]], *, state: bool, folder: Path | None
) -> Report:
    from vault import config as configuration  # noqa: PLC0415
    from vault.clock import SystemClock  # noqa: PLC0415
    from vault.core.checkpoint_keys import verifier_keys  # noqa: PLC0415
    from vault.core.inspection import inspect  # noqa: PLC0415
    from vault.server.checkpointing import held_by_anchors, recovery_of  # noqa: PLC0415
    from vault.server.foundation import foundation, open_database  # noqa: PLC0415
    from vault.store.reach import ALL_TENANTS, declare  # noqa: PLC0415

    config = configuration.load(file)
    if not keys:
        async with foundation(config) as base:
            keys = await verifier_keys(config.audit.origin, base.keyring, base.hsm)
    database, clock = open_database(config), SystemClock()
    declare(ALL_TENANTS)
    try:
        held = await held_by_anchors(config, clock)
        held = await recovery_of(config).in_force(database, held, keys)
        with progress() as bar:
            task = bar.add_task("verifying", total=None)
            return await inspect(
                database,
                config.audit.origin,
                keys,
                clock.now(),
                anchors=[*anchors, *held],
                state=state,
                folder=folder,
                watch=lambda done, of: bar.update(task, completed=done, total=of),
            )
    finally:
        await database.close()


def _ask(profile: Path, token_file: Path | None) -> dict[str, Any]:
    from vault.cli.output import as_dict  # noqa: PLC0415

    with client(profile, token_file) as vault, progress() as bar:
        task = bar.add_task("the vault verifies", total=None)
        verdict = vault.verify_audit(
            lambda records, total: bar.update(task, completed=records, total=total or None)
        )
    return as_dict(verdict)


def _shown(report: Report) -> dict[str, Any]:
    return {
        "valid": not report.findings,
        "first": report.first,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "anchors": report.anchors,
        "signed_size": report.signed_size,
        "root_hash": report.root.hex(),
        "accepted": report.accepted,
        "findings": report.findings + ([f"and {report.unlisted} more"] if report.unlisted else []),
    }


def read_keys(options: list[str] | None) -> list[str]:
    """Verifier keys, given as such or as files that hold one a line."""
    keys: list[str] = []
    for option in options or ():
        path = Path(option)
        if "+" in option and not path.exists():
            keys.append(option)
        else:
            keys += [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return keys


def progress() -> Progress:
    """A progress bar on stderr; nothing if that is no terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _write(out: Path | None, text: str) -> None:
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
