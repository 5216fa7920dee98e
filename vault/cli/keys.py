"""`strongroom keys`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from vault.cli import jobs, key_homes, key_life
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import MAX_INT32
from vault.cli.key_homes import BackendOption, PlacementOption, homes
from vault.cli.output import Format, Output, show, show_all, show_dict
from vault.cli.server import ConfigFile

app = typer.Typer(help="Tenants and their keys in the HSM.", no_args_is_help=True)
jobs.register(app)
key_life.register(app)
key_homes.register(app)

SYSTEM = "system"
Tenant = Annotated[str, typer.Argument(help="The tenant.")]


@app.command()
def init(*, config: ConfigFile, dry_run: jobs.DryRun = False, output: Output = Format.TABLE) -> None:
    """Make the vault's own keys in the HSM, those that are missing. Run once, before the first `serve`."""
    if dry_run:
        show_dict(output, {"missing": asyncio.run(_missing_system_keys(config))})
        return
    made = asyncio.run(create_system_keys(config))
    show_dict(output, {"made": made, "result": "the vault has all its own keys"})


async def create_system_keys(config: Path) -> list[str]:
    """Make what is missing; give the labels of what was made."""
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.foundation import foundation, record_hsms  # noqa: PLC0415

    async with foundation(configuration.load(config)) as base:
        made = await base.keyring.create_system_keys("strongroom keys init")
        await record_hsms(base)
        return [key.label for key in made]


async def _missing_system_keys(config: Path) -> list[str]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    async with foundation(configuration.load(config)) as base:
        return await base.keyring.missing_system_keys()


@app.command("create-tenant")
def create_tenant(
    tenant: Tenant,
    *,
    dry_run: jobs.DryRun = False,
    placement: PlacementOption = None,
    backend: BackendOption = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a tenant and its first key."""
    with client(profile, token_file) as vault:
        show(output, vault.create_tenant(tenant, validate_only=dry_run, homes=homes(placement, backend)))


@app.command()
def rotate(
    tenant: Annotated[str, typer.Argument(help="The tenant; nothing with --signing or --ingest.")] = "",
    *,
    signing: Annotated[
        bool, typer.Option("--signing", help="The vault's own keys that sign tokens and checkpoints.")
    ] = False,
    ingest: Annotated[
        bool, typer.Option("--ingest", help="The vault's own key behind the ingest keys, and these.")
    ] = False,
    dry_run: jobs.DryRun = False,
    placement: PlacementOption = None,
    backend: BackendOption = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a new version of a key; new writes use it at once, old versions still open or verify."""
    own = [*(("token", "checkpoint") if signing else ()), *(("ingest",) if ingest else ())]
    if bool(tenant) == bool(own):
        raise typer.BadParameter("name a tenant, or --signing or --ingest")
    with client(profile, token_file) as vault:
        made = [vault.rotate_key(SYSTEM, purpose=purpose, validate_only=dry_run) for purpose in own] or [
            vault.rotate_key(tenant, validate_only=dry_run, homes=homes(placement, backend))
        ]
    if own:
        show_all(output, made, ("purpose", "version", "state", "algorithm", "label", "create_time"))
    else:
        show(output, made[0])


@app.command("list")
def list_(
    tenant: Tenant,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List the versions of a tenant's key."""
    with client(profile, token_file) as vault:
        found = vault.list_keys(tenant)
    show_all(
        output,
        found,
        ("version", "state", "algorithm", "placement", "backends", "label", "create_time", "created_by"),
    )


@app.command()
def describe(
    tenant: Tenant,
    *,
    version: Annotated[int, typer.Option(min=0, max=MAX_INT32, help="The version; 0 is the active one.")] = 0,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Describe a key version: what the HSM says of it, and how much depends on it."""
    with client(profile, token_file) as vault:
        show(output, vault.describe_key(tenant, version))
