"""The options by which `strongroom audit` says which records it means."""

from __future__ import annotations

import datetime
import enum
import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vault.client.operations.audit import AuditFilters

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Only(enum.StrEnum):
    """Which outcomes."""

    GRANTED = "granted"
    REFUSED = "refused"


Tenant = Annotated[str, typer.Option(help="Only this tenant's records.")]
Identity = Annotated[str, typer.Option(help="Only by this identity.")]
Credential = Annotated[
    str,
    typer.Option(
        "--credential", "--resource", help="Only on this credential or resource, or all beneath `prefix/**`."
    ),
]
Action = Annotated[str, typer.Option(help="Only this action, for example session.reveal.")]
Outcome = Annotated[Only | None, typer.Option(help="Only what was granted, or only what was refused.")]
Since = Annotated[str, typer.Option(help="Only since then: RFC 3339, or so long ago: 30m, 12h, 7d.")]
Until = Annotated[str, typer.Option(help="Only before then: RFC 3339, or so long ago.")]
Network = Annotated[str, typer.Option(help="Only from this address or network, for example 10.1.0.0/16.")]
Device = Annotated[str, typer.Option(help="Only with this device id.")]


def filters(
    tenant: str,
    identity: str,
    credential: str,
    action: str,
    outcome: Only | None,
    network: str,
    device: str,
    *,
    since: str = "",
    until: str = "",
) -> AuditFilters:
    """The conditions, as the SDK takes them."""
    return {
        "tenant": tenant,
        "identity": identity,
        "resource": credential,
        "action": action,
        "outcome": "" if outcome is None else outcome.value,
        "since": _moment(since),
        "until": _moment(until),
        "network": network,
        "device_id": device,
    }


def _moment(text: str) -> datetime.datetime | None:
    """A moment from RFC 3339, or from how long ago it was."""
    if not text:
        return None
    if ago := _AGO.fullmatch(text):
        return datetime.datetime.now(datetime.UTC) - datetime.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("a moment must be RFC 3339, or such as 30m, 12h, 7d") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
