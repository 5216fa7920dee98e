"""`strongroom audit`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli import anchors, archives, export, verification
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.filters import (
    Action,
    Credential,
    Device,
    Identity,
    Network,
    Outcome,
    Since,
    Tenant,
    Until,
    filters,
)
from vault.cli.output import Format, Output, show, show_all, show_dict, show_rows

if TYPE_CHECKING:
    from vault.v1.audit_pb2 import AuditRecord

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)

_COLUMNS = ("sequence", "create_time", "identity", "action", "resource", "outcome", "reason")
_ROW = ("sequence", "created_at", "user_id", "action_type", "resource", "outcome", "reason")


@app.command("list", hidden=True)
@app.command()
def search(
    *,
    tenant: Tenant = "",
    identity: Identity = "",
    credential: Credential = "",
    action: Action = "",
    outcome: Outcome = None,
    since: Since = "",
    until: Until = "",
    network: Network = "",
    device: Device = "",
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    most: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    archive: archives.ArchivePath = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Search the records: those that meet every condition given, oldest first."""
    wanted = filters(tenant, identity, credential, action, outcome, network, device, since=since, until=until)
    if archive is not None:
        if newest_first:
            raise typer.BadParameter("an archive is read oldest first")
        show_rows(output, archives.search(archive, wanted, most), _ROW)
        return
    wanted["newest_first"] = newest_first
    with client(profile, token_file) as vault:
        found = vault.audit_records(most=most, **wanted)
    show_all(output, found, _COLUMNS)


@app.command()
def tail(
    *,
    last: Annotated[
        int, typer.Option("-n", "--last", min=1, max=1000, help="Begin with the last so many.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is recorded from now on.")
    ] = False,
    tenant: Tenant = "",
    identity: Identity = "",
    credential: Credential = "",
    action: Action = "",
    outcome: Outcome = None,
    network: Network = "",
    device: Device = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the newest records, and with -f those that follow. JSON is one line a record."""
    wanted = filters(tenant, identity, credential, action, outcome, network, device)
    with client(profile, token_file) as vault:
        wanted["newest_first"] = True
        newest = vault.audit_records(most=last, **wanted)[::-1]
        for record in newest:
            _line(record, output)
        if follow:
            wanted["newest_first"] = False
            wanted["first_sequence"] = newest[-1].sequence + 1 if newest else 0
            for record in vault.iter_audit(follow=True, **wanted):
                _line(record, output)


@app.command("show")
def show_record(
    sequence: Annotated[int, typer.Argument(min=0, help="The record's sequence.")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show all of one record, by the names of its columns."""
    from vault.core.records import plain  # noqa: PLC0415

    with client(profile, token_file) as vault:
        found = vault.audit_records(most=1, first_sequence=sequence)
    if not found or found[0].sequence != sequence:
        raise typer.BadParameter("there is no such record that this token may read")
    show_dict(output, plain(export.row_of(found[0])))


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
        if found.verifier_keys[-1:] not in ([], [found.verifier_key]):
            print(f"first key     {found.verifier_keys[-1]}")


@app.command()
def sinks(
    *, profile: ProfileFile = DEFAULT_PROFILE, token_file: TokenFile = None, output: Output = Format.TABLE
) -> None:
    """List where else the log goes, and how far each sink has come."""
    with client(profile, token_file) as vault:
        found = vault.audit_sinks()
    show_all(output, found, ("name", "required", "next_sequence", "behind", "error", "failing_since"))


app.command()(archives.archive)
app.command()(export.export)
app.command()(verification.verify)
app.command()(verification.prove)
app.command("prove-consistency")(verification.prove_consistency)
app.command("verify-proof")(verification.verify_proof)
app.command("accept-loss")(verification.accept_loss)
app.command("begin-anchors")(anchors.begin)


def _line(record: AuditRecord, output: Format) -> None:
    from vault.core.records import plain  # noqa: PLC0415

    values = plain(export.row_of(record))
    if output is Format.JSON:
        print(json.dumps(values), flush=True)
    else:
        print("  ".join(str(values[column]) or "-" for column in _ROW), flush=True)
