"""What a scheme is given, and its verdict."""

from __future__ import annotations

import enum
import hmac
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

TOLERANCE_SECONDS = 300
MAX_SIGNATURES = 16


class Verdict(enum.StrEnum):
    """Why a webhook was or was not accepted."""

    VALID = "valid"
    HEADER_INVALID = "header-invalid"
    SIGNATURE_MISMATCH = "signature-mismatch"
    TOO_OLD = "too-old"
    TOO_NEW = "too-new"
    BODY_INVALID = "body-invalid"
    KEY_UNKNOWN = "key-unknown"


class Verification(NamedTuple):
    """A verdict, and the field whose secret matched; empty if none did."""

    verdict: Verdict
    field_name: str = ""


class Secret(NamedTuple):
    """One of the secrets to try: its field, its value, and the public name that goes with it, if the scheme has one."""

    field_name: str
    view: memoryview
    public: str = ""


def matching(expected: Iterable[tuple[str, bytes]], signatures: Iterable[bytes]) -> str:
    """The first field whose expected signature is one of these; each is compared, in constant time."""
    given = tuple(signatures)
    matched = ""
    for field_name, wanted in expected:
        for signature in given:
            if hmac.compare_digest(wanted, signature):
                matched = matched or field_name
    return matched


def aged(field_name: str, signed_at: float, now: float, *, oldest: float = TOLERANCE_SECONDS) -> Verification:
    """The verdict on a genuine signature. Age is judged last: only who knows the secret learns what the clock says."""
    if signed_at < now - oldest:
        return Verification(Verdict.TOO_OLD, field_name)
    if signed_at > now + TOLERANCE_SECONDS:
        return Verification(Verdict.TOO_NEW, field_name)
    return Verification(Verdict.VALID, field_name)
