"""`strongroom hsm`."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path
from typing import Annotated

import typer

from vault.cli.output import Format, Output, show_dict
from vault.cli.server import ConfigFile

app = typer.Typer(help="Look at an HSM before it is trusted, and say that it is.", no_args_is_help=True)

EXIT_UNFIT = 5


@app.command()
def probe(
    uri: Annotated[
        str, typer.Argument(help="The HSM, as in hsm.uri: pkcs11:... with module-path and pin-source.")
    ],
    *,
    output: Output = Format.TABLE,
) -> None:
    """Try everything the vault needs on an HSM, also whether its keys can be stolen. Exit code 5 if it is unfit."""
    from hsm.probe import probe as probe_hsm  # noqa: PLC0415 - a native library; only if wanted

    report = probe_hsm(uri)
    print(report.json() if output is Format.JSON else report.table())
    if report.verdict != "fit":
        raise typer.Exit(EXIT_UNFIT)


@app.command()
def accept(*, config: ConfigFile, output: Output = Format.TABLE) -> None:
    """Record the configured HSMs as they are now, after a change that was intended. The audit log says who did it."""
    show_dict(output, asyncio.run(_accept(config)))


async def _accept(config: Path) -> dict[str, str | list[str]]:
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    operator = f"strongroom hsm accept: {_os_user()}"
    async with foundation(configuration.load(config), any_hsm=True) as base:
        return {
            place: await base.capabilities.accept(place, backend, operator) or "as recorded"
            for place, backend in base.hsm.backends.items()
        }


def _os_user() -> str:
    """Who runs this, as the kernel says; an environment could be made to say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
