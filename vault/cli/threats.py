"""`strongroom threats` and `strongroom blast-radius`."""

from __future__ import annotations

from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.output import Format, Output, as_dict, show, show_all, show_dict

app = typer.Typer(help="What the rules of threat detection found.", no_args_is_help=True)

ThreatId = Annotated[str, typer.Argument(help="The finding's id.")]


@app.command("list")
def list_(
    *,
    only_open: Annotated[bool, typer.Option("--open", help="Only what nobody has released.")] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List findings, newest first."""
    with client(profile, token_file) as vault:
        found = vault.list_threats(only_open=only_open)
    show_all(output, found, ("threat_id", "rule", "tenant", "identity", "state", "create_time"))


@app.command()
def explain(
    threat_id: ThreatId,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a finding with its evidence, and what its rule looks for."""
    with client(profile, token_file) as vault:
        found = vault.explain_threat(threat_id)
    if output is Format.JSON:
        show(output, found)
    else:
        show_dict(output, {**as_dict(found.threat), "explanation": found.explanation})


@app.command()
def release(
    threat_id: ThreatId,
    *,
    purpose: Annotated[str, typer.Option(help="Why; audited.")],
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Close a finding; if it froze an identity, that may be issued tokens again."""
    with client(profile, token_file) as vault:
        show(output, vault.release_threat(threat_id, purpose=purpose))


def blast_radius(
    *,
    identity: Annotated[str, typer.Option(help="An identity.")] = "",
    token: Annotated[str, typer.Option(help="A token's id; what was made from it counts too.")] = "",
    certificate: Annotated[str, typer.Option(help="A certificate's thumbprint (x5t#S256).")] = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say everything that an identity, a token or a certificate touched."""
    if sum(map(bool, (identity, token, certificate))) != 1:
        raise typer.BadParameter("name exactly one of --identity, --token, --certificate")
    with client(profile, token_file) as vault:
        found = vault.blast_radius(identity=identity, token_id=token, certificate=certificate)
    columns = ("resource", "action", "granted", "count", "first_time", "last_time")
    show_all(output, found.touches, columns)
    if found.truncated and output is Format.TABLE:
        print("there is more than was shown")
