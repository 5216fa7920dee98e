"""`strongroom approval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli import recovery
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_pairs
from vault.cli.output import Format, Output, as_dict, show_all, show_dict

if TYPE_CHECKING:
    from vault.v1.approval_pb2 import Approval

app = typer.Typer(help="Let others sign for what is too dangerous for one.", no_args_is_help=True)

app.command()(recovery.sign)

ApprovalId = Annotated[str, typer.Argument(help="The approval's id.")]


@app.command()
def request(
    action: Annotated[str, typer.Argument(help="For example key.destroy.")],
    resource: Annotated[str, typer.Argument(help="On what, for example acme/keys.")],
    *,
    argument: Annotated[
        list[str], typer.Option("--argument", "-a", help="NAME=VALUE of the operation. Repeat it.")
    ] = [],  # noqa: B006
    purpose: Annotated[str, typer.Option(help="Why; audited, and shown to who approves.")],
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Ask for an approval of one operation, with exactly these arguments."""
    from vault.crypto.approvals import Operation  # noqa: PLC0415

    operation = Operation(action, resource, read_pairs(argument, "=", "--argument"))
    with client(profile, token_file) as vault:
        _show(output, vault.request_approval(operation, purpose=purpose))


@app.command()
def approve(
    approval_id: ApprovalId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked.")] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what is to be done, and sign for it with the private key of your certificate."""
    with client(profile, token_file) as vault:
        found = vault.get_approval(approval_id)
        if not yes:
            _show(Format.TABLE, found)
            typer.confirm("Sign for this?", abort=True)
        # What was shown is what is signed.
        _show(output, vault.approve(found))


@app.command("list")
def list_(
    *,
    only_open: Annotated[
        bool, typer.Option("--open", help="Only what can still be approved or used.")
    ] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List approvals, newest first."""
    with client(profile, token_file) as vault:
        found = vault.list_approvals(only_open=only_open)
    show_all(output, found, ("approval_id", "state", "operation", "requested_by", "required", "expire_time"))


@app.command()
def show(
    approval_id: ApprovalId,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show an approval; as JSON with the signatures and certificates, which prove it."""
    with client(profile, token_file) as vault:
        _show(output, vault.get_approval(approval_id))


@app.command()
def cancel(
    approval_id: ApprovalId,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Take an approval back. Needs the same right as asking for it."""
    with client(profile, token_file) as vault:
        _show(output, vault.cancel_approval(approval_id))


def _show(output: Format, found: Approval) -> None:
    values = as_dict(found)
    if output is Format.TABLE:
        values["signatures"] = [item.identity for item in found.signatures]
    show_dict(output, values)
