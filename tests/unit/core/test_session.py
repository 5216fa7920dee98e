"""Operations of one session that meet: what one renews, another goes on with."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.clock import UTC, SystemClock
from vault.core.batch import Load
from vault.core.session import CloseReason, Session, SessionSettings, content_of
from vault.core.uses.material import Done, Material, Surroundings
from vault.core.uses.table import USES, Use
from vault.crypto import bundle, memory, scopes
from vault.model import (
    Caller,
    Certificate,
    CredentialState,
    Origin,
    Standing,
    StoredVersion,
    Token,
    VersionState,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from vault.core.session import Content
    from vault.model import AuditDraft

ACTION = "session.use.http_call"
ITEM, LENDER = "acme/item", "acme/lender"


class Ask(NamedTuple):
    """Reaches out, with fields of another credential."""

    def intent(self) -> dict[str, object]:
        return {}


class Renew(NamedTuple):
    """Makes a newer version of its credential."""


class Log:
    """A log that takes a while: what happens meanwhile, a test says."""

    def __init__(self) -> None:
        self.meanwhile: list[Callable[[], Awaitable[Any]]] = []

    async def record(self, *_drafts: AuditDraft) -> None:
        if self.meanwhile:
            await self.meanwhile.pop()()


def content(name: str, version: int) -> Content:
    packed = bundle.pack_into({"secret": f"{name} {version}".encode()}, memory.allocate)
    stored = StoredVersion(
        name, version, "acme", "generic", VersionState.ENABLED, CredentialState.ACTIVE, Standing.ACTIVE, 1, 1,
        ("secret",), b"",
    )  # fmt: skip
    return content_of(stored, packed)


def caller() -> Caller:
    now = datetime.datetime.now(UTC)
    later = now + datetime.timedelta(hours=1)
    token = Token("t" * 22, "me", "acme", (scopes.parse(f"{ACTION}:acme/**"),), "", now, later)
    return Caller(Certificate("me", "", now, later), Origin(), token)


async def lent(material: Material, _request: Ask, _surroundings: Surroundings) -> Done:
    assert material.companion is not None
    return Done(bytes(bundle.field_view(material.companion.view, "secret")))


async def renewed(_material: Material, _request: Renew, _surroundings: Surroundings) -> Done:
    return Done(None, renewed=True)


def session_with(log: Log, clock: SystemClock) -> Session:
    """A session on the item and on what lends it fields; a renewal makes version 2."""

    async def newest(_session: Session, name: str) -> Content:
        return content(name, 2)

    return Session(
        caller(),
        {ITEM: content(ITEM, 1), LENDER: content(LENDER, 1)},
        memory.allocate(32),
        log,  # type: ignore[arg-type]  # as much of it as a session needs
        Load(),
        clock,
        Surroundings(now=clock.now),
        reopen=newest,
        more_memory=lambda _session, _more_bytes: contextlib.nullcontext(),
        expire_time=clock.now() + datetime.timedelta(hours=1),
    )


def test_what_lends_its_fields_may_be_renewed_while_the_log_takes_the_intent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(USES, Ask, Use(ACTION, lent, reaches_out=True))
    monkeypatch.setitem(USES, Renew, Use(ACTION, renewed))

    async def ask() -> bytes:
        log = Log()
        session = session_with(log, SystemClock())
        log.meanwhile.append(lambda: session.use(LENDER, Renew()))
        found: bytes = await session.use(ITEM, Ask(), LENDER)
        return found

    assert asyncio.run(ask()) == f"{LENDER} 2".encode()


class Watch(SystemClock):
    """A clock whose hand a test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_who_waits_for_a_provider_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = 10
    hour = datetime.timedelta(hours=1)
    settings = SessionSettings(hour, datetime.timedelta(seconds=idle), 1, 1, 1, 1)
    clock = Watch()
    opened: list[Session] = []

    async def slow(_material: Material, _request: Ask, _surroundings: Surroundings) -> Done:
        clock.seconds += 3 * idle
        opened[0].tick(settings)
        return Done(opened[0].ended.done())

    async def ask() -> None:
        session = session_with(Log(), clock)
        opened.append(session)
        assert not await session.use(ITEM, Ask())
        clock.seconds += idle - 1
        session.tick(settings)
        assert not session.ended.done(), "it counts from the answer"
        clock.seconds += 1
        session.tick(settings)
        assert session.ended.result() is CloseReason.IDLE

    monkeypatch.setitem(USES, Ask, Use(ACTION, slow, reaches_out=True))
    asyncio.run(ask())
