"""The HSMs as the vault sees them: by key, wherever it lies.

There is a first HSM, and there may be a second. A key names the HSMs that it lies in; what a mirrored key wraps is
wrapped in each of them (`crypto/copies.py`), so the loss of one HSM loses nothing. A write needs all of them, else it
is refused: a copy that is missing would be noticed only when it is needed. A read needs one: it goes to the
first, and to the other when that does not answer. One that did not answer is asked last for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from hsm import HsmAuthFailed, HsmBusy, HsmError, HsmUnavailable, KeyAlgorithm, KeyRef, KeySpec, WrappedKey
from vault.core.one_hsm import (
    OneHsm,
    Rewrapping,
    Signing,
    Unwrapping,
    Wrapping,
    algorithm_of,
    damaged,
    ref,
    translate,
)
from vault.crypto import copies
from vault.crypto.errors import FormatError
from vault.crypto.memory import LockedBuffer, concatenate
from vault.errors import Reason, StartError, VaultError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hsm import Health, HsmBackend, KeyInfo
    from vault.model import AuditRecord, HsmObject, Key, KeyHome

__all__ = [
    "Hsm",
    "OneHsm",
    "Rewrapping",
    "Signing",
    "Unwrapping",
    "Wrapping",
    "algorithm_of",
    "damaged",
    "ref",
    "translate",
]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("strongroom.hsm")

_REOPEN_SECONDS = 5.0
_FIRST_DOUBT, _LONGEST_DOUBT = 1.0, 60.0
_PART = 64
SECOND = "second_hsm"
_Route = tuple["_Line", Unwrapping]


class _Line:
    """An HSM, if it is there, and for how long to ask it last because it did not answer."""

    def __init__(self, one: OneHsm | None) -> None:
        self.one = one
        self._doubt = 0.0
        self._doubted_until = 0.0

    @property
    def doubted(self) -> bool:
        """Whether others are to be asked before it."""
        return self.one is None or time.monotonic() < self._doubted_until

    def answered(self, answer: object) -> None:
        """Take note of how a call ended."""
        if not _is_unavailable(answer):
            self._doubt = 0.0
            return
        if time.monotonic() >= self._doubted_until:
            self._doubt = min(max(2 * self._doubt, _FIRST_DOUBT), _LONGEST_DOUBT)
            self._doubted_until = time.monotonic() + self._doubt
            log.warning("an HSM does not answer; mirrored keys are used in the other")


class Hsm:
    """The first HSM, and the second where there is one."""

    def __init__(self, first: OneHsm, open_second: Callable[[], OneHsm] | None = None) -> None:
        self._first = _Line(first)
        self._second: _Line | None = None
        self._open_second = open_second
        self._forgetting: asyncio.Task[None] | None = None
        if open_second is not None:
            self._second = _Line(None)
            try:
                self._second.one = open_second()
            except (HsmUnavailable, HsmBusy):
                log.warning("the second HSM is not there; mirrored keys are used in the first")

    @property
    def backend(self) -> HsmBackend:
        """The first HSM's backend: where the vault's own keys are made, and others unless told otherwise."""
        assert self._first.one is not None
        return self._first.one.backend

    @property
    def backends(self) -> dict[str, HsmBackend]:
        """The backends of the HSMs that are there, by their places in the configuration."""
        places = zip(("hsm", SECOND), self._lines(), strict=False)
        return {place: line.one.backend for place, line in places if line.one is not None}

    @property
    def names(self) -> list[str]:
        """The names of the HSMs that are there."""
        return [line.one.backend.name for line in self._lines() if line.one is not None]

    @property
    def second(self) -> str | None:
        """The name of the second HSM, if there is one and it is there."""
        return None if self._second is None or self._second.one is None else self._second.one.backend.name

    @property
    def has_second(self) -> bool:
        """Whether there should be a second HSM."""
        return self._second is not None

    async def run(self, admit: Callable[[str, HsmBackend], Awaitable[None]]) -> None:
        """Open the second HSM when it comes back, if it was not there at the start, and `admit` lets it in."""
        while self._second is not None and self._second.one is None and self._open_second is not None:
            await asyncio.sleep(_REOPEN_SECONDS)
            try:
                one = await asyncio.to_thread(self._open_second)
                try:
                    await admit(SECOND, one.backend)
                except BaseException:
                    await asyncio.to_thread(one.close)
                    raise
                self._second.one = one
            except StartError as error:
                # Looked at again: once an operator accepts it, it is let in.
                log.error("the second HSM is refused", extra={"error": str(error)})  # noqa: TRY400
            except HsmAuthFailed:
                log.error("the second HSM refuses the log-in; it is not tried again")  # noqa: TRY400
                return
            except (HsmError, VaultError) as error:
                log.info("the second HSM is still not there", extra={"error": type(error).__name__})
            else:
                log.warning("the second HSM is there")

    # -- data keys -----------------------------------------------------------------------------------

    async def wrap(self, wrapping: Wrapping) -> bytes:
        """Wrap a data key, in every HSM of its key. Raises `HSM_UNAVAILABLE`."""
        if len(wrapping.key.homes) < 2:  # noqa: PLR2004
            return await self.one(wrapping.key.backend).wrap(wrapping)
        # Each is waited for: a data key must not be wiped while another HSM still reads it.
        blobs = await asyncio.gather(
            *(self.one(name).wrap(wrapping) for name in wrapping.key.backends), return_exceptions=True
        )
        return copies.join([_raised(blob) for blob in blobs])

    async def unwrap(self, unwrapping: Unwrapping) -> LockedBuffer:
        """Unwrap a data key into a locked buffer, the caller's to close, in any HSM of its key.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`.
        """
        if len(unwrapping.key.homes) < 2:  # noqa: PLR2004
            return await self.one(unwrapping.key.backend).unwrap(unwrapping)
        failure: VaultError | None = None
        for line, copy in self._routes(unwrapping):
            try:
                buffer = await _there(line).unwrap(copy)
            except VaultError as error:
                line.answered(error)
                failure = failure or error
                if not _is_unavailable(error):
                    raise
            else:
                line.answered(buffer)
                return buffer
        assert failure is not None
        raise failure

    async def unwrap_all(self, unwrappings: Sequence[Unwrapping]) -> LockedBuffer:
        """Unwrap several data keys, all or none, into one locked buffer, in order; it is the caller's to close.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`.
        """
        keys = {id(item.key): item.key for item in unwrappings}
        backends = {key.backends for key in keys.values()}
        if len(backends) == 1 and len(names := backends.pop()) == 1:
            return await self.one(names[0]).unwrap_all(unwrappings)
        answers = await asyncio.gather(*map(self.unwrap, unwrappings), return_exceptions=True)
        with contextlib.ExitStack() as opened:
            for answer in answers:
                if isinstance(answer, LockedBuffer):
                    opened.enter_context(answer)
            deks = [_raised(answer).view for answer in answers]
            return concatenate(deks)

    async def unwrap_each(self, unwrappings: Sequence[Unwrapping]) -> list[LockedBuffer | BaseException]:
        """Unwrap many data keys in bulk; a buffer, the caller's to close, or an error for each."""
        answers: list[LockedBuffer | BaseException] = [damaged()] * len(unwrappings)
        routes: dict[int, list[_Route]] = {}
        for place, item in enumerate(unwrappings):
            with contextlib.suppress(VaultError):  # then it is damaged
                routes[place] = self._routes(item)
        while routes:
            groups: dict[_Line, list[int]] = {}
            for place, ways in routes.items():
                groups.setdefault(ways[0][0], []).append(place)
            for line, places in groups.items():
                found = await _each(line, [routes[place][0][1] for place in places])
                for place, answer in zip(places, found, strict=True):
                    line.answered(answer)
                    answers[place] = answer
            routes = {
                place: ways[1:]
                for place, ways in routes.items()
                if ways[1:] and _is_unavailable(answers[place])
            }
        return answers

    async def wrap_each(self, wrappings: Sequence[Wrapping]) -> list[bytes | BaseException]:
        """Wrap many data keys in bulk, in every HSM of their keys; a blob or an error for each."""
        made: list[list[bytes | BaseException]] = [[] for _ in wrappings]
        for number in range(max((len(item.key.backends) for item in wrappings), default=0)):
            groups: dict[str, list[int]] = {}
            for place, item in enumerate(wrappings):
                if number < len(item.key.backends):
                    groups.setdefault(item.key.backends[number], []).append(place)
            for name, places in groups.items():
                found = await self.one(name).wrap_each([wrappings[place] for place in places])
                for place, answer in zip(places, found, strict=True):
                    made[place].append(answer)
        return [_joined(blobs) for blobs in made]

    async def rewrap_each(self, rewrappings: Sequence[Rewrapping]) -> list[bytes | BaseException]:
        """Wrap many data keys by other keys, in bulk; a blob or an error for each. They pass only locked memory."""
        keys = {id(key): key for item in rewrappings for key in (item.unwrapping.key, item.key)}
        names = {name for key in keys.values() for name in key.backends}
        if len(names) == 1:
            return await self.one(names.pop()).rewrap_each(rewrappings)
        answers: list[bytes | BaseException] = []
        for start in range(0, len(rewrappings), _PART):
            answers += await self._rewrap_across(rewrappings[start : start + _PART])
        return answers

    async def _rewrap_across(self, part: Sequence[Rewrapping]) -> list[bytes | BaseException]:
        deks = await self.unwrap_each([item.unwrapping for item in part])
        try:
            wrapped = iter(
                await self.wrap_each(
                    [
                        Wrapping(item.key, dek, item.aad)
                        for item, dek in zip(part, deks, strict=True)
                        if isinstance(dek, LockedBuffer)
                    ]
                )
            )
            return [next(wrapped) if isinstance(dek, LockedBuffer) else dek for dek in deks]
        finally:
            for dek in deks:
                if isinstance(dek, LockedBuffer):
                    dek.close()

    # -- keys ----------------------------------------------------------------------------------------

    async def sign(self, key: Key | HsmObject, algorithm: str, message: bytes) -> bytes:
        """Sign a message. Raises `HSM_UNAVAILABLE`."""
        return await self.one(key.backend).sign(key, algorithm, message)

    async def mac(self, key: Key, data: bytes) -> bytes:
        """HMAC-SHA256. Raises `HSM_UNAVAILABLE`."""
        one = self.one(key.backend)
        return await one.call(one.backend.mac, ref(key), data)

    async def public_key(self, key: Key | HsmObject) -> bytes:
        """The public half of a signing key, as DER. Raises `HSM_UNAVAILABLE`."""
        one = self.one(key.backend)
        return await one.call(one.backend.public_key, ref(key))

    async def create(self, key: Key, home: KeyHome) -> bytes:
        """Make a key in one of its homes; what is to be stored if it lies outside. Raises `HSM_UNAVAILABLE`."""
        one = self.one(home.backend)
        if not home.root_version:
            await one.call(one.backend.create_key, KeySpec(ref(key), KeyAlgorithm(key.algorithm)))
            return b""
        root = _root_of(home)
        made = await one.call(one.backend.create_wrapped_key, root, ref(key))
        return made.blob

    async def rewrap_key(self, key: Key, home: KeyHome, new: KeyHome) -> bytes:
        """What is to be stored of a key that lies outside, under another root. Raises `HSM_UNAVAILABLE`."""
        one = self.one(home.backend)
        old = WrappedKey(ref(key), _root_of(home), home.wrapped)
        return (await one.call(one.backend.rewrap_key, old, _root_of(new))).blob

    async def key_info(self, key: Key) -> KeyInfo:
        """What the HSM says of a key, or of the root that it is wrapped under. Raises `HSM_UNAVAILABLE`."""
        one = self.one(key.backend)
        kek = one.kek(key)
        return await one.call(one.backend.key_info, ref(key) if kek == ref(key) else _root_of(key.homes[0]))

    async def destroy(self, key: Key) -> None:
        """Destroy a key in every HSM that it lies in. What lies outside is the caller's to forget."""
        for one in self.holders(key):
            await one.call(one.backend.destroy_key, ref(key), confirm=key.label)

    async def forget_keys(self) -> None:
        """Let go of keys that lie outside and are in an HSM at the moment."""
        for line in self._lines():
            if line.one is not None:
                await line.one.call(line.one.backend.forget_keys)

    def forget(self, record: AuditRecord) -> None:
        """Take note of a change in the log: a key that was destroyed must not stay in an HSM's session."""
        if record.action in ("key.destroy", "tenant.erase"):
            self._forgetting = asyncio.create_task(self._forget_quietly())

    async def _forget_quietly(self) -> None:
        with contextlib.suppress(VaultError):
            await self.forget_keys()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that blocks in the first HSM's pool of threads."""
        assert self._first.one is not None
        return await self._first.one.call(function, *args, **kwargs)

    async def health(self) -> Health:
        """Whether the first HSM works."""
        assert self._first.one is not None
        return await self._first.one.health()

    async def second_health(self) -> Health:
        """Whether the second HSM works. Raises `HSM_UNAVAILABLE` if it is not there."""
        assert self._second is not None
        return await _there(self._second).health()

    def close(self) -> None:
        """Stop the threads and log out."""
        for line in self._lines():
            if line.one is not None:
                line.one.close()

    def _lines(self) -> list[_Line]:
        return [self._first] if self._second is None else [self._first, self._second]

    def _line(self, name: str) -> _Line:
        if self._second is not None:
            if self._second.one is None and name != self.backend.name:
                return self._second
            if name == self.second:
                return self._second
        # A name that is not known may be of a token that was copied to this one: label and id will tell.
        return self._first

    def one(self, name: str) -> OneHsm:
        """The HSM of a name. Raises `HSM_UNAVAILABLE` if it is not there."""
        return _there(self._line(name))

    def holders(self, key: Key) -> list[OneHsm]:
        """The HSMs in which it is an object. Raises `HSM_UNAVAILABLE` if one is not there."""
        inside = [home.backend for home in key.homes if not home.root_version] if key.homes else [key.backend]
        return [self.one(name) for name in inside]

    def _routes(self, unwrapping: Unwrapping) -> list[_Route]:
        """The ways to open a data key, the most promising first. Raises `STORED_DATA_DAMAGED`."""
        names = unwrapping.key.backends
        try:
            blobs = copies.split(unwrapping.wrapped) if len(names) > 1 else (unwrapping.wrapped,)
        except FormatError:
            raise damaged() from None
        if len(blobs) != len(names):
            raise damaged()
        ways = [
            (self._line(name), unwrapping._replace(wrapped=blob))
            for name, blob in zip(names, blobs, strict=True)
        ]
        return sorted(ways, key=lambda way: way[0].doubted)


async def _each(line: _Line, items: Sequence[Unwrapping]) -> list[LockedBuffer | BaseException]:
    try:
        return await _there(line).unwrap_each(items)
    except VaultError as error:
        return [error] * len(items)


def _there(line: _Line) -> OneHsm:
    if line.one is None:
        raise VaultError(Reason.HSM_UNAVAILABLE, "the second HSM is not there")
    return line.one


def _root_of(home: KeyHome) -> KeyRef:
    return KeyRef(home.root_label, home.root_object_id)


def _is_unavailable(answer: object) -> bool:
    return isinstance(answer, VaultError) and answer.reason is Reason.HSM_UNAVAILABLE


def _raised(answer: T | BaseException) -> T:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _joined(blobs: Sequence[bytes | BaseException]) -> bytes | BaseException:
    for blob in blobs:
        if isinstance(blob, BaseException):
            return blob
    return copies.join([blob for blob in blobs if isinstance(blob, bytes)])
