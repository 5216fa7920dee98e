"""`strongroom audit export`."""

from __future__ import annotations

import asyncio
import csv
import datetime
import enum
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.filters import (
    Action,
    Credential,
    Device,
    Identity,
    Network,
    Outcome,
    Since,
    Tenant,
    Until,
    filters,
)
from vault.cli.verification import ServerConfig, progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vault.v1 import audit_pb2

_PAGE = 1000


class ExportFormat(enum.StrEnum):
    """In which form."""

    JSONL = "jsonl"
    CSV = "csv"
    OCSF = "ocsf"


def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; standard output if left out.")] = None,
    *,
    format_: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="jsonl: the whole log as JSON lines that `audit verify FILE` verifies; csv, or ocsf (events of the "
            "class API Activity, one a line): the records that are asked for.",
        ),
    ] = ExportFormat.JSONL,
    tenant: Tenant = "",
    identity: Identity = "",
    credential: Credential = "",
    action: Action = "",
    outcome: Outcome = None,
    since: Since = "",
    until: Until = "",
    network: Network = "",
    device: Device = "",
    config: ServerConfig = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Write the whole log, with its checkpoints, up to one that is signed now; or the records asked for."""
    wanted = filters(tenant, identity, credential, action, outcome, network, device, since=since, until=until)
    if format_ is ExportFormat.JSONL and any(wanted.values()):
        raise typer.BadParameter("jsonl is of the whole log, else nobody could verify it; choose csv or ocsf")
    if format_ is not ExportFormat.JSONL and config is not None:
        raise typer.BadParameter("csv and ocsf come from the vault, not from its database")
    out = open(file, "w", encoding="utf-8", newline="\n", opener=_for_few) if file else sys.stdout  # noqa: SIM115 - closed below, but for stdout
    try:
        if format_ is not ExportFormat.JSONL:
            with client(profile, token_file) as vault:
                out.writelines(_rendered(map(row_of, vault.iter_audit(**wanted)), format_))
        elif config is not None:
            asyncio.run(_from_database(config, out))
        else:
            _from_vault(profile, token_file, out)
    finally:
        if file:
            out.close()


def _for_few(file: str, flags: int) -> int:
    """Open a file that nobody but its owner and group reads: the log names people."""
    return os.open(file, flags, 0o640)


def _rendered(rows: Iterable[dict[str, Any]], format_: ExportFormat) -> Iterator[str]:
    from vault.core.export import COLUMNS  # noqa: PLC0415
    from vault.core.records import cells, ocsf  # noqa: PLC0415

    if format_ is ExportFormat.OCSF:
        for row in rows:
            yield json.dumps(ocsf(row)) + "\n"
        return
    writer = csv.writer(_Lines(), lineterminator="\n")
    yield writer.writerow(COLUMNS)
    for row in rows:
        yield writer.writerow(cells(row))


class _Lines:
    """What `csv` writes to: gives each row back as a line."""

    def write(self, line: str) -> str:
        return line


def row_of(record: audit_pb2.AuditRecord) -> dict[str, Any]:
    """A record as its row in the database."""
    from vault.v1 import audit_pb2  # noqa: PLC0415

    return {
        "sequence": record.sequence,
        "id": record.id,
        "created_at": record.create_time.ToDatetime(tzinfo=datetime.UTC),
        "tenant": record.tenant,
        "user_id": record.identity,
        "action_type": record.action,
        "resource": record.resource,
        "outcome": audit_pb2.Outcome.Name(record.outcome).removeprefix("OUTCOME_").lower(),
        "reason": record.reason,
        "ip_address": record.ip_address,
        "device_id": record.device_id,
        "request_id": record.request_id,
        "token_id": record.token_id,
        "session_id": record.session_id,
        "before_state": record.before_state,
        "after_state": record.after_state,
        "rows_written": record.rows_written,
        "leaf_hash": record.leaf_hash,
    }


async def _from_database(file: Path, out: TextIO) -> None:
    from vault import config as configuration  # noqa: PLC0415
    from vault.core.checkpoint_keys import verifier_keys  # noqa: PLC0415
    from vault.core.export import of_database, pages  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    config = configuration.load(file)
    async with foundation(config) as base:
        keys = await verifier_keys(config.audit.origin, base.keyring, base.hsm)
        source = await of_database(base.database, config.audit.origin, keys)
        with progress() as bar:
            task = bar.add_task("exporting", total=source.size)
            async for done, text in pages(source):
                out.write(text)
                bar.update(task, completed=done)


def _from_vault(profile: Path, token_file: Path | None, out: TextIO) -> None:
    from vault.core import export as form  # noqa: PLC0415
    from vault.crypto import merkle  # noqa: PLC0415
    from vault.v1 import audit_pb2  # noqa: PLC0415

    with client(profile, token_file) as vault, progress() as bar:
        newest = vault.checkpoint()
        checkpoints = vault.list_checkpoints()
        size = checkpoints[-1].size
        task = bar.add_task("exporting", total=size)
        origin = newest.note.partition("\n")[0]
        request = audit_pb2.AuditServiceListRequest(page_size=1)
        done = vault.audit_page(request).records[0].sequence
        by_size = {checkpoint.size: checkpoint.frontier for checkpoint in checkpoints}
        start = merkle.decode_frontier(by_size[done]) if done else merkle.EMPTY
        out.write(form.header_line(form.Header(origin, tuple(newest.verifier_keys), start)))
        waiting = iter([checkpoint for checkpoint in checkpoints if checkpoint.size > done])
        checkpoint = next(waiting)
        request = audit_pb2.AuditServiceListRequest(page_size=_PAGE)
        while done < size:
            page = vault.audit_page(request)
            for record in page.records[: size - done]:
                out.write(form.record_line(row_of(record)))
                done += 1
                if checkpoint.size == done:
                    out.write(form.checkpoint_line(done, checkpoint.note, checkpoint.frontier))
                    checkpoint = next(waiting, checkpoint)
            bar.update(task, completed=done)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        out.write(form.end_line(size))
