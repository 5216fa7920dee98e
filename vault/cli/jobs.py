"""The jobs under `strongroom keys`: rewrap, reencrypt, and how to follow and steer them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import MAX_INT32, read_text
from vault.cli.output import Format, Output, show, show_all, show_dict
from vault.cli.verification import EXIT_NOT_VALID, Keys, read_keys

if TYPE_CHECKING:
    from vault.client import Client
    from vault.v1 import job_pb2

EXIT_NOT_ALL_DONE = 6
EXIT_DETACHED = 130

Tenant = Annotated[str, typer.Argument(help="The tenant.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
Source = Annotated[
    int, typer.Option("--version", help="Only what this version of the key wraps; 0 for everything.")
]
Rate = Annotated[
    int, typer.Option(min=0, max=MAX_INT32, help="At most so many versions a second; 0 for no limit.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check, and say what would be done.")]
Detach = Annotated[bool, typer.Option("--detach", help="Start it and leave; `keys watch` comes back to it.")]

_COLUMNS = (
    "job_id", "kind", "state", "source_version", "total", "done", "skipped", "failed", "create_time", "created_by",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands to `strongroom keys`."""
    for command in (rewrap, reencrypt, watch, pause, resume, cancel, throttle, report, failures):
        app.command()(command)
    app.command("verify-report")(verify_report)
    app.command("jobs")(list_)


def rewrap(
    tenant: Tenant,
    *,
    version: Source = 0,
    max_per_second: Rate = 0,
    dry_run: DryRun = False,
    detach: Detach = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring all that older versions of the key wrap under the newest; the data keys stay."""
    with client(profile, token_file) as vault:
        job = vault.start_job(
            tenant, "rewrap", source_version=version, max_per_second=max_per_second, validate_only=dry_run
        )
        follow(vault, job, output, leave=dry_run or detach)


def reencrypt(
    tenant: Tenant,
    *,
    version: Source = 0,
    suite: Annotated[str, typer.Option(help="The suite; by default the current one.")] = "",
    max_per_second: Rate = 0,
    dry_run: DryRun = False,
    detach: Detach = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Encrypt everything anew: new data keys, under the newest key and a suite."""
    with client(profile, token_file) as vault:
        job = vault.start_job(
            tenant,
            "reencrypt",
            source_version=version,
            suite=suite,
            max_per_second=max_per_second,
            validate_only=dry_run,
        )
        follow(vault, job, output, leave=dry_run or detach)


def watch(
    tenant: Tenant,
    job_id: JobId,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Follow a job to its end. Ctrl-C detaches; the job goes on."""
    with client(profile, token_file) as vault:
        follow(vault, vault.get_job(tenant, job_id), output)


def list_(
    tenant: Tenant,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List a tenant's jobs, newest first."""
    with client(profile, token_file) as vault:
        show_all(output, vault.list_jobs(tenant), _COLUMNS)


def pause(
    tenant: Tenant,
    job_id: JobId,
    *,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Pause a job, at once on every worker."""
    with client(profile, token_file) as vault:
        show(output, vault.update_job(tenant, job_id, command="pause", validate_only=dry_run))


def resume(
    tenant: Tenant,
    job_id: JobId,
    *,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Let a paused job go on."""
    with client(profile, token_file) as vault:
        show(output, vault.update_job(tenant, job_id, command="resume", validate_only=dry_run))


def cancel(
    tenant: Tenant,
    job_id: JobId,
    *,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """End a job. What is done stays done; what is not opens as before."""
    with client(profile, token_file) as vault:
        show(output, vault.update_job(tenant, job_id, command="cancel", validate_only=dry_run))


def throttle(
    tenant: Tenant,
    job_id: JobId,
    max_per_second: Annotated[
        int, typer.Argument(min=0, max=MAX_INT32, help="At most so many versions a second; 0 for no limit.")
    ],
    *,
    dry_run: DryRun = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Let a job go slower or faster, all workers together."""
    with client(profile, token_file) as vault:
        show(output, vault.update_job(tenant, job_id, max_per_second=max_per_second, validate_only=dry_run))


def report(
    tenant: Tenant,
    job_id: JobId,
    *,
    out: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Give the signed report of a job that has ended, for an auditor; as JSON: the job with it."""
    with client(profile, token_file) as vault:
        job = vault.get_job(tenant, job_id)
    if not job.report:
        typer.echo("strongroom: the job has not ended", err=True)
        raise typer.Exit(EXIT_NOT_ALL_DONE)
    if out is not None:
        out.write_text(job.report)
    if output is Format.JSON:
        show(output, job)
    elif out is None:
        typer.echo(job.report, nl=False)


def failures(
    tenant: Tenant,
    job_id: JobId,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List all that a job could not do, and hold it against the signed report if there is one."""
    from vault.core.rotation_report import failures_digest, said  # noqa: PLC0415 - slow to import

    with client(profile, token_file) as vault:
        job = vault.get_job(tenant, job_id)
        found = vault.list_job_failures(tenant, job_id)
    show_all(output, found, ("name", "version", "reason", "create_time"))
    digest = failures_digest((item.name, item.version, item.reason) for item in found)
    if job.report and said(job.report)["failures_sha256"] != digest:
        typer.echo("strongroom: these are not the failures of the signed report", err=True)
        raise typer.Exit(EXIT_NOT_VALID)


def verify_report(
    file: Annotated[Path, typer.Argument(help="The report, as `keys report --out` wrote it.")],
    *,
    key: Keys,
    failures: Annotated[
        Path | None, typer.Option(help="All failures, as `keys failures --output json` gave them.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a job's report without the vault, and if given that these are its failures. Exit code 5 if not."""
    from vault.core.rotation_report import failures_digest, verify_report  # noqa: PLC0415 - slow to import
    from vault.crypto.errors import CryptoError  # noqa: PLC0415

    keys = read_keys(key)
    try:
        values = verify_report(read_text(file), keys)
    except CryptoError as error:
        show_dict(output, {"valid": False, "finding": str(error)})
        raise typer.Exit(EXIT_NOT_VALID) from None
    valid = True
    if failures is not None:
        try:
            listed = [
                (item["name"], item["version"], item["reason"]) for item in json.loads(read_text(failures))
            ]
        except (ValueError, KeyError, TypeError):
            raise typer.BadParameter("--failures: not what `keys failures --output json` gives") from None
        valid = values["failures_sha256"] == failures_digest(listed)
    show_dict(output, {"valid": valid, **values})
    if not valid:
        raise typer.Exit(EXIT_NOT_VALID)


def follow(vault: Client, job: job_pb2.RewrapJob, output: Format, *, leave: bool = False) -> None:
    """Show a job's progress until it ends (unless told to leave), then the job. Exits by how it ended."""
    from vault.v1 import job_pb2  # noqa: PLC0415 - protobuf is slow to import

    if not leave:
        try:
            job = _watch(vault, job)
        except KeyboardInterrupt:
            typer.echo(
                f"\ndetached; the job goes on: strongroom keys watch {job.tenant} {job.job_id}", err=True
            )
            raise typer.Exit(EXIT_DETACHED) from None
    show(output, job)
    if job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
        raise typer.Exit(EXIT_NOT_ALL_DONE)


def _watch(vault: Client, job: job_pb2.RewrapJob) -> job_pb2.RewrapJob:
    """Draw a bar on stderr until the job has ended; give the job as it ended."""
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=10) as progress:
        bar = progress.add_task("starting", total=job.total, rate="", failed=0)
        for job in vault.watch_job(job.tenant, job.job_id):  # noqa: B020, PLR1704 - the same job, later
            speed = progress.tasks[0].speed
            progress.update(
                bar,
                description=in_words(job),
                completed=job.done + job.skipped + job.failed,
                rate=f"{speed:.0f}/s" if speed else "",
                failed=job.failed,
            )
    return job


def in_words(job: job_pb2.RewrapJob) -> str:
    """A job's kind and state in two words, such as `rewrap running`."""
    from vault.v1 import job_pb2  # noqa: PLC0415

    kind = job_pb2.JobKind.Name(job.kind).removeprefix("JOB_KIND_")
    return f"{kind} {job_pb2.JobState.Name(job.state).removeprefix('JOB_STATE_')}".lower()
