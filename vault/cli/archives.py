"""`strongroom audit archive`, and what reads archives without the vault."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault.cli.output import Format, Output, show_dict
from vault.cli.server import ConfigFile
from vault.errors import StartError

if TYPE_CHECKING:
    from vault.client.operations.audit import AuditFilters
    from vault.core.archives import Archive
    from vault.core.archiving import Plan
    from vault.core.verification import Report

ArchivePath = Annotated[
    Path | None, typer.Option("--archive", help="Look into this archive, or folder of archives, instead.")
]


def archive(
    *,
    config: ConfigFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Move what is older than the retention into the archive folder, and remove it once it verifies there."""
    done = asyncio.run(_archive(config, dry_run=dry_run))
    if output is Format.TABLE and not any(done.values()):
        done = {"due": "nothing: no whole month is older than audit.retention_months"}
    show_dict(output, done)


async def _archive(file: Path, *, dry_run: bool) -> dict[str, Any]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.errors import VaultError  # noqa: PLC0415
    from vault.server.checkpointing import archiving, checkpointing  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    config = configuration.load(file)
    async with foundation(config) as base:
        parts = checkpointing(base, config)
        await parts.checkpoints.start()
        work = archiving(base, config, parts)
        if work is None:
            raise StartError("audit.archive_folder: where archives go must be configured")
        try:
            plan = await work.plan()
            done = [] if dry_run else await work.archive()
        except (VaultError, OSError) as error:
            text = error.message if isinstance(error, VaultError) else error.strerror
            raise StartError(f"audit archive: {text}") from None
        finally:
            await parts.anchors.close()
    return _planned(plan) if dry_run else {"archived": [_shown(one) for one in done]}


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "due": None
        if plan.due is None
        else {"first": plan.due.first, "records": plan.due.end - plan.due.first},
        "to_be_removed": None if plan.remove is None else _shown(plan.remove),
    }


def _shown(one: Archive) -> dict[str, Any]:
    return {
        "file": one.file,
        "first": one.first,
        "records": one.end - one.first,
        "since": one.since,
        "until": one.until,
        "sha256": one.sha256,
        "size_bytes": one.size_bytes,
    }


def verify_folder(folder: Path, keys: list[str], origin: str, anchors: list[tuple[str, str]]) -> Report:
    """Judge every archive of a folder, in the order of the log, with nothing but public keys."""
    from vault.core import archives  # noqa: PLC0415
    from vault.core.verification import Report, Verification  # noqa: PLC0415

    if not keys:
        raise typer.BadParameter("archives are verified by --key; see `strongroom audit checkpoint`")
    report = Report()
    verification = Verification(origin or keys[0].partition("+")[0], keys, report)
    for name, note in anchors:
        verification.anchor(name, note)
    if not archives.verify_folder(folder, keys, verification):
        report.find("there is no archive in this folder")
    verification.finish(verification.next)
    return report


def search(path: Path, wanted: AuditFilters, most: int) -> list[dict[str, Any]]:
    """The records of archives that meet every condition, at most so many, by the names of their columns."""
    from vault.core import archives  # noqa: PLC0415
    from vault.core.records import plain  # noqa: PLC0415
    from vault.crypto.errors import FormatError  # noqa: PLC0415
    from vault.model import AuditQuery, Outcome  # noqa: PLC0415

    query = AuditQuery(
        tenant=wanted["tenant"],
        identity=wanted["identity"],
        resource=wanted["resource"],
        action=wanted["action"],
        outcome=Outcome(wanted["outcome"]) if wanted["outcome"] else None,
        start_time=wanted["since"],
        end_time=wanted["until"],
        network=wanted["network"],
        device_id=wanted["device_id"],
    )
    try:
        return [plain(row) for row in itertools.islice(archives.search(path, query), most)]
    except (FormatError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint=str(path)) from None
