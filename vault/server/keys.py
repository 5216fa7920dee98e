"""`vault.v1.KeyService`."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from vault.core import audit, requests
from vault.core.schedules import purpose as purpose_of
from vault.model import KeySchedule
from vault.server import wire
from vault.v1 import key_pb2 as pb

if TYPE_CHECKING:
    from vault.core.audit import AuditLog
    from vault.core.keys import Keyring
    from vault.core.lifecycle import Lifecycle
    from vault.core.schedules import Schedules
    from vault.model import Caller
    from vault.server.pages import Pages


class KeyService:
    """Makes, rotates and describes tenants' keys."""

    def __init__(
        self, keyring: Keyring, lifecycle: Lifecycle, schedules: Schedules, pages: Pages, log: AuditLog
    ) -> None:
        self._keyring = keyring
        self._lifecycle = lifecycle
        self._schedules = schedules
        self._pages = pages
        self._log = log

    async def create_tenant(
        self, request: pb.KeyServiceCreateTenantRequest, caller: Caller
    ) -> pb.KeyServiceCreateTenantResponse:
        """See the proto."""
        key = await self._keyring.create_tenant(
            caller,
            request.tenant,
            request.request_id,
            wire.homes(request.homes),
            validate_only=request.validate_only,
        )
        return pb.KeyServiceCreateTenantResponse(key=wire.key(key))

    async def rotate(
        self, request: pb.KeyServiceRotateRequest, caller: Caller
    ) -> pb.KeyServiceRotateResponse:
        """See the proto."""
        key = await self._keyring.rotate(
            caller,
            request.tenant,
            request.request_id,
            purpose_of(request.tenant, wire.key_purpose(request.purpose)),
            homes=wire.homes(request.homes),
            validate_only=request.validate_only,
        )
        return pb.KeyServiceRotateResponse(key=wire.key(key))

    async def list(self, request: pb.KeyServiceListRequest, caller: Caller) -> pb.KeyServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("key.list", request.tenant)
        before = int(self._pages.position(caller, query, request.page_token) or requests.MAX_VERSION)
        found = await self._keyring.list_keys(caller, request.tenant, before=before, limit=size + 1)
        await self._log.record(audit.granted(caller, "key.list", f"{request.tenant}/keys"))
        page = found[:size]
        return pb.KeyServiceListResponse(
            keys=map(wire.key, page),
            next_page_token=self._pages.token(caller, query, str(page[-1].version))
            if len(found) > size
            else "",
        )

    async def describe(
        self, request: pb.KeyServiceDescribeRequest, caller: Caller
    ) -> pb.KeyServiceDescribeResponse:
        """See the proto."""
        described = await self._keyring.describe(caller, request.tenant, request.version)
        await self._log.record(audit.granted(caller, "key.describe", f"{request.tenant}/keys"))
        return pb.KeyServiceDescribeResponse(
            key=wire.key(described.key),
            credential_versions=described.credential_versions,
            # What the HSM does not say counts against the key.
            sensitive=bool(described.info.sensitive),
            extractable=described.info.extractable is not False,
            local=bool(described.info.local),
        )

    async def get_status(
        self, request: pb.KeyServiceGetStatusRequest, caller: Caller
    ) -> pb.KeyServiceGetStatusResponse:
        """See the proto."""
        status = await self._schedules.status(caller, request.tenant)
        return pb.KeyServiceGetStatusResponse(
            versions=map(wire.key_status, status.versions),
            jobs=map(wire.job, status.jobs),
            remaining=wire.duration(status.remaining),
            schedules=map(wire.key_schedule, status.schedules),
        )

    async def list_uses(
        self, request: pb.KeyServiceListUsesRequest, caller: Caller
    ) -> pb.KeyServiceListUsesResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("key.list_uses", request.tenant, str(request.version))
        name, _, version = (self._pages.position(caller, query, request.page_token) or " 0").partition(" ")
        found = await self._keyring.list_uses(
            caller, request.tenant, request.version, after=(name, int(version)), limit=size + 1
        )
        page = found[:size]
        return pb.KeyServiceListUsesResponse(
            uses=[pb.KeyUse(name=name, version=version) for name, version in page],
            next_page_token=self._pages.token(caller, query, f"{page[-1][0]} {page[-1][1]}")
            if len(found) > size
            else "",
        )

    async def retire(
        self, request: pb.KeyServiceRetireRequest, caller: Caller
    ) -> pb.KeyServiceRetireResponse:
        """See the proto."""
        key = await self._lifecycle.retire(
            caller, request.tenant, request.version, validate_only=request.validate_only
        )
        return pb.KeyServiceRetireResponse(key=wire.key(key))

    async def quarantine(
        self, request: pb.KeyServiceQuarantineRequest, caller: Caller
    ) -> pb.KeyServiceQuarantineResponse:
        """See the proto."""
        quarantined = await self._lifecycle.quarantine(
            caller,
            request.tenant,
            request.version,
            refuse_reads=request.refuse_reads,
            validate_only=request.validate_only,
        )
        return pb.KeyServiceQuarantineResponse(key=wire.key(quarantined.key), job=wire.job(quarantined.job))

    async def restore(
        self, request: pb.KeyServiceRestoreRequest, caller: Caller
    ) -> pb.KeyServiceRestoreResponse:
        """See the proto."""
        key = await self._lifecycle.restore(
            caller, request.tenant, request.version, validate_only=request.validate_only
        )
        return pb.KeyServiceRestoreResponse(key=wire.key(key))

    async def destroy(
        self, request: pb.KeyServiceDestroyRequest, caller: Caller
    ) -> pb.KeyServiceDestroyResponse:
        """See the proto."""
        key, moment = await self._lifecycle.destroy(
            caller,
            request.tenant,
            request.version,
            wire.span("delay", request.delay) if request.HasField("delay") else None,
            request.approval_id,
            validate_only=request.validate_only,
        )
        return pb.KeyServiceDestroyResponse(key=wire.key(key), destroy_time=wire.timestamp(moment))

    async def set_schedule(
        self, request: pb.KeyServiceSetScheduleRequest, caller: Caller
    ) -> pb.KeyServiceSetScheduleResponse:
        """See the proto."""
        wanted = request.schedule
        schedule = KeySchedule(
            tenant=request.tenant,
            purpose=purpose_of(request.tenant, wire.key_purpose(wanted.purpose)),
            every_seconds=int(wire.span("schedule.every", wanted.every).total_seconds()),
            max_wraps=wanted.max_wraps,
            rewrap=wanted.rewrap,
            # Said by the unit that writes it.
            update_time=datetime.datetime.fromtimestamp(0, datetime.UTC),
            updated_by="",
        )
        schedule = await self._schedules.set_schedule(caller, schedule, validate_only=request.validate_only)
        return pb.KeyServiceSetScheduleResponse(schedule=wire.key_schedule(schedule))
