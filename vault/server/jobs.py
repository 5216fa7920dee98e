"""`vault.v1.JobService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import requests
from vault.core.jobs import Change, Order
from vault.model import JobKind, JobState
from vault.server import wire
from vault.v1 import job_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vault.core.jobs import Jobs
    from vault.model import Caller
    from vault.server.pages import Pages

_KINDS = {
    pb.JOB_KIND_REWRAP: JobKind.REWRAP,
    pb.JOB_KIND_REENCRYPT: JobKind.REENCRYPT,
}
_COMMANDS = {
    pb.JOB_COMMAND_UNSPECIFIED: None,
    pb.JOB_COMMAND_PAUSE: JobState.PAUSED,
    pb.JOB_COMMAND_RESUME: JobState.RUNNING,
    pb.JOB_COMMAND_CANCEL: JobState.CANCELLED,
}


class JobService:
    """Starts, shows and steers jobs."""

    def __init__(self, jobs: Jobs, pages: Pages) -> None:
        self._jobs = jobs
        self._pages = pages

    async def start(self, request: pb.JobServiceStartRequest, caller: Caller) -> pb.JobServiceStartResponse:
        """See the proto."""
        order = Order(
            tenant=request.tenant,
            # What it cannot be is refused once it is clear that the caller may start one.
            kind=_KINDS.get(request.kind),
            source_version=requests.version(request.source_version),
            suite=request.suite,
            max_per_second=request.max_per_second,
        )
        progress = await self._jobs.start(
            caller, order, request.request_id, validate_only=request.validate_only
        )
        return pb.JobServiceStartResponse(job=wire.job(progress))

    async def get(self, request: pb.JobServiceGetRequest, caller: Caller) -> pb.JobServiceGetResponse:
        """See the proto."""
        progress = await self._jobs.get(caller, request.tenant, request.job_id)
        return pb.JobServiceGetResponse(job=wire.job(progress))

    async def list(self, request: pb.JobServiceListRequest, caller: Caller) -> pb.JobServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("job.list", request.tenant)
        moment, _, job_id = (self._pages.position(caller, query, request.page_token) or "").partition(" ")
        found = await self._jobs.list_jobs(caller, request.tenant, before=(moment, job_id), limit=size + 1)
        page = found[:size]
        jobs = [wire.job(progress) for progress in page]
        for job in jobs:
            job.ClearField("report")
        last = page[-1].job if page else None
        return pb.JobServiceListResponse(
            jobs=jobs,
            next_page_token=self._pages.token(caller, query, f"{last.create_time.isoformat()} {last.job_id}")
            if last and len(found) > size
            else "",
        )

    async def list_failures(
        self, request: pb.JobServiceListFailuresRequest, caller: Caller
    ) -> pb.JobServiceListFailuresResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("job.list_failures", request.tenant, request.job_id)
        name, _, version = (self._pages.position(caller, query, request.page_token) or " 0").rpartition(" ")
        found = await self._jobs.list_failures(
            caller, request.tenant, request.job_id, after=(name, int(version)), limit=size + 1
        )
        page = found[:size]
        return pb.JobServiceListFailuresResponse(
            failures=[wire.job_failure(failure) for failure in page],
            next_page_token=self._pages.token(caller, query, f"{page[-1].name} {page[-1].version}")
            if len(found) > size
            else "",
        )

    async def update(
        self, request: pb.JobServiceUpdateRequest, caller: Caller
    ) -> pb.JobServiceUpdateResponse:
        """See the proto."""
        change = Change(
            _COMMANDS.get(request.command),
            request.max_per_second if request.HasField("max_per_second") else None,
            known=request.command in _COMMANDS,
        )
        progress = await self._jobs.update(
            caller, request.tenant, request.job_id, change, validate_only=request.validate_only
        )
        return pb.JobServiceUpdateResponse(job=wire.job(progress))

    async def watch(
        self, request: pb.JobServiceWatchRequest, caller: Caller
    ) -> AsyncIterator[pb.JobServiceWatchResponse]:
        """See the proto."""
        async for progress in self._jobs.watch(caller, request.tenant, request.job_id):
            yield pb.JobServiceWatchResponse(job=wire.job(progress))
