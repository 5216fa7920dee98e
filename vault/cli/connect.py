"""From a command's options to a client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli.inputs import read_text

if TYPE_CHECKING:
    from vault.client import Client

ProfileFile = Annotated[
    Path,
    typer.Option(
        "--profile", "-p", envvar="STRONGROOM_PROFILE", help="Who you are and where the vault is (TOML)."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="STRONGROOM_TOKEN_FILE", help="Use the token in this file; else one is issued."
    ),
]
DEFAULT_PROFILE = Path(".strongroom/operator.toml")


def client(
    profile: Path, token_file: Path | None = None, *, timeout: float = 15.0, needs_token: bool = True
) -> Client:
    """A client for this profile. `timeout`: how long one call may take, in seconds.

    `needs_token`: whether it will call in the name of a token; if there can be none, a `ProfileError` says so.
    """
    from vault.client import Client, Profile  # noqa: PLC0415 - gRPC is slow to import
    from vault.client.profile import ProfileError  # noqa: PLC0415

    loaded = Profile.load(profile)
    if needs_token and token_file is None and not loaded.scopes:
        raise ProfileError(f"{profile}: names no scopes, so no token can be issued")
    made = Client(loaded, timeout=timeout)
    if token_file is not None:
        text = read_text(token_file).strip()
        if len(text.split()) != 1:
            raise typer.BadParameter(
                f"{token_file} does not hold a token alone: `strongroom token issue --save FILE` writes it"
            )
        made.use_token(text)
    return made
