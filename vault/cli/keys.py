"""`strongroom keys`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from vault.cli import jobs
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.output import Format, Output, show, show_all, show_dict
from vault.cli.server import ConfigFile

app = typer.Typer(help="Tenants and their keys in the HSM.", no_args_is_help=True)
jobs.register(app)

Tenant = Annotated[str, typer.Argument(help="The tenant.")]


@app.command()
def init(*, config: ConfigFile, output: Output = Format.TABLE) -> None:
    """Make the vault's own keys in the HSM, those that are missing. Run once, before the first `serve`."""
    made = asyncio.run(create_system_keys(config))
    show_dict(output, {"made": made, "result": "the vault has all its own keys"})


async def create_system_keys(config: Path) -> list[str]:
    """Make what is missing; give the labels of what was made."""
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.app import foundation  # noqa: PLC0415

    async with foundation(configuration.load(config)) as base:
        return [key.label for key in await base.keyring.create_system_keys("strongroom keys init")]


@app.command("create-tenant")
def create_tenant(
    tenant: Tenant,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a tenant and its first key."""
    with client(profile, token_file) as vault:
        show(output, vault.create_tenant(tenant))


@app.command()
def rotate(
    tenant: Tenant,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a new version of a tenant's key; new writes use it at once, old versions still open."""
    with client(profile, token_file) as vault:
        show(output, vault.rotate_key(tenant))


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
        output, found, ("version", "state", "algorithm", "backend", "label", "create_time", "created_by")
    )


@app.command()
def describe(
    tenant: Tenant,
    *,
    version: Annotated[int, typer.Option(help="The version; 0 is the active one.")] = 0,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Describe a key version: what the HSM says of it, and how much depends on it."""
    with client(profile, token_file) as vault:
        show(output, vault.describe_key(tenant, version))
