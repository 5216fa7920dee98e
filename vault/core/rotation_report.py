"""The signed report of a job that rotated keys: a note (C2SP) of two lines, what it is and a JSON object.

The object's `failures_sha256` binds everything that the job could not do, however much of it the report names:
SHA-256 in hex over a line for each, by name and version.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

from vault.core import statements
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vault.model import JobFailure

REPORT = "strongroom/rotation-report/v1"
# A report must fit into what an HSM signs at once (1 MiB, `hsm.backend`) and into an answer, however long the names.
_NAMED_BYTES = 512 * 1024
_NAME_MARKS = 32  # what a report says around a failure beside its line


def text(values: dict[str, object]) -> str:
    """The text of a report, to be signed."""
    return statements.text(REPORT, values)


def failure_line(name: str, version: int, reason: str) -> bytes:
    """What `failures_sha256` is over, of one version of a credential."""
    return f"{canonical_json([name, version, reason])}\n".encode()


def that_fit(failures: Sequence[JobFailure]) -> list[JobFailure]:
    """The first failures, as many as a report has room for."""
    sizes = (len(failure_line(item.name, item.version, item.reason)) for item in failures)
    ends = itertools.accumulate(size + _NAME_MARKS for size in sizes)
    return [item for item, end in zip(failures, ends, strict=True) if end <= _NAMED_BYTES]


def failures_digest(failures: Iterable[tuple[str, int, str]]) -> str:
    """`failures_sha256` of names, versions and reasons, by name and version."""
    digest = hashlib.sha256()
    for failure in failures:
        digest.update(failure_line(*failure))
    return digest.hexdigest()


def verify_report(note: str, keys: Sequence[str]) -> dict[str, Any]:
    """What a report says, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    return statements.verify(REPORT, note, keys)


def said(note: str) -> dict[str, Any]:
    """What a report says; who signed it is not looked at. Raises `FormatError`."""
    return statements.values(REPORT, note)
