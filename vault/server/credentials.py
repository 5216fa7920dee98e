"""`vault.v1.CredentialService`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vault.core import requests
from vault.core.credential_keys import CreateKey
from vault.core.new_versions import Put
from vault.server import wire
from vault.v1 import credential_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vault.core.credential_keys import CredentialKeys
    from vault.core.credentials import Credentials
    from vault.core.ingest import IngestKeys
    from vault.core.standing import Standings
    from vault.core.watches import Watches
    from vault.model import Caller
    from vault.server.pages import Pages


class CredentialService:
    """Stores credentials and tells about them."""

    def __init__(
        self,
        credentials: Credentials,
        keys: CredentialKeys,
        watches: Watches,
        standings: Standings,
        ingest: IngestKeys,
        pages: Pages,
    ) -> None:
        self._credentials = credentials
        self._keys = keys
        self._watches = watches
        self._standings = standings
        self._ingest = ingest
        self._pages = pages

    async def get_ingest_key(
        self, request: pb.CredentialServiceGetIngestKeyRequest, caller: Caller
    ) -> pb.CredentialServiceGetIngestKeyResponse:
        """See the proto."""
        key = await self._ingest.offer(caller, request.hpke_suite)
        return pb.CredentialServiceGetIngestKeyResponse(signed_key=key.signed_key)

    async def put(
        self, request: pb.CredentialServicePutRequest, caller: Caller
    ) -> pb.CredentialServicePutResponse:
        """See the proto."""
        put = Put(
            name=request.name,
            kind=request.kind,
            labels=dict(request.labels),
            sealed=request.sealed,
            ingest_key_id=request.ingest_key_id,
            etag=request.etag,
            request_id=request.request_id,
            subject=request.subject,
            rotation_period=wire.span("rotation_period", request.rotation_period)
            if request.HasField("rotation_period")
            else None,
        )
        return pb.CredentialServicePutResponse(
            credential=wire.credential(await self._credentials.put(caller, put))
        )

    async def get(
        self, request: pb.CredentialServiceGetRequest, caller: Caller
    ) -> pb.CredentialServiceGetResponse:
        """See the proto."""
        return pb.CredentialServiceGetResponse(
            credential=wire.credential(await self._credentials.get(caller, request.name))
        )

    async def list(
        self, request: pb.CredentialServiceListRequest, caller: Caller
    ) -> pb.CredentialServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("credential.list", request.prefix, str(request.show_deleted))
        after = self._pages.position(caller, query, request.page_token) or ""
        found = await self._credentials.list_credentials(
            caller, request.prefix, after=after, limit=size + 1, show_deleted=request.show_deleted
        )
        page = found[:size]
        return pb.CredentialServiceListResponse(
            credentials=map(wire.credential, page),
            next_page_token=self._pages.token(caller, query, page[-1].name) if len(found) > size else "",
        )

    async def list_versions(
        self, request: pb.CredentialServiceListVersionsRequest, caller: Caller
    ) -> pb.CredentialServiceListVersionsResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("credential.list_versions", request.name)
        before = int(self._pages.position(caller, query, request.page_token) or requests.MAX_VERSION)
        found = await self._credentials.list_versions(caller, request.name, before=before, limit=size + 1)
        page = found[:size]
        return pb.CredentialServiceListVersionsResponse(
            versions=map(wire.version, page),
            next_page_token=self._pages.token(caller, query, str(page[-1].version))
            if len(found) > size
            else "",
        )

    async def create_key(
        self, request: pb.CredentialServiceCreateKeyRequest, caller: Caller
    ) -> pb.CredentialServiceCreateKeyResponse:
        """See the proto."""
        wanted = CreateKey(
            name=request.name,
            algorithm=request.algorithm,
            labels=dict(request.labels),
            kid=request.kid,
            formats=tuple(request.formats),
            etag=request.etag,
            request_id=request.request_id,
        )
        made = await self._keys.create(caller, wanted)
        return pb.CredentialServiceCreateKeyResponse(
            credential=wire.credential(made.credential), public_key=wire.public_key(made.key)
        )

    async def get_public_key(
        self, request: pb.CredentialServiceGetPublicKeyRequest, caller: Caller
    ) -> pb.CredentialServiceGetPublicKeyResponse:
        """See the proto."""
        found = await self._keys.public(caller, request.name, request.version)
        return pb.CredentialServiceGetPublicKeyResponse(public_key=wire.public_key(found))

    async def delete(
        self, request: pb.CredentialServiceDeleteRequest, caller: Caller
    ) -> pb.CredentialServiceDeleteResponse:
        """See the proto."""
        credential = await self._credentials.delete(caller, request.name, request.etag, request.request_id)
        return pb.CredentialServiceDeleteResponse(credential=wire.credential(credential))

    async def undelete(
        self, request: pb.CredentialServiceUndeleteRequest, caller: Caller
    ) -> pb.CredentialServiceUndeleteResponse:
        """See the proto."""
        credential = await self._credentials.undelete(caller, request.name, request.etag, request.request_id)
        return pb.CredentialServiceUndeleteResponse(credential=wire.credential(credential))

    async def destroy_version(
        self, request: pb.CredentialServiceDestroyVersionRequest, caller: Caller
    ) -> pb.CredentialServiceDestroyVersionResponse:
        """See the proto."""
        version = await self._credentials.destroy_version(
            caller, request.name, request.version, request.etag, request.request_id
        )
        return pb.CredentialServiceDestroyVersionResponse(version=wire.version(version))

    async def watch(
        self, request: pb.CredentialServiceWatchRequest, caller: Caller
    ) -> AsyncGenerator[pb.CredentialServiceWatchResponse]:
        """See the proto."""
        query = ("credential.watch", request.prefix)
        position = self._pages.position(caller, query, request.cursor)
        seen = self._watches.watch(caller, request.prefix, None if position is None else int(position))
        async with contextlib.aclosing(seen) as all_seen:
            async for change, behind in all_seen:
                cursor = self._pages.token(caller, query, str(behind))
                yield wire.change(change, cursor)

    async def set_standing(
        self, request: pb.CredentialServiceSetStandingRequest, caller: Caller
    ) -> pb.CredentialServiceSetStandingResponse:
        """See the proto."""
        credential = await self._standings.set(
            caller,
            request.name,
            wire.standing(request.standing),
            request.note,
            wire.moment("expire_time", request.expire_time) if request.HasField("expire_time") else None,
            request.etag,
            request.request_id,
        )
        return pb.CredentialServiceSetStandingResponse(credential=wire.credential(credential))
