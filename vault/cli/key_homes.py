"""Where keys lie, under `strongroom keys`: mirrored in two HSMs, moved from one to the other, under a new root."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.jobs import Detach, DryRun, Rate, Tenant, follow
from vault.cli.output import Format, Output, as_dict, show_dict
from vault.cli.server import ConfigFile
from vault.model import Placement

if TYPE_CHECKING:
    from vault.v1 import key_pb2

PlacementOption = Annotated[
    Placement | None,
    typer.Option(help="In the HSM, or in the database, wrapped under a root key of the HSM."),
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(help="The HSM: `first`, `second`, or its name. Given twice, the key is mirrored in both."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `strongroom keys`."""
    app.command()(move)
    app.command()(mirror)
    app.command("rotate-root")(rotate_root)


def homes(placement: Placement | None, backends: list[str] | None) -> key_pb2.KeyHomes:
    """Where a new key shall lie."""
    from vault.v1 import key_pb2  # noqa: PLC0415 - slow to import

    numbers = {
        None: key_pb2.KEY_PLACEMENT_UNSPECIFIED,
        Placement.TOKEN: key_pb2.KEY_PLACEMENT_TOKEN,
        Placement.WRAPPED: key_pb2.KEY_PLACEMENT_WRAPPED,
    }
    return key_pb2.KeyHomes(placement=numbers[placement], backends=backends or ())


def move(
    tenant: Tenant,
    *,
    to: Annotated[str, typer.Option(help="The HSM: `first`, `second`, or its name.")],
    max_per_second: Rate = 0,
    dry_run: DryRun = False,
    detach: Detach = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Move a tenant to another HSM: a new key there, and a job that brings everything under it.

    While another rewrap job of the tenant is running or paused it is refused, and there is no new key.
    """
    _relocate(tenant, [to], max_per_second, profile, token_file, output, dry_run=dry_run, detach=detach)


def mirror(
    tenant: Tenant,
    *,
    max_per_second: Rate = 0,
    dry_run: DryRun = False,
    detach: Detach = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Mirror a tenant in both HSMs: a new key in each, and a job that brings everything under both.

    While another rewrap job of the tenant is running or paused it is refused, and there is no new key.
    """
    _relocate(
        tenant,
        ["first", "second"],
        max_per_second,
        profile,
        token_file,
        output,
        dry_run=dry_run,
        detach=detach,
    )


def _relocate(
    tenant: str,
    backends: list[str],
    max_per_second: int,
    profile: Path,
    token_file: Path | None,
    output: Format,
    *,
    dry_run: bool,
    detach: bool,
) -> None:
    from vault.client import StrongroomError  # noqa: PLC0415 - gRPC is slow to import

    with client(profile, token_file) as vault:
        # What would refuse the job refuses here, while there is no new key: above all another job that runs.
        vault.start_job(tenant, "rewrap", max_per_second=max_per_second, validate_only=True)
        if dry_run:
            key = vault.rotate_key(tenant, validate_only=True, homes=homes(None, backends))
            # All that there is: whatever wraps it now will be older than the new key.
            total = sum(item.credential_versions for item in vault.key_status(tenant).versions)
            show_dict(output, {"key": as_dict(key), "total": total})
            return
        made = vault.rotate_key(tenant, homes=homes(None, backends))
        try:
            job = vault.start_job(tenant, "rewrap", max_per_second=max_per_second)
        except StrongroomError:
            typer.echo(
                f"strongroom: version {made.version} of the key is there and in use, but nothing was moved to it; "
                f"when what refuses the job is over: strongroom keys rewrap {tenant}",
                err=True,
            )
            raise
        follow(vault, job, output, leave=detach)


def rotate_root(
    *,
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Make no new key; go on with the last one.")
    ] = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a new root key, in every HSM there is, and wrap every wrapped key under it. Can be done under load.

    Ended early, it goes on with --resume. The old root stays in the HSM.
    """
    if dry_run:
        root, left = asyncio.run(_describe_rotation(config, resume=resume))
        show_dict(output, {"root_version": root, "to_rewrap": left})
        return
    root, done = asyncio.run(_rotate_root(config, resume=resume))
    show_dict(output, {"root_version": root, "rewrapped": done})


async def _describe_rotation(config: Path, *, resume: bool) -> tuple[int, int]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    async with foundation(configuration.load(config)) as base:
        return await base.keyring.describe_root_rotation(resume=resume)


async def _rotate_root(config: Path, *, resume: bool) -> tuple[int, int]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.model import SYSTEM_TENANT, KeyPurpose  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    actor = "strongroom keys rotate-root"
    done = 0
    async with foundation(configuration.load(config)) as base:
        if not resume:
            await base.keyring.rotate_root(actor)
        async for done in base.keyring.rewrap_to_root(actor):
            typer.echo(f"rewrapped {done}", err=True)
        return (await base.keyring.active(SYSTEM_TENANT, KeyPurpose.ROOT)).version, done
