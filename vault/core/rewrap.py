"""Many stored versions at once, under another key: the same data key rewrapped, or a new one.

Plaintext and data keys pass only through locked memory. What cannot be moved is said row by row, and does not
hold up the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core.envelopes import context_of, name_of
from vault.core.hsm import Rewrapping, Unwrapping, Wrapping, damaged
from vault.crypto import envelope, suites
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.model import KeyPurpose
from vault.store.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.crypto.memory import LockedBuffer
    from vault.model import Key

_PLAINTEXT_AT_ONCE = 512 * 1024
"""Bytes. How much plaintext may lie in locked memory at a time, beside that of the calls."""
_ROWS_AT_ONCE = 32
"""How many rows are prepared before calls and the HSM's threads get their turn."""


class _Parsed(NamedTuple):
    row: Mapping[str, Any]
    head: envelope.Head
    unwrapping: Unwrapping
    aad: bytes
    """What its data key is to be bound to, under the new key and the same suite."""


Moved = Row | VaultError
"""What became of a row: the whole row as it shall be, or why it cannot be moved."""


class Rewrap:
    """Moves rows of `credential_versions` to another key."""

    def __init__(self, hsm: Hsm, keyring: Keyring) -> None:
        self._hsm = hsm
        self._keyring = keyring

    async def rewrap(self, rows: Sequence[Mapping[str, Any]], kek: Key) -> list[Moved]:
        """The same data keys under `kek`. An error of the whole is raised; of one row, it is its answer."""
        parsed = await self._parse(rows, kek)
        blobs = iter(
            await self._hsm.rewrap_each(
                [Rewrapping(item.unwrapping, kek, item.aad) for item in parsed if isinstance(item, _Parsed)]
            )
        )
        moved: list[Moved] = []
        for item in parsed:
            answer: object = next(blobs) if isinstance(item, _Parsed) else item
            if isinstance(item, _Parsed) and isinstance(answer, bytes):
                new = envelope.replace_head(item.row["envelope"], item.head, kek.version, answer)
                moved.append({**item.row, "kek_version": kek.version, "envelope": new})
            else:
                moved.append(_failure(answer))
        return moved

    async def reencrypt(self, rows: Sequence[Mapping[str, Any]], kek: Key, suite: int) -> list[Moved]:
        """New data keys, under `kek` and the suite. An error of the whole is raised; of one row, it is its answer."""
        parsed = await self._parse(rows, kek)
        moved: list[Moved] = []
        for group in _groups(parsed):
            moved.extend(await self._reencrypt(group, kek, suites.suite(suite)))
        return moved

    async def _reencrypt(
        self, group: Sequence[_Parsed | VaultError], kek: Key, suite: suites.Suite
    ) -> list[Moved]:
        good = [item for item in group if isinstance(item, _Parsed)]
        old_deks = await self._hsm.unwrap_each([item.unwrapping for item in good])
        new_deks: list[LockedBuffer] = []
        try:
            new_deks.extend(envelope.new_dek() for _ in good)
            wrapped = await self._hsm.wrap_each(
                [
                    Wrapping(kek, dek, envelope.wrap_aad(suite, _context(item, kek)))
                    for item, dek in zip(good, new_deks, strict=True)
                ]
            )
            answers = iter(
                await self._hsm.call(
                    _seal_anew, kek, suite, list(zip(good, old_deks, new_deks, wrapped, strict=True))
                )
            )
        finally:
            for buffer in (*old_deks, *new_deks):
                if not isinstance(buffer, BaseException):
                    buffer.close()
        return [next(answers) if isinstance(item, _Parsed) else item for item in group]

    async def _parse(self, rows: Sequence[Mapping[str, Any]], kek: Key) -> list[_Parsed | VaultError]:
        old: dict[int, Key | VaultError] = {}
        for version in {row["kek_version"] for row in rows}:
            old[version] = await self._old_key(kek.tenant, version)
        bind = _Binding(kek.tenant)
        parsed: list[_Parsed | VaultError] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            part = rows[start : start + _ROWS_AT_ONCE]
            parsed.extend(_parse_row(row, old[row["kek_version"]], kek, bind) for row in part)
        return parsed

    async def _old_key(self, tenant: str, version: int) -> Key | VaultError:
        try:
            return await self._keyring.version(tenant, KeyPurpose.KEK, version)
        except VaultError as error:
            if error.reason is Reason.KEY_NOT_FOUND:
                return damaged()
            raise


class _Binding:
    """What a tenant's data keys are bound to, under any of its keys and any suite."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._made: dict[tuple[int, int], Callable[[bytes], bytes]] = {}

    def __call__(self, key: Key, suite: int, place: bytes) -> bytes:
        aads = self._made.get((key.version, suite))
        if aads is None:
            aads = envelope.wrap_aads(suites.suite(suite), self._tenant, name_of(key), key.version)
            self._made[key.version, suite] = aads
        return aads(place)


def _parse_row(
    row: Mapping[str, Any], old: Key | VaultError, kek: Key, bind: _Binding
) -> _Parsed | VaultError:
    if isinstance(old, VaultError):
        return old
    try:
        head = envelope.parse_head(row["envelope"])
    except CryptoError:
        return damaged()
    if (head.kek_version, head.suite) != (row["kek_version"], row["suite"]):
        return damaged()
    place = envelope.place(row["name"], row["version"])
    unwrapping = Unwrapping(old, head.wrapped_dek, bind(old, head.suite, place))
    return _Parsed(row, head, unwrapping, bind(kek, head.suite, place))


def _context(item: _Parsed, key: Key) -> envelope.EnvelopeContext:
    return context_of(item.row["name"], item.row["version"], key)


def _seal_anew(
    kek: Key,
    suite: suites.Suite,
    items: Sequence[tuple[_Parsed, LockedBuffer | BaseException, LockedBuffer, bytes | BaseException]],
) -> list[Moved]:
    """Open under the old data key and seal under the new, one after the other. Runs in a thread."""
    moved: list[Moved] = []
    for item, old_dek, new_dek, wrapped in items:
        if isinstance(old_dek, BaseException) or isinstance(wrapped, BaseException):
            moved.append(_failure(old_dek if isinstance(old_dek, BaseException) else wrapped))
            continue
        try:
            old = envelope.parse(item.row["envelope"])
            with envelope.open(old, _context(item, item.unwrapping.key), old_dek) as plaintext:
                sealed = envelope.seal(suite, _context(item, kek), new_dek, wrapped, plaintext.view)
        except CryptoError:
            moved.append(damaged())
            continue
        moved.append({**item.row, "suite": suite.number, "kek_version": kek.version, "envelope": sealed})
    return moved


def _groups(parsed: Sequence[_Parsed | VaultError]) -> Iterator[list[_Parsed | VaultError]]:
    """Cut into groups of which the plaintext fits into locked memory."""
    group: list[_Parsed | VaultError] = []
    size = 0
    for item in parsed:
        own = len(item.row["envelope"]) if isinstance(item, _Parsed) else 0
        if group and size + own > _PLAINTEXT_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(item)
        size += own
    if group:
        yield group


def _failure(answer: object) -> VaultError:
    """The error that belongs to one row. One that belongs to the whole, such as an HSM that is gone, is raised."""
    if isinstance(answer, VaultError) and answer.reason is Reason.STORED_DATA_DAMAGED:
        return answer
    if isinstance(answer, BaseException):
        raise answer
    raise TypeError("neither a blob nor an error")
