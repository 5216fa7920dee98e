"""`strongroom serve`, `migrate` and `health`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile
from vault.cli.output import Format, Output, show_dict

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="STRONGROOM_CONFIG", help="The server's configuration (TOML)."),
]
EXIT_NOT_READY = 4


def serve(*, config: ConfigFile) -> None:
    """Serve the vault until SIGTERM."""
    from vault.server.supervisor import Supervisor  # noqa: PLC0415

    raise typer.Exit(Supervisor(config).run())


def migrate(*, config: ConfigFile, output: Output = Format.TABLE) -> None:
    """Bring the database's schema up to date."""
    show_dict(output, {"schema": asyncio.run(migrate_database(config))})


async def migrate_database(config: Path) -> str:
    """Bring the database's schema up to date; give its revision."""
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.foundation import open_owned_database, server_role  # noqa: PLC0415
    from vault.store.schema import migrate as migrate_schema  # noqa: PLC0415
    from vault.store.schema import wanted_revision  # noqa: PLC0415

    loaded = configuration.load(config)
    database = open_owned_database(loaded)
    try:
        await migrate_schema(database, server_role=server_role(loaded))
    finally:
        await database.close()
    return wanted_revision()


def health(*, profile: ProfileFile = DEFAULT_PROFILE, output: Output = Format.TABLE) -> None:
    """Ask the vault whether it is ready, and if not, which part is not and why. Exit code 4 if not."""
    from vault.client.health import look  # noqa: PLC0415
    from vault.client.profile import Profile  # noqa: PLC0415

    found = look(Profile.load(profile))
    show_dict(output, {"ready": found.ready, "reason": found.reasons, "alarm": found.alarms})
    if not found.ready:
        raise typer.Exit(EXIT_NOT_READY)
