"""`vault.v1.KeyService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import audit, requests
from vault.server import wire
from vault.v1 import key_pb2 as pb

if TYPE_CHECKING:
    from vault.core.audit import AuditLog
    from vault.core.keys import Keyring
    from vault.model import Caller
    from vault.server.pages import Pages


class KeyService:
    """Makes, rotates and describes tenants' keys."""

    def __init__(self, keyring: Keyring, pages: Pages, log: AuditLog) -> None:
        self._keyring = keyring
        self._pages = pages
        self._log = log

    async def create_tenant(
        self, request: pb.KeyServiceCreateTenantRequest, caller: Caller
    ) -> pb.KeyServiceCreateTenantResponse:
        """See the proto."""
        key = await self._keyring.create_tenant(caller, request.tenant, request.request_id)
        return pb.KeyServiceCreateTenantResponse(key=wire.key(key))

    async def rotate(
        self, request: pb.KeyServiceRotateRequest, caller: Caller
    ) -> pb.KeyServiceRotateResponse:
        """See the proto."""
        key = await self._keyring.rotate(caller, request.tenant, request.request_id)
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
