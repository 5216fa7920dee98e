"""Opening sessions, and reveals of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from vault.client.operations.calls import MAX_TRIES, pause
from vault.client.sealing import Recipient
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.client.errors import StrongroomError
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


class Opening:
    """Opening a session, tried again as any call is: what a failure means for it.

    Nothing is done twice by that: a session whose opening nobody heard of has ended with its stream.
    """

    METHOD = "/vault.v1.SessionService/Open"

    def __init__(self, access: Access) -> None:
        self._access = access
        self._renewed = False
        self._failures = 0

    def after(self, failure: StrongroomError) -> float:
        """How long to wait before trying again, in seconds. Raises the failure if trying again is no use."""
        if not self._renewed and self._access.renews(failure):
            self._renewed = True
            return 0.0
        self._failures += 1
        if failure.code is not grpc.StatusCode.UNAVAILABLE or self._failures >= MAX_TRIES:
            raise failure
        return pause(self._failures - 1)
