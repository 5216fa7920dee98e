"""`strongroom recover`, and `strongroom approval sign` for what is approved while the vault is down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile
from vault.cli.inputs import read_text
from vault.cli.output import Format, Output, show_dict
from vault.cli.server import ConfigFile
from vault.errors import StartError

if TYPE_CHECKING:
    from vault.config import Config
    from vault.core.recovery import Recovery

Statement = Annotated[Path, typer.Argument(help="The statement's file.")]


def recover(
    statement: Statement,
    *,
    config: ConfigFile,
    approved: Annotated[
        bool, typer.Option("--approved", help="The statement is signed: accept the database.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Accept a database that is older than its anchors: first state what is lost, then, signed, accept it."""
    show_dict(output, asyncio.run(_recover(config, statement, approved=approved)))


def sign(
    statement: Statement,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked.")] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    output: Output = Format.TABLE,
) -> None:
    """Sign a statement of a recovery, without the vault, with the private key of your certificate."""
    from vault.client.profile import Profile  # noqa: PLC0415 - gRPC is slow to import
    from vault.core import recovery  # noqa: PLC0415

    unsigned = _read(statement)
    shown = {**unsigned, "signatures": len(unsigned["signatures"])}
    if not yes:
        show_dict(Format.TABLE, shown)
        typer.confirm("Sign for this?", abort=True)
    mine = Profile.load(profile)
    signed = recovery.sign(unsigned, mine.certificate_file.read_bytes(), mine.private_key())
    statement.write_text(json.dumps(signed, indent=2) + "\n")
    show_dict(output, {**shown, "signatures": len(signed["signatures"])})


async def _recover(config_file: Path, file: Path, *, approved: bool) -> dict[str, Any]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.core import recovery  # noqa: PLC0415
    from vault.server.checkpointing import checkpointing  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415
    from vault.store.ledger import read_head  # noqa: PLC0415

    config = configuration.load(config_file)
    trusted = _approvers(config)
    async with foundation(config) as base:
        parts = checkpointing(base, config)
        await parts.keys.learn()
        held = await parts.anchors.held()
        gone = await trusted.accepted(base.database)
        lost = [
            item
            for item in await recovery.lost_heads(base.database, held, parts.keys.verifiers)
            if (item.size, item.root) not in gone
        ]
        if not lost:
            raise StartError("recover: the database is as new as its anchors; there is nothing to recover")
        async with base.database.read() as connection:
            head = await read_head(connection)
        if not approved:
            made = recovery.statement(head, lost, base.clock.now())
            with file.open("x") as new:
                new.write(json.dumps(made, indent=2) + "\n")
            return {**made, "next": f"have {trusted.required} sign it: strongroom approval sign {file}"}
        signed = _read(file)
        recovery.fits(signed, head, lost, base.clock.now())
        signers = trusted.check(signed)
        await base.log.record(recovery.record(signed))
        kept = _set_aside(config)
        await parts.checkpoints.start(new_anchors=True)
        checkpoint = await parts.checkpoints.sign()
        await parts.anchors.close()
    return {"recovered": True, "approved_by": signers, "log_size": checkpoint.size, "anchor_kept_as": kept}


def _approvers(config: Config) -> Recovery:
    from vault.server.checkpointing import recovery_of  # noqa: PLC0415

    trusted = recovery_of(config)
    if not trusted.certificates:
        raise StartError("recover: approvals.recovery_certificates names nobody who could approve")
    return trusted


def _set_aside(config: Config) -> str:
    """Keep the file anchor as evidence, beside its place, so that it can hold what is signed from now on."""
    anchor = config.audit.anchor_file
    if anchor is None or not anchor.exists():
        return ""
    size = read_text(anchor).split("\n")[1]
    return str(anchor.rename(anchor.with_name(f"{anchor.name}.lost-{size}")))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(file))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("signatures"), list):
        raise StartError(f"recover: {file} is no statement of a recovery")
    return found
