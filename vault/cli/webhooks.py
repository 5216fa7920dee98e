"""`strongroom webhook`."""

from __future__ import annotations

from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.output import Format, Output, show, show_all

app = typer.Typer(help="Have endpoints told what happens.", no_args_is_help=True)


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="https://host[:port]/path")],
    *,
    event: Annotated[list[str], typer.Option(help="What to tell of (docs/webhooks.md). Repeat it.")],
    credential: Annotated[
        str, typer.Option(help="The credential, of the kind webhook_endpoint, that signs.")
    ],
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Add an endpoint; it is told what happens from now on."""
    with client(profile, token_file) as vault:
        show(output, vault.create_webhook_endpoint(url, event, credential=credential))


@app.command("list")
def list_(
    *, profile: ProfileFile = DEFAULT_PROFILE, token_file: TokenFile = None, output: Output = Format.TABLE
) -> None:
    """List the endpoints, and what is wrong with each, if anything is."""
    with client(profile, token_file) as vault:
        found = vault.list_webhook_endpoints()
    show_all(output, found, ("endpoint_id", "url", "events", "credential", "error", "failing_since"))


@app.command()
def remove(
    endpoint_id: Annotated[str, typer.Argument(help="Its id.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Remove an endpoint."""
    with client(profile, token_file) as vault:
        vault.delete_webhook_endpoint(endpoint_id)
