"""The sessions that are open on this worker, found by whose they are and by what they hold.

Thousands may be open, and every change in the log asks which of them it concerns: that must not mean to walk them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault.core.session import Session
    from vault.model import AuditRecord


class OpenSessions:
    """A set of sessions, with indexes."""

    def __init__(self) -> None:
        # By session: the names it was entered under, which it itself forgets when it is wiped.
        self._names: dict[Session, tuple[str, ...]] = {}
        self._by_name: defaultdict[str, set[Session]] = defaultdict(set)
        self._by_identity: Counter[str] = Counter()
        self._by_tenant: Counter[str] = Counter()

    def add(self, session: Session) -> None:
        """Enter a session."""
        self._names[session] = names = tuple(opened.name for opened in session.opened)
        for name in names:
            self._by_name[name].add(session)
        self._by_identity[session.caller.identity] += 1
        self._by_tenant[session.token.tenant] += 1

    def discard(self, session: Session) -> None:
        """Strike a session out, if it is there."""
        names = self._names.pop(session, None)
        if names is None:
            return
        for name in names:
            self._by_name[name].discard(session)
            if not self._by_name[name]:
                del self._by_name[name]
        _take_one(self._by_identity, session.caller.identity)
        _take_one(self._by_tenant, session.token.tenant)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._names))

    def of_identity(self, identity: str) -> int:
        """How many an identity has."""
        return self._by_identity[identity]

    def of_tenant(self, tenant: str) -> int:
        """How many a tenant has."""
        return self._by_tenant[tenant]

    def concerned_by(self, record: AuditRecord) -> tuple[Session, ...]:
        """The sessions that a change may concern: those on its credential, or all if it is of another kind."""
        if record.action.startswith("credential."):
            return tuple(self._by_name.get(record.resource, ()))
        return tuple(self._names)


def _take_one(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
