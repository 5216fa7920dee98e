"""The sessions that are open on this worker, found by whose they are and by what they hold.

Thousands may be open, and every change in the log asks which of them it concerns: that must not mean to walk them all.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vault.core.session import Session
    from vault.model import AuditRecord


class _Entry(NamedTuple):
    """What a session holds, which it itself forgets when it is wiped."""

    names: tuple[str, ...]
    locked_bytes: int


class OpenSessions:
    """A set of sessions, with indexes."""

    def __init__(self) -> None:
        self._entries: dict[Session, _Entry] = {}
        self._by_name: defaultdict[str, set[Session]] = defaultdict(set)
        self._by_identity: Counter[str] = Counter()
        self._by_tenant: Counter[str] = Counter()
        self._bytes_by_tenant: Counter[str] = Counter()

    def add(self, session: Session) -> None:
        """Enter a session."""
        entry = _Entry(tuple(opened.name for opened in session.opened), session.locked_bytes)
        self._entries[session] = entry
        for name in entry.names:
            self._by_name[name].add(session)
        self._by_identity[session.caller.identity] += 1
        self._by_tenant[session.token.tenant] += 1
        self._bytes_by_tenant[session.token.tenant] += entry.locked_bytes

    def discard(self, session: Session) -> None:
        """Strike a session out, if it is there."""
        entry = self._entries.pop(session, None)
        if entry is None:
            return
        for name in entry.names:
            self._by_name[name].discard(session)
            if not self._by_name[name]:
                del self._by_name[name]
        _take(self._by_identity, session.caller.identity, 1)
        _take(self._by_tenant, session.token.tenant, 1)
        _take(self._bytes_by_tenant, session.token.tenant, entry.locked_bytes)

    def grow(self, session: Session, more_bytes: int) -> None:
        """Take note that a session, if it is there, holds more locked memory now, or less."""
        entry = self._entries.get(session)
        if entry is not None:
            self._entries[session] = entry._replace(locked_bytes=entry.locked_bytes + more_bytes)
            self._bytes_by_tenant[session.token.tenant] += more_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._entries))

    def of_identity(self, identity: str) -> int:
        """How many an identity has."""
        return self._by_identity[identity]

    def of_tenant(self, tenant: str) -> int:
        """How many a tenant has."""
        return self._by_tenant[tenant]

    def bytes_of_tenant(self, tenant: str) -> int:
        """How much locked memory those of a tenant hold."""
        return self._bytes_by_tenant[tenant]

    def concerned_by(self, record: AuditRecord) -> tuple[Session, ...]:
        """The sessions that a change may concern: those on its credential, or all if it is of another kind."""
        if record.action.startswith("credential."):
            return tuple(self._by_name.get(record.resource, ()))
        return tuple(self._entries)


class Openings:
    """What is being opened just now, and what the log says of it meanwhile: there is no session yet to hear it."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[frozenset[str], list[AuditRecord]]] = {}

    @contextlib.contextmanager
    def of(self, names: Iterable[str]) -> Iterator[list[AuditRecord]]:
        """The changes of these credentials that are heard of from now on, until the block is left."""
        heard: list[AuditRecord] = []
        self._under_way[id(heard)] = frozenset(names), heard
        try:
            yield heard
        finally:
            del self._under_way[id(heard)]

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log."""
        for names, heard in self._under_way.values():
            if record.resource in names:
                heard.append(record)


def _take(counter: Counter[str], key: str, amount: int) -> None:
    counter[key] -= amount
    if not counter[key]:
        del counter[key]
