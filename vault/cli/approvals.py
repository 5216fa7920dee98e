"""`strongroom approval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli import policy_changes, recovery
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_pairs, read_text
from vault.cli.output import Format, Output, as_dict, show_all, show_dict

if TYPE_CHECKING:
    from vault.client import Client
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
    document: Annotated[
        Path | None, typer.Option(help="For policy.write: the policy whose SHA-256 is the argument sha256.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="Why; audited, and shown to who approves.")],
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Ask for an approval of one operation, with exactly these arguments."""
    from vault.crypto.approvals import Operation  # noqa: PLC0415

    operation = Operation(action, resource, read_pairs(argument, "=", "--argument"))
    text = read_text(document) if document else ""
    with client(profile, token_file) as vault:
        _show(output, vault.request_approval(operation, purpose=purpose, document=text))


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
            _show_change(vault, found)
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
    """Show an approval and what it would change; as JSON with the signatures and certificates, which prove it.

    A change of policy is shown against the policy in force, or whole to who may not read that.
    """
    with client(profile, token_file) as vault:
        found = vault.get_approval(approval_id)
        _show(output, found)
        if output is Format.TABLE:
            _show_change(vault, found)


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
        del values["document"]
    show_dict(output, values)


def _show_change(vault: Client, found: Approval) -> None:
    """The policy that an approval is of, once it is sure that it is that one."""
    from vault.client import StrongroomError  # noqa: PLC0415 - gRPC is slow to import
    from vault.client.operations.approvals import verified_document  # noqa: PLC0415

    document = verified_document(found)
    if not document:
        return
    print()
    try:
        in_force = vault.get_policy()
    except StrongroomError as error:
        if error.reason != "SCOPE_DENIED":
            raise
        print("\n".join(map(policy_changes.plain, document.splitlines())))
        return
    base = found.operation.arguments["base_version"]
    if base != str(in_force.version):
        print(f"made from version {base}, which is not in force: it would be refused")
    policy_changes.show(policy_changes.between(in_force.text, document, f"version {in_force.version}"))
