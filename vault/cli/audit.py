"""`strongroom audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from vault.cli import export, verification
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.output import Format, Output, show, show_all

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant's records.")] = "",
    action: Annotated[str, typer.Option(help="Only this action, for example session.reveal.")] = "",
    resource: Annotated[str, typer.Option(help="Only on this, for example a credential's name.")] = "",
    identity: Annotated[str, typer.Option(help="Only by this identity.")] = "",
    most: Annotated[int, typer.Option(help="At most so many.")] = 1000,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List records, oldest first."""
    with client(profile, token_file) as vault:
        found = vault.audit_records(
            tenant=tenant, action=action, resource=resource, identity=identity, most=most
        )
    show_all(
        output, found, ("sequence", "create_time", "identity", "action", "resource", "outcome", "reason")
    )


@app.command()
def checkpoint(
    *, profile: ProfileFile = DEFAULT_PROFILE, token_file: TokenFile = None, output: Output = Format.TABLE
) -> None:
    """Show the newest checkpoint, signing one first if the log has grown."""
    with client(profile, token_file) as vault:
        found = vault.checkpoint()
    if output is Format.JSON:
        show(output, found)
    else:
        print(f"{found.note}\nverifier key  {found.verifier_key}")


app.command()(export.export)
app.command()(verification.verify)
app.command()(verification.prove)
app.command("prove-consistency")(verification.prove_consistency)
app.command("verify-proof")(verification.verify_proof)
