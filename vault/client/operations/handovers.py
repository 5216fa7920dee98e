"""Secrets that one identity can open once."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from vault.client.sealing import Recipient, seal_handover
from vault.v1 import handover_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps
    from vault.client.sealing import IngestKey
    from vault.client.secrets import Secrets


def wrap(
    access: Access,
    name: str,
    fields: Mapping[str, str | bytes | bytearray | memoryview],
    recipient: str,
    ttl_seconds: int,
) -> Steps[handover_pb2.HandoverServiceWrapResponse]:
    """Seal and wrap a secret for one identity."""
    request_id = random.token_urlsafe(16)

    def request(key: IngestKey) -> Message:
        return handover_pb2.HandoverServiceWrapRequest(
            name=name,
            recipient=recipient,
            sealed=seal_handover(fields, name, recipient, key),
            ingest_key_id=key.key_id,
            ttl=Duration(seconds=ttl_seconds),
            request_id=request_id,
        )

    return access.sealed("/vault.v1.HandoverService/Wrap", request, handover_pb2.HandoverServiceWrapResponse)


def unwrap(access: Access, name: str, handover_id: str) -> Steps[Secrets]:
    """Open a wrapped secret, once."""
    recipient = Recipient()
    request = handover_pb2.HandoverServiceUnwrapRequest(
        name=name,
        handover_id=handover_id,
        recipient_key=recipient.public_bytes,
        hpke_suite=recipient.hpke_suite,
    )
    response = yield from access.authorised(
        "/vault.v1.HandoverService/Unwrap",
        request,
        handover_pb2.HandoverServiceUnwrapResponse,
        repeatable=False,
    )
    return recipient.open_handover(name, handover_id, response)
