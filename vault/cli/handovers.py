"""`strongroom handover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_fields
from vault.cli.output import Format, Output, show
from vault.cli.secret_output import show_secrets

app = typer.Typer(help="Hand a secret to one identity, who can open it once.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="tenant/segment/...")]


@app.command()
def wrap(
    name: Name,
    *,
    recipient: Annotated[str, typer.Option(help="The identity that may open it.")],
    field: Annotated[
        list[str], typer.Option(help="NAME (asks), NAME=@FILE or NAME=- (stdin). Repeat it.")
    ] = [],  # noqa: B006
    fields: Annotated[Path | None, typer.Option(help="A JSON object of fields; - for stdin.")] = None,
    ttl: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds it can be opened.")] = 3600,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Wrap a secret. Tell the recipient the name and the id that this prints: neither is secret."""
    values = read_fields(field, fields)
    with client(profile, token_file) as vault:
        show(output, vault.wrap(name, values, recipient=recipient, ttl_seconds=ttl))


@app.command()
def unwrap(
    name: Name,
    handover_id: Annotated[str, typer.Argument(help="The id that `wrap` printed.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Open a secret that was wrapped for you, and print it. It works once: the vault has destroyed it then."""
    with client(profile, token_file) as vault, vault.unwrap(name, handover_id) as secrets:
        show_secrets(secrets)
