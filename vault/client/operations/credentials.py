"""Credentials: put, read about, delete, have keys made."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration

from vault.client.operations.access import collect
from vault.client.operations.calls import MAX_TRIES, pause
from vault.client.sealing import seal_fields
from vault.crypto import kinds
from vault.v1 import credential_pb2

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from vault.client.errors import StrongroomError
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps
    from vault.client.sealing import IngestKey


def put(
    access: Access,
    name: str,
    fields: Mapping[str, str | bytes | bytearray | memoryview],
    kind: str,
    labels: Mapping[str, str] | None,
    etag: str,
    request_id: str,
    *,
    subject: str,
    rotation_days: int | None,
) -> Steps[credential_pb2.Credential]:
    """Seal and store a credential."""
    plain = {field: value.encode() if isinstance(value, str) else value for field, value in fields.items()}
    if kind:
        kinds.check(kind, plain)
    else:
        kinds.check_storable(plain)
    request_id = request_id or random.token_urlsafe(16)

    def request(key: IngestKey) -> Message:
        return credential_pb2.CredentialServicePutRequest(
            name=name,
            kind=kind,
            labels=labels or {},
            sealed=seal_fields(plain, name, kind, key),
            ingest_key_id=key.key_id,
            etag=etag,
            request_id=request_id,
            subject=subject,
            rotation_period=None if rotation_days is None else Duration(seconds=rotation_days * 86_400),
        )

    response = yield from access.sealed(
        "/vault.v1.CredentialService/Put", request, credential_pb2.CredentialServicePutResponse
    )
    return response.credential


def set_standing(
    access: Access,
    name: str,
    standing: str,
    note: str,
    expire_time: datetime.datetime | None,
    etag: str,
) -> Steps[credential_pb2.Credential]:
    """Set how a credential stands, and when it expires."""
    request = credential_pb2.CredentialServiceSetStandingRequest(
        name=name, standing=standing, note=note, etag=etag, request_id=random.token_urlsafe(16)
    )
    if expire_time is not None:
        request.expire_time.FromDatetime(expire_time)
    response = yield from access.authorised(
        "/vault.v1.CredentialService/SetStanding",
        request,
        credential_pb2.CredentialServiceSetStandingResponse,
    )
    return response.credential


def create_key(
    access: Access,
    name: str,
    algorithm: str,
    labels: Mapping[str, str] | None,
    kid: str,
    formats: Sequence[str],
    etag: str,
    request_id: str,
) -> Steps[credential_pb2.PublicKey]:
    """Have a key pair made in the HSM, as a new version of a credential."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/CreateKey",
        credential_pb2.CredentialServiceCreateKeyRequest(
            name=name,
            algorithm=algorithm,
            labels=labels or {},
            kid=kid,
            formats=formats,
            etag=etag,
            request_id=request_id or random.token_urlsafe(16),
        ),
        credential_pb2.CredentialServiceCreateKeyResponse,
    )
    return response.public_key


def public_key(access: Access, name: str, version: int) -> Steps[credential_pb2.PublicKey]:
    """The public half of a key in the HSM."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/GetPublicKey",
        credential_pb2.CredentialServiceGetPublicKeyRequest(name=name, version=version),
        credential_pb2.CredentialServiceGetPublicKeyResponse,
    )
    return response.public_key


def get(access: Access, name: str) -> Steps[credential_pb2.Credential]:
    """A credential's metadata."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/Get",
        credential_pb2.CredentialServiceGetRequest(name=name),
        credential_pb2.CredentialServiceGetResponse,
    )
    return response.credential


def list_credentials(
    access: Access, prefix: str, *, show_deleted: bool
) -> Steps[list[credential_pb2.Credential]]:
    """The metadata of all credentials under a prefix."""
    request = credential_pb2.CredentialServiceListRequest(prefix=prefix, show_deleted=show_deleted)
    return collect(
        access,
        "/vault.v1.CredentialService/List",
        request,
        credential_pb2.CredentialServiceListResponse,
        "credentials",
    )


def list_versions(access: Access, name: str) -> Steps[list[credential_pb2.CredentialVersion]]:
    """A credential's versions, newest first."""
    request = credential_pb2.CredentialServiceListVersionsRequest(name=name)
    return collect(
        access,
        "/vault.v1.CredentialService/ListVersions",
        request,
        credential_pb2.CredentialServiceListVersionsResponse,
        "versions",
    )


def delete(access: Access, name: str, etag: str) -> Steps[credential_pb2.Credential]:
    """Delete a credential."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/Delete",
        credential_pb2.CredentialServiceDeleteRequest(
            name=name, etag=etag, request_id=random.token_urlsafe(16)
        ),
        credential_pb2.CredentialServiceDeleteResponse,
    )
    return response.credential


def undelete(access: Access, name: str, etag: str) -> Steps[credential_pb2.Credential]:
    """Bring a deleted credential back."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/Undelete",
        credential_pb2.CredentialServiceUndeleteRequest(
            name=name, etag=etag, request_id=random.token_urlsafe(16)
        ),
        credential_pb2.CredentialServiceUndeleteResponse,
    )
    return response.credential


def destroy_version(
    access: Access, name: str, version: int, etag: str
) -> Steps[credential_pb2.CredentialVersion]:
    """Destroy a version for ever."""
    response = yield from access.authorised(
        "/vault.v1.CredentialService/DestroyVersion",
        credential_pb2.CredentialServiceDestroyVersionRequest(
            name=name, version=version, etag=etag, request_id=random.token_urlsafe(16)
        ),
        credential_pb2.CredentialServiceDestroyVersionResponse,
    )
    return response.version


def standing(name: str) -> str:
    """The name that a standing has in the proto; an empty one is none."""
    return f"STANDING_{(name or 'unspecified').upper().replace('-', '_')}"


class Watching:
    """A watch across lost connections: what to ask for next, and what a failure means for it."""

    METHOD = "/vault.v1.CredentialService/Watch"

    def __init__(self, access: Access, prefix: str, cursor: str) -> None:
        self.request = credential_pb2.CredentialServiceWatchRequest(prefix=prefix, cursor=cursor)
        self._access = access
        self._failures = 0

    def take(self, answer: credential_pb2.CredentialServiceWatchResponse) -> bool:
        """Remember how far it has come; whether something changed."""
        self._failures = 0
        self.request.cursor = answer.cursor
        return answer.change != credential_pb2.CREDENTIAL_CHANGE_UNSPECIFIED

    def after(self, failure: StrongroomError) -> float:
        """How long to wait before asking again, in seconds. Raises the failure if asking again is no use."""
        if self._access.renews(failure):
            return 0.0
        never_answered = not self.request.cursor and self._failures >= MAX_TRIES
        if failure.code is not grpc.StatusCode.UNAVAILABLE or never_answered:
            raise failure
        self._failures += 1
        return pause(min(self._failures, MAX_TRIES))
