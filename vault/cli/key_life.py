"""A key version under `strongroom keys`: status, uses, retire, quarantine, restore, destroy, schedule."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli import jobs
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import MAX_INT32
from vault.cli.jobs import EXIT_NOT_ALL_DONE, Detach, DryRun, Tenant
from vault.cli.output import Format, Output, show, show_all, show_dict, show_rows

if TYPE_CHECKING:
    from vault.v1 import key_pb2

Version = Annotated[int, typer.Option("--version", min=1, max=MAX_INT32, help="The version of the key.")]

_PERIOD = re.compile(r"([0-9]{1,9})([smhdy]?)")
_COLUMNS = ("key", "state", "used_by", "oldest", "wraps", "made", "rotate_by", "destroyed_on")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}


def register(app: typer.Typer) -> None:
    """Add the commands to `strongroom keys`."""
    for command in (status, uses, retire, quarantine, restore, destroy, schedule):
        app.command()(command)


def seconds(text: str) -> int:
    """A span of time such as `90d`, `12h`, `30m`, `2y` or a number of seconds. Raises `typer.BadParameter`."""
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise typer.BadParameter("must be a number with s, m, h, d or y behind it")
    return int(found[1]) * _SECONDS[found[2]]


def status(
    tenant: Tenant,
    *,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="End with 6 if anything is under another version than the newest."),
    ] = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what still uses each version, how old it is, when it is due, and how long running jobs take."""
    with client(profile, token_file) as vault:
        found = vault.key_status(tenant)
    if output is Format.JSON:
        show(output, found)
    else:
        _print(found)
    if exit_code and _left(found):
        raise typer.Exit(EXIT_NOT_ALL_DONE)


def uses(
    tenant: Tenant,
    *,
    version: Version,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List every version of a credential that a version of the key wraps."""
    with client(profile, token_file) as vault:
        show_all(output, vault.key_uses(tenant, version), ("name", "version"))


def retire(
    tenant: Tenant,
    *,
    version: Version,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Take a version that nothing depends on out of use, here and in the HSM."""
    with client(profile, token_file) as vault:
        show(output, vault.retire_key(tenant, version, validate_only=dry_run))


def quarantine(
    tenant: Tenant,
    *,
    version: Version,
    refuse_reads: Annotated[
        bool, typer.Option("--refuse-reads", help="Open nothing under it until it is re-encrypted.")
    ] = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Empty a version that may be compromised: rotate if it is in use, re-encrypt what it wraps before all else."""
    with client(profile, token_file) as vault:
        found = vault.quarantine_key(tenant, version, refuse_reads=refuse_reads, validate_only=dry_run)
        jobs.follow(vault, found.job, output, leave=dry_run or detach)


def restore(
    tenant: Tenant,
    *,
    version: Version,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Take one step back: from scheduled destruction to retired, from retired to opening what it wraps."""
    with client(profile, token_file) as vault:
        show(output, vault.restore_key(tenant, version, validate_only=dry_run))


def destroy(
    tenant: Tenant,
    *,
    version: Version,
    approval: Annotated[str, typer.Option(help="The id of the approval of `key.destroy`.")] = "",
    delay: Annotated[str, typer.Option(help="When, from now, such as 30d; at most 90d.")] = "7d",
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Schedule a version that nothing depends on for destruction. `keys restore` takes it back until then."""
    with client(profile, token_file) as vault:
        show(
            output,
            vault.destroy_key(
                tenant, version, approval_id=approval, delay_seconds=seconds(delay), validate_only=dry_run
            ),
        )


def schedule(
    tenant: Tenant,
    *,
    every: Annotated[str, typer.Option(help="Rotate at this age, such as 90d; 0 for not by age.")] = "0",
    max_wraps: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Rotate after so many wraps; 0 for not by number.")
    ] = 0,
    rewrap: Annotated[bool, typer.Option("--rewrap", help="Rewrap everything after each rotation.")] = False,
    purpose: Annotated[
        str, typer.Option(help="kek; of the tenant system: token, checkpoint, ingest.")
    ] = "kek",
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Have the vault rotate a key by itself, by age or by number of wraps; with neither, no longer."""
    if purpose not in ("kek", "token", "checkpoint", "ingest"):
        raise typer.BadParameter("must be kek, token, checkpoint or ingest", param_hint="--purpose")
    with client(profile, token_file) as vault:
        show(
            output,
            vault.schedule_key(
                tenant,
                purpose=purpose,
                every_seconds=seconds(every),
                max_wraps=max_wraps,
                rewrap=rewrap,
                validate_only=dry_run,
            ),
        )


def _left(found: key_pb2.KeyServiceGetStatusResponse) -> bool:
    from vault.v1 import key_pb2  # noqa: PLC0415 - protobuf is slow to import

    return any(
        item.credential_versions and item.key.state != key_pb2.KEY_STATE_ACTIVE for item in found.versions
    )


def _print(found: key_pb2.KeyServiceGetStatusResponse) -> None:
    from vault.v1 import key_pb2  # noqa: PLC0415 - protobuf is slow to import

    purposes, states = key_pb2.KeyPurpose, key_pb2.KeyState
    rows = [
        {
            "key": f"{purposes.Name(item.key.purpose).removeprefix('KEY_PURPOSE_').lower()} v{item.key.version}",
            "state": states.Name(item.key.state),
            "used_by": item.credential_versions,
            "oldest": _day(item, "oldest_create_time"),
            "wraps": item.wraps,
            "made": _day(item.key, "create_time"),
            "rotate_by": _day(item, "rotate_due_time"),
            "destroyed_on": _day(item, "destroy_time"),
        }
        for item in found.versions
    ]
    show_rows(Format.TABLE, rows, _COLUMNS)
    for job in found.jobs:
        print(f"{jobs.in_words(job)}: {job.done} of {job.total}, {job.failed} failed ({job.job_id})")
    told = (
        f"{found.remaining.seconds} s" if found.HasField("remaining") else "cannot be told before a first job"
    )
    show_dict(Format.TABLE, {"until nothing is under an old version": told})


def _day(message: key_pb2.KeyStatus | key_pb2.Key, field: str) -> str:
    return getattr(message, field).ToJsonString()[:10] if message.HasField(field) else ""
