"""`strongroom hsm`."""

from __future__ import annotations

from typing import Annotated

import typer

from vault.cli.output import Format, Output

app = typer.Typer(help="Look at an HSM before it is trusted.", no_args_is_help=True)

EXIT_UNFIT = 5


@app.callback()
def commands() -> None:
    """Have `probe` be a command of its own, though it is the only one yet."""


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
