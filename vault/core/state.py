"""The state held against the log: every row must be the one that the log last says was written.

So an edited, deleted, inserted or rolled-back row shows. Requests are left out: they are forgotten after a day, and
hold nothing but answers. Memory grows with the number of rows, not with the log.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vault.core.revocations import MAX_TOKEN_LIFE
from vault.store.state import digests

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping

    from vault.store.engine import Database

TABLES = (
    "tenants",
    "keys",
    "subjects",
    "ingest_keys",
    "checkpoint_keys",
    "credentials",
    "credential_versions",
    "handovers",
    "revocations",
    "group_revocations",
    "token_uses",
    "jobs",
    "job_ranges",
    "job_failures",
)
_FORGOTTEN = ("revocations:", "group_revocations:", "token_uses:")
"""Rows that upkeep removes when no token can be alive that they concern."""


class State:
    """What the log says of each row: the digest of what was last written, and when."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, datetime.datetime]] = {}

    def take(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in records, in the order of the log."""
        for record in records:
            if record["rows_written"]:
                for key, digest in json.loads(record["rows_written"]).items():
                    if key.partition(":")[0] in TABLES:
                        self._last[key] = (digest, record["created_at"])

    def says(self, key: str, digest: str) -> bool:
        """Whether this is the row that was last written under the key."""
        return key in self._last and self._last[key][0] == digest

    def missing(self, seen: set[str], now: datetime.datetime) -> list[str]:
        """Keys that the log knows and that were not seen, but for what may go when no token can be alive."""
        return [
            key
            for key, (_, written) in self._last.items()
            if key not in seen and not (key.startswith(_FORGOTTEN) and now - written >= MAX_TOKEN_LIFE)
        ]


async def odd_rows(database: Database, state: State, seen: set[str]) -> dict[str, str]:
    """Rows that are not as the state says, by key, with the digest they have now. Notes every key in `seen`."""
    odd: dict[str, str] = {}
    for table in TABLES:
        async for key, digest in digests(database, table):
            seen.add(key)
            if not state.says(key, digest):
                odd[key] = digest
    return odd


def explained(odd: dict[str, str], records: Iterable[Mapping[str, Any]], find: Callable[[str], None]) -> None:
    """Report the odd rows, but for those that were written while they were read, as later records say."""
    written: set[tuple[str, str]] = set()
    for record in records:
        if record["rows_written"]:
            written.update(json.loads(record["rows_written"]).items())
    for key, digest in odd.items():
        if (key, digest) not in written:
            find(f"row {key}: it is not what the log says was written")
