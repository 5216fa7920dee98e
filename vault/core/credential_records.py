"""What is said of a credential: in the log, to a call that is repeated, and where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vault.errors import Reason, VaultError
from vault.store import credentials as store
from vault.store.rows import COLUMNS, canonical_json

if TYPE_CHECKING:
    import datetime

    from vault.model import Credential
    from vault.store.rows import Row

_TIMES = ("create_time", "update_time", "standing_time", "expire_time", "rotation_due_time")


def not_found() -> VaultError:
    """The error for a credential that does not exist."""
    return VaultError(Reason.CREDENTIAL_NOT_FOUND, "no such credential")


def deleted() -> VaultError:
    """The error for a credential that is deleted."""
    return VaultError(Reason.CREDENTIAL_DELETED, "the credential is deleted")


def state_of(credential: Credential, **more: int) -> str:
    """A credential's state as the log has it."""
    return canonical_json(
        {
            "etag": credential.etag,
            "field_names": list(credential.field_names),
            "kind": credential.kind,
            "labels": credential.labels,
            "state": credential.state.value,
            "version": credential.latest_version,
            **({"rotation_days": credential.rotation_days} if credential.rotation_days else {}),
            **more,
        }
    )


def answer_of(row: Row) -> str:
    """The row of a credential that is not deleted, as it is remembered for a repeated call."""
    return canonical_json({**row, **{name: row[name].isoformat() for name in _TIMES if row[name]}})


def of_answer(answer: str, now: datetime.datetime) -> Credential:
    """The credential of an answer that was remembered."""
    # What was remembered before a column was added says nothing of it.
    row = {**dict.fromkeys(COLUMNS["credentials"]), **json.loads(answer)}
    for name in _TIMES:
        row[name] = now.fromisoformat(row[name]) if row[name] else None
    return store.credential_from(row)
