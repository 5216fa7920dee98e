"""Reveals of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.client.sealing import Recipient
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps
    from vault.client.secrets import Secrets


def reveal(
    access: Access, names: Sequence[str], purpose: str, field_names: Sequence[str], approval_id: str = ""
) -> Steps[list[Secrets]]:
    """Reveal several credentials in one call."""
    recipient = Recipient()
    request = session_pb2.SessionServiceRevealRequest(
        credentials=[session_pb2.CredentialSelector(name=name, field_names=field_names) for name in names],
        purpose=purpose,
        recipient_key=recipient.public_bytes,
        hpke_suite=recipient.hpke_suite,
        approval_id=approval_id,
    )
    response = yield from access.authorised(
        "/vault.v1.SessionService/Reveal", request, session_pb2.SessionServiceRevealResponse
    )
    return recipient.open_parcel(response)
