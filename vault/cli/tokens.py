"""`strongroom token`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_text
from vault.cli.output import Format, Output, as_dict, show, show_dict

if TYPE_CHECKING:
    from vault.v1 import token_pb2

MaxSessions = Annotated[
    int,
    typer.Option(
        min=0, max=1_000_000, help="How many sessions it may open, a reveal counting as one; 0: no limit."
    ),
]
Ttl = Annotated[int, typer.Option(min=1, max=86_400, help="Seconds to live.")]
TtlLeft = Annotated[
    int | None, typer.Option(min=1, max=86_400, help="Seconds to live, at most what the token has left.")
]
Narrowable = Annotated[bool, typer.Option(help="Its holder can make weaker ones without the vault.")]
Save = Annotated[Path | None, typer.Option(help="Write the token to this file (mode 0600).")]

app = typer.Typer(help="Issue, exchange, look at and revoke tokens.", no_args_is_help=True)


@app.command()
def issue(
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    scope: Annotated[
        list[str], typer.Option(help="action:tenant/... Repeat it. Default: the profile's.")
    ] = [],  # noqa: B006
    ttl: Ttl = 3600,
    purpose: Annotated[str, typer.Option(help="Why; audited.")] = "",
    max_sessions: MaxSessions = 0,
    narrowable: Narrowable = False,
    approval: Annotated[str, typer.Option(help="The approval of others for just this token.")] = "",
    save: Save = None,
    output: Output = Format.TABLE,
) -> None:
    """Issue a token. It is printed only if --save is not given."""
    with client(profile, needs_token=not scope) as vault:
        scopes = scope or list(vault.profile.scopes)
        issued = vault.issue_token(
            scopes,
            ttl_seconds=ttl,
            purpose=purpose,
            max_sessions=max_sessions,
            narrowable=narrowable,
            approval_id=approval,
        )
    _show_token(output, issued, save)


@app.command()
def request(
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    scope: Annotated[list[str], typer.Option(help="action:tenant/... Repeat it; at most 10.")],
    ttl: Ttl = 3600,
    purpose: Annotated[str, typer.Option(help="Why; audited, and shown to who approves.")],
    max_sessions: MaxSessions = 0,
    narrowable: Narrowable = False,
    output: Output = Format.TABLE,
) -> None:
    """Ask others to sign for a token: then `issue` with the same options and --approval."""
    with client(profile, token_file) as vault:
        try:
            asked = vault.request_token(
                scope, purpose=purpose, ttl_seconds=ttl, max_sessions=max_sessions, narrowable=narrowable
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        show(output, asked)


@app.command()
def exchange(
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    scope: Annotated[list[str], typer.Option(help="action:tenant/... within the token's scopes. Repeat it.")],
    ttl: TtlLeft = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Bind it to this client certificate (PEM) instead of one's own.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="Why; audited.")] = "",
    max_sessions: MaxSessions = 0,
    narrowable: Narrowable = False,
    save: Save = None,
    output: Output = Format.TABLE,
) -> None:
    """Exchange a token for a weaker one, which is revoked with it."""
    with client(profile, token_file) as vault:
        exchanged = vault.exchange_token(
            scope,
            ttl_seconds=ttl,
            certificate_thumbprint=thumbprint(certificate) if certificate else "",
            purpose=purpose,
            max_sessions=max_sessions,
            narrowable=narrowable,
        )
    _show_token(output, exchanged, save)


@app.command()
def narrow(
    token_file: Annotated[Path, typer.Argument(help="The file that holds a token issued with --narrowable.")],
    *,
    scope: Annotated[list[str], typer.Option(help="action:tenant/... within the token's scopes. Repeat it.")],
    ttl: TtlLeft = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Bind it to this client certificate (PEM) instead of one's own.")
    ] = None,
    max_sessions: MaxSessions = 0,
    save: Save = None,
) -> None:
    """Make a weaker token without calling the vault. It is printed only if --save is not given."""
    from vault.client import narrow_token  # noqa: PLC0415 - gRPC is slow to import

    try:
        text = narrow_token(
            read_text(token_file).strip(),
            scope,
            ttl_seconds=ttl,
            certificate_thumbprint=thumbprint(certificate) if certificate else "",
            max_sessions=max_sessions,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if save is None:
        print(text)
    else:
        _write(save, text)


@app.command()
def introspect(
    token_file: Annotated[Path, typer.Argument(help="The file that holds the token.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    output: Output = Format.TABLE,
) -> None:
    """Say what a token is good for."""
    with client(profile) as vault:
        show(output, vault.introspect_token(read_text(token_file).strip()))


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The token's id.")] = "",
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    children_of: Annotated[str, typer.Option(help="A token's id: all that come from it, not itself.")] = "",
    identity: Annotated[str, typer.Option(help="All tokens of this SPIFFE ID or DNS name.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All tokens of the tenant.")] = False,
    tenant: Annotated[str, typer.Option(help="Another tenant; * for every one.")] = "",
    issued_before: Annotated[
        datetime.datetime | None, typer.Option(help="Only those issued until then (UTC). Not for one token.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Revoke a token, or many, and whatever comes from them: everywhere, within a second."""
    with client(profile, token_file) as vault:
        if token_id:
            if children_of or identity or everything or issued_before:
                raise typer.BadParameter("a token's id stands alone")
            show(output, vault.revoke_token(token_id, tenant=tenant))
            return
        show(
            output,
            vault.revoke_tokens(
                parent_id=children_of,
                identity=identity,
                everything=everything,
                tenant=tenant,
                issued_before=issued_before,
            ),
        )


@app.command()
def jwks(*, profile: ProfileFile = DEFAULT_PROFILE) -> None:
    """Print the public keys that verify tokens (JSON)."""
    with client(profile, needs_token=False) as vault:
        print(vault.jwks().decode())


def thumbprint(file: Path) -> str:
    """The SHA-256 thumbprint of a certificate, as tokens are bound to it (RFC 8705)."""
    from vault.client import profile  # noqa: PLC0415 - gRPC is slow to import

    try:
        return profile.thumbprint(file.read_bytes())
    except ValueError:
        raise typer.BadParameter(f"{file} holds no PEM certificate") from None


def _show_token(
    output: Format,
    made: token_pb2.TokenServiceIssueResponse | token_pb2.TokenServiceExchangeResponse,
    save: Path | None,
) -> None:
    values = as_dict(made)
    if save is not None:
        _write(save, made.token)
        values["token"] = f"(in {save})"
    show_dict(output, values)


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        # Also if it was there before, for others to read.
        os.fchmod(descriptor, 0o600)
        opened.write(text + "\n")
