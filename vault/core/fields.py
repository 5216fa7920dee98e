"""What was sealed to the vault, held against its kind while it lies open in locked memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vault.crypto import bundle, kinds
from vault.crypto.errors import FormatError
from vault.errors import Reason, VaultError, invalid_field

if TYPE_CHECKING:
    import datetime

    from vault.crypto.memory import LockedBuffer


class Checked(NamedTuple):
    """What may be told of what was sealed."""

    field_names: tuple[str, ...]
    expire_time: datetime.datetime | None
    """When the first of its certificates ends, UTC; None if its kind has none."""


def checked(plaintext: LockedBuffer, kind: str = "") -> Checked:
    """What it is, if its fields may be stored, and are those of the kind if one is given.

    Raises `SEALED_PAYLOAD_INVALID`, `STORING_FORBIDDEN`, `KIND_MISMATCH`, and `FIELD_INVALID` for an unknown kind.
    """
    try:
        fields = bundle.fields(plaintext.view)
    except FormatError:
        raise VaultError(Reason.SEALED_PAYLOAD_INVALID, "what was sealed is not a bundle of fields") from None
    if not fields:
        raise VaultError(Reason.SEALED_PAYLOAD_INVALID, "what was sealed holds no field")
    try:
        if kind:
            kinds.check(kind, fields)
        else:
            kinds.check_storable(fields)
    except kinds.ForbiddenError as error:
        raise VaultError(Reason.STORING_FORBIDDEN, str(error), field=error.field) from None
    except kinds.KindError as error:
        if error.field == "kind":
            raise invalid_field("kind", error.rule) from None
        raise VaultError(Reason.KIND_MISMATCH, str(error), field=error.field) from None
    return Checked(tuple(fields), kinds.expire_time(kind, fields))
