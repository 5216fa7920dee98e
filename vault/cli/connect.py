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


def client(profile: Path, token_file: Path | None = None, *, timeout: float = 15.0) -> Client:
    """A client for this profile. `timeout`: how long one call may take, in seconds."""
    from vault.client import Client, Profile  # noqa: PLC0415 - gRPC is slow to import

    made = Client(Profile.load(profile), timeout=timeout)
    if token_file is not None:
        text = read_text(token_file).strip()
        if len(text.split()) != 1:
            raise typer.BadParameter(
                f"{token_file} does not hold a token alone: `strongroom token issue --save FILE` writes it"
            )
        made.use_token(text)
    return made
