"""`strongroom database`."""

from __future__ import annotations

from typing import Annotated

import typer

from vault.cli.server import ConfigFile

app = typer.Typer(help="The database's roles.", no_args_is_help=True)


@app.command()
def grants(
    *,
    config: ConfigFile,
    role: Annotated[
        str, typer.Option(help="The server's role; that of `database.url` if none is named.")
    ] = "",
) -> None:
    """Print the SQL that makes the server's role on PostgreSQL and gives it what it needs, to read or to run by hand.

    `strongroom migrate` grants the same, if `database.owner_url` is set and the role exists.
    """
    from vault import config as configuration  # noqa: PLC0415
    from vault.store.engine import user_of  # noqa: PLC0415
    from vault.store.grants import role_statements, statements  # noqa: PLC0415

    role = role or user_of(configuration.load(config).database.url)
    for comment, lines in (
        (
            "As a role that may make roles; the password by \\password or by certificate:",
            role_statements(role),
        ),
        ("As the owner of the tables, after `strongroom migrate`:", statements(role)),
    ):
        typer.echo(f"-- {comment}")
        for line in lines:
            typer.echo(f"{line};")
