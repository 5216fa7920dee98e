"""`strongroom credential`."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import MAX_INT32, read_fields, read_pairs
from vault.cli.output import Format, Output, show, show_all, show_line

app = typer.Typer(help="Store credentials and look at their metadata.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="tenant/segment/...")]
Etag = Annotated[str, typer.Option(help="Only if this is the current etag.")]


@app.command()
def put(
    name: Name,
    *,
    kind: Annotated[str, typer.Option(help="What it is, for example stripe_account.")],
    field: Annotated[
        list[str], typer.Option(help="NAME (asks), NAME=@FILE or NAME=- (stdin). Repeat it.")
    ] = [],  # noqa: B006
    fields: Annotated[Path | None, typer.Option(help="A JSON object of fields; - for stdin.")] = None,
    label: Annotated[list[str], typer.Option(help="NAME=VALUE, not secret. Repeat it.")] = [],  # noqa: B006
    etag: Annotated[
        str, typer.Option(help="Only if this is the current etag; `new`: only if there is none.")
    ] = "",
    subject: Annotated[
        str,
        typer.Option(help="Whose data it is, by a name of your own: it can be erased with that person's."),
    ] = "",
    rotate_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, help="Days until the next version is due; 0: none; else as before."),
    ] = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Store a new version of a credential, sealed before it leaves this process."""
    values = read_fields(field, fields)
    with client(profile, token_file) as vault:
        labels = read_pairs(label, "=", "--label")
        made = vault.put(
            name, values, kind=kind, labels=labels, etag=etag, subject=subject, rotation_days=rotate_days
        )
    show(output, made)


@app.command()
def get(
    name: Name,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a credential's metadata."""
    with client(profile, token_file) as vault:
        show(output, vault.get(name))


@app.command("list")
def list_(
    prefix: Annotated[str, typer.Argument(help="Only names under it.")] = "",
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also those that are deleted.")] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List credentials by name. `get`, and JSON, say more of each."""
    with client(profile, token_file) as vault:
        found = vault.list_credentials(prefix, show_deleted=deleted)
    show_all(
        output,
        found,
        ("name", "kind", "state", "standing", "latest_version"),
    )


@app.command("create-key")
def create_key(
    name: Name,
    *,
    algorithm: Annotated[Literal["ES256", "EdDSA"], typer.Option(help="How it signs.")] = "ES256",
    kid: Annotated[
        str, typer.Option(help="How verifiers know it; by default its thumbprint (RFC 7638).")
    ] = "",
    signs: Annotated[
        list[str], typer.Option(help="Only this: jws, client_assertion, http or raw. Repeat it.")
    ] = [],  # noqa: B006
    label: Annotated[list[str], typer.Option(help="NAME=VALUE, not secret. Repeat it.")] = [],  # noqa: B006
    etag: Annotated[
        str, typer.Option(help="Only if this is the current etag; `new`: only if there is none.")
    ] = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Have a signing key made in the HSM, as a new version of a credential. It never leaves the HSM."""
    labels = read_pairs(label, "=", "--label")
    with client(profile, token_file) as vault:
        made = vault.create_key(name, algorithm=algorithm, labels=labels, kid=kid, formats=signs, etag=etag)
    show(output, made)


@app.command("public-key")
def public_key(
    name: Name,
    *,
    version: Annotated[int, typer.Option(min=0, max=MAX_INT32, help="The version; 0: the newest.")] = 0,
    form: Annotated[
        Literal["", "pem", "jwk"], typer.Option("--form", help="Only the key itself, in this form.")
    ] = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the public half of a credential's key in the HSM."""
    with client(profile, token_file) as vault:
        found = vault.public_key(name, version)
    if form:
        typer.echo(getattr(found, form).strip())
    else:
        show(output, found)


@app.command("set-standing")
def set_standing(
    name: Name,
    standing: Annotated[
        Literal["", "active", "expiring", "update-required", "suspended", "revoked"],
        typer.Argument(help="How it stands; without one, only --expires is set."),
    ] = "",
    *,
    note: Annotated[str, typer.Option(help="Why; not secret.")] = "",
    expires: Annotated[
        datetime.datetime | None, typer.Option(help="When it expires, in UTC; without it, never.")
    ] = None,
    etag: Etag = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say how a credential stands with its provider. One that is suspended or revoked is not opened."""
    moment = expires.replace(tzinfo=datetime.UTC) if expires else None
    with client(profile, token_file) as vault:
        show(output, vault.set_standing(name, standing, note=note, expire_time=moment, etag=etag))


@app.command()
def watch(
    prefix: Annotated[str, typer.Argument(help="Only this credential and those under it.")] = "",
    *,
    cursor: Annotated[str, typer.Option(help="Go on behind this cursor of an earlier change.")] = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what changes, as it happens, until Ctrl-C. In JSON: one line a change, with its cursor."""
    with client(profile, token_file) as vault, contextlib.suppress(KeyboardInterrupt):
        for change in vault.watch(prefix, cursor=cursor):
            show_line(output, change, ("create_time", "change", "name", "version", "changed_by"))


@app.command()
def versions(
    name: Name,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List a credential's versions, newest first."""
    with client(profile, token_file) as vault:
        found = vault.list_versions(name)
    show_all(
        output,
        found,
        ("version", "state", "suite", "kek_version", "field_names", "create_time", "created_by"),
    )


@app.command()
def delete(
    name: Name,
    *,
    etag: Etag = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Delete a credential; it can be undeleted."""
    with client(profile, token_file) as vault:
        show(output, vault.delete(name, etag=etag))


@app.command()
def undelete(
    name: Name,
    *,
    etag: Etag = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring a deleted credential back."""
    with client(profile, token_file) as vault:
        show(output, vault.undelete(name, etag=etag))


@app.command("destroy-version")
def destroy_version(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, max=MAX_INT32, help="The version.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    etag: Etag = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Destroy a version for ever."""
    if not yes:
        typer.confirm(f"Destroy version {version} of {name} for ever?", abort=True)
    with client(profile, token_file) as vault:
        show(output, vault.destroy_version(name, version, etag=etag))
