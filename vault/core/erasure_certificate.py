"""The certificate of an erasure (`docs/formats.md`): what was erased, without the name of whom it was about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vault.core import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.core.erasure_proof import Tried
    from vault.model import CredentialKey, Erasure, Key
    from vault.store.ledger import Head

SIGNED_AS = "strongroom/erasure/v1"


def text(
    erased: str,
    erasure: Erasure,
    tried: Tried,
    *,
    credentials: int,
    keys: Sequence[Key],
    signing_keys: Sequence[CredentialKey],
    head: Head,
) -> str:
    """The text to be signed. `erased` is what it was: a tenant, a subject or a person; `head` is the log's."""
    return statements.text(
        SIGNED_AS,
        {
            "erased": erased,
            "tenant": erasure.tenant,
            "subject_id": erasure.subject_id,
            "credentials": credentials,
            "versions": tried.versions,
            "tried": tried.tried,
            "opened": 0,
            "keys_destroyed": [
                *(_destroyed(key, key.object_id.hex(), key.purpose.value) for key in keys),
                *(_destroyed(key, key.key_id, "signing") for key in signing_keys),
            ],
            "requested_by": erasure.requested_by,
            "approved_by": list(erasure.approved_by),
            "begin_time": erasure.create_time.isoformat(),
            "log_size": head.size,
            "log_root": head.frontier.root().hex(),
        },
    )


def verify_certificate(note: str, keys: Sequence[str]) -> dict[str, Any]:
    """What a certificate says, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    return statements.verify(SIGNED_AS, note, keys)


def _destroyed(key: Key | CredentialKey, object_id: str, purpose: str) -> dict[str, Any]:
    return {
        "backend": key.backend,
        "label": key.label,
        "object_id": object_id,
        "purpose": purpose,
        "version": key.version,
    }
