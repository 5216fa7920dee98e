"""Long work: rewrapping and re-encrypting."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from vault.client.operations.access import collect
from vault.v1 import job_pb2

if TYPE_CHECKING:
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps

MAX_WATCH_TRIES = 30
WATCH_JOB = "/vault.v1.JobService/Watch"
JOB_KINDS = {"rewrap": job_pb2.JOB_KIND_REWRAP, "reencrypt": job_pb2.JOB_KIND_REENCRYPT}
JOB_COMMANDS = {
    "": job_pb2.JOB_COMMAND_UNSPECIFIED,
    "pause": job_pb2.JOB_COMMAND_PAUSE,
    "resume": job_pb2.JOB_COMMAND_RESUME,
    "cancel": job_pb2.JOB_COMMAND_CANCEL,
}


def start_job(access: Access, request: job_pb2.JobServiceStartRequest) -> Steps[job_pb2.RewrapJob]:
    """Start a job."""
    request.request_id = random.token_urlsafe(16)
    response = yield from access.authorised(
        "/vault.v1.JobService/Start", request, job_pb2.JobServiceStartResponse
    )
    return response.job


def get_job(access: Access, tenant: str, job_id: str) -> Steps[job_pb2.RewrapJob]:
    """A job."""
    response = yield from access.authorised(
        "/vault.v1.JobService/Get",
        job_pb2.JobServiceGetRequest(tenant=tenant, job_id=job_id),
        job_pb2.JobServiceGetResponse,
    )
    return response.job


def list_jobs(access: Access, tenant: str) -> Steps[list[job_pb2.RewrapJob]]:
    """A tenant's jobs, newest first."""
    request = job_pb2.JobServiceListRequest(tenant=tenant)
    return collect(access, "/vault.v1.JobService/List", request, job_pb2.JobServiceListResponse, "jobs")


def list_job_failures(access: Access, tenant: str, job_id: str) -> Steps[list[job_pb2.JobFailure]]:
    """What a job could not do, by name and version."""
    request = job_pb2.JobServiceListFailuresRequest(tenant=tenant, job_id=job_id, page_size=1000)
    response = job_pb2.JobServiceListFailuresResponse
    return collect(access, "/vault.v1.JobService/ListFailures", request, response, "failures")


def update_job(access: Access, request: job_pb2.JobServiceUpdateRequest) -> Steps[job_pb2.RewrapJob]:
    """Pause, resume, cancel or throttle a job."""
    response = yield from access.authorised(
        "/vault.v1.JobService/Update", request, job_pb2.JobServiceUpdateResponse
    )
    return response.job
