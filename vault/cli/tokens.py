"""`strongroom token`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.output import Format, Output, as_dict, show, show_dict

app = typer.Typer(help="Issue, look at and revoke tokens.", no_args_is_help=True)


@app.command()
def issue(
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    scope: Annotated[
        list[str], typer.Option(help="action:tenant/... Repeat it. Default: the profile's.")
    ] = [],  # noqa: B006
    ttl: Annotated[int, typer.Option(help="Seconds to live, at most 86400.")] = 3600,
    purpose: Annotated[str, typer.Option(help="Why; audited.")] = "",
    save: Annotated[Path | None, typer.Option(help="Write the token to this file (mode 0600).")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Issue a token. It is printed only if --save is not given."""
    with client(profile) as vault:
        scopes = scope or list(vault.profile.scopes)
        issued = vault.issue_token(scopes, ttl_seconds=ttl, purpose=purpose)
    values = as_dict(issued)
    if save is not None:
        descriptor = os.open(save, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(issued.token + "\n")
        values["token"] = f"(in {save})"
    show_dict(output, values)


@app.command()
def introspect(
    token_file: Annotated[Path, typer.Argument(help="The file that holds the token.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    output: Output = Format.TABLE,
) -> None:
    """Say what a token is good for."""
    with client(profile) as vault:
        show(output, vault.introspect_token(token_file.read_text().strip()))


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The token's id.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Revoke a token, everywhere, within a second."""
    with client(profile, token_file) as vault:
        show(output, vault.revoke_token(token_id))


@app.command()
def jwks(*, profile: ProfileFile = DEFAULT_PROFILE) -> None:
    """Print the public keys that verify tokens (JSON)."""
    with client(profile) as vault:
        print(vault.jwks().decode())
