"""Credentials opened together: one locked buffer for their data keys, one for their contents, all of them or none."""

from __future__ import annotations

import asyncio
import datetime
import gc
import secrets
import threading
from typing import TYPE_CHECKING

import pytest

from hsm import HsmError, KeyAlgorithm, KeyRef, KeySpec, UnwrapItem, open_backend
from vault.client import StrongroomError
from vault.core.batch import Load
from vault.core.envelopes import Envelopes, context_of
from vault.core.hsm import Hsm, OneHsm, Wrapping
from vault.crypto import envelope, memory, parcel, subject_data, suites
from vault.errors import Reason, VaultError
from vault.model import (
    CredentialState,
    Key,
    KeyPurpose,
    KeyState,
    Standing,
    StoredVersion,
    VersionState,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite

DAMAGES = {
    "a bit of the commitment": "set_byte(envelope, 90, 255 - get_byte(envelope, 90))",
    "a bit of the wrapped data key": "set_byte(envelope, 20, 255 - get_byte(envelope, 20))",
    "cut short": "substr(envelope, 1, 60)",
}


def test_a_bundle_holds_what_lies_under_several_keys_and_what_is_of_subjects(site: VaultSite) -> None:
    prefix = f"acme/bundles/{secrets.token_hex(4)}"
    with site.client() as vault, site.operator() as operator:
        vault.put(f"{prefix}/old", {"key": "1", "more": "a"}, kind="generic")
        vault.put(f"{prefix}/subject", {"key": "2", "more": "b"}, kind="generic", subject="customer 7")
        operator.rotate_key("acme")
        vault.put(f"{prefix}/new", {"key": "3", "more": "c" * 20_000}, kind="generic")
        vault.put(f"{prefix}/other-subject", {"key": "4", "more": "d"}, kind="generic", subject="customer 8")
        names = [f"{prefix}/{name}" for name in ("new", "subject", "old", "other-subject")]
        for fields in ((), ("more",), ("key", "more")):
            found = vault.reveal(*names, purpose="test", field_names=fields)
            shown = [{name: item.text(name) for name in item} for item in found]
            everything = [
                {"key": key, "more": more} for key, more in zip("3214", ("c" * 20_000, *"bad"), strict=True)
            ]
            assert shown == [
                {name: value for name, value in item.items() if not fields or name in fields}
                for item in everything
            ]
            for item in found:
                item.close()
        with pytest.raises(StrongroomError) as refused:
            vault.reveal(*names, purpose="test", field_names=("absent",))
        assert refused.value.reason == "UNKNOWN_FIELD"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_one_that_is_damaged_keeps_all_shut_and_is_not_named(
    shared_sites: Callable[[str], VaultSite], postgres: Postgres, damage: str
) -> None:
    site = shared_sites("postgresql")
    database = site.database_url.rpartition("/")[2]
    prefix = f"acme/bundles/{secrets.token_hex(4)}"
    names = [f"{prefix}/{number}" for number in range(5)]
    with site.client() as vault:
        for name in names:
            vault.put(name, {"key": name}, kind="generic")
        one = f"name = '{names[3]}'"
        whole = postgres.sql(database, f"SELECT envelope FROM credential_versions WHERE {one}").strip()
        postgres.sql(database, f"UPDATE credential_versions SET envelope = {damage} WHERE {one}")
        try:
            with pytest.raises(StrongroomError) as refused:
                vault.reveal(*names, purpose="test")
        finally:
            # Others verify this vault too.
            postgres.sql(database, f"UPDATE credential_versions SET envelope = '{whole}' WHERE {one}")
        assert refused.value.reason == "STORED_DATA_DAMAGED"
        assert prefix not in str(refused.value)
        assert [item.text("key") for item in vault.reveal(*names, purpose="test")] == names


# -- the same without the server around it: what is left in locked memory ------------------------------


class Keys:
    """The key-encryption keys of one tenant, and no others."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = {key.version: key for key in keys}

    async def version(self, _tenant: str, _purpose: KeyPurpose, version: int) -> Key:
        try:
            return self._keys[version]
        except KeyError:
            raise VaultError(Reason.KEY_NOT_FOUND, "no such key version") from None


class NoSubjects:
    """Nobody's data is known here."""

    async def get(self, _tenant: str, _subject_id: str) -> None:
        return None


class Bench:
    """Envelopes on a real HSM, and versions that they open."""

    def __init__(self, hsm: Hsm, keys: list[Key]) -> None:
        self.before = used()
        """Of locked memory, while nothing of these versions is open."""
        self.hsm = hsm
        self.keys = keys
        self.envelopes = Envelopes(hsm, Keys(keys), NoSubjects())  # type: ignore[arg-type]

    async def stored(self, number: int, text: bytes, suite: int = 1) -> StoredVersion:
        name, chosen, key = f"acme/b/{number}", suites.suite(suite), self.keys[number % len(self.keys)]
        context = context_of(name, 1, key)
        with envelope.new_dek() as dek:
            wrapped = await self.hsm.wrap(Wrapping(key, dek, envelope.wrap_aad(chosen, context)))
            blob = envelope.seal(chosen, context, dek, wrapped, memoryview(text))
        return StoredVersion(
            name=name,
            version=1,
            tenant="acme",
            kind="generic",
            state=VersionState.ENABLED,
            credential_state=CredentialState.ACTIVE,
            standing=Standing.ACTIVE,
            suite=suite,
            kek_version=key.version,
            field_names=(),
            envelope=blob,
        )


@pytest.fixture
async def bench(softhsm: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    # Vaults with tokens of their own have run in this process.
    monkeypatch.setenv("SOFTHSM2_CONF", str(softhsm[1]))
    with open_backend(softhsm[0]) as backend:
        one = OneHsm(backend, Load(), lambda *_: None, threads=4, deadline_seconds=20)
        keys = []
        for version in (1, 2):
            ref = KeyRef(f"{secrets.token_hex(3)}/kek/acme/v{version}", secrets.token_bytes(16))
            backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
            keys.append(
                Key(
                    tenant="acme",
                    purpose=KeyPurpose.KEK,
                    version=version,
                    state=KeyState.ACTIVE,
                    algorithm="AES-256",
                    backend=backend.name,
                    label=ref.label,
                    object_id=ref.object_id,
                    create_time=datetime.datetime.now(datetime.UTC),
                    created_by="test",
                )
            )
        yield Bench(Hsm(one), keys)
        for key in keys:
            backend.destroy_key(KeyRef(key.label, key.object_id), confirm=key.label)
        one.close()


def used() -> int:
    gc.collect()
    return memory.statistics().used


async def all_given_back(before: int) -> None:
    """What is wiped is given back once no view of it is left: one may still lie in a thread that ends just now."""
    async with asyncio.timeout(30):
        while used() > before:  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


async def refuses_and_keeps_nothing(bench: Bench, stored: list[StoredVersion], *, together: bool) -> None:
    opening = bench.envelopes.open_parcel if together else bench.envelopes.open_all
    with pytest.raises(VaultError) as refused:
        await opening(stored)
    assert refused.value.reason is Reason.STORED_DATA_DAMAGED
    del refused
    await all_given_back(bench.before)


async def test_what_is_opened_together_lies_in_one_buffer_as_what_is_opened_apart_lies_in_several(
    bench: Bench,
) -> None:
    texts = [b"", b"one", b"x" * 70_000, b"three", b"\x01" * 64]
    stored = [await bench.stored(at, text, suite=1 + at % 2) for at, text in enumerate(texts)]
    apart = await bench.envelopes.open_all(stored)
    assert [bytes(buffer.view) for buffer in apart] == texts
    with await bench.envelopes.open_parcel(stored) as together:
        assert [bytes(view) for view in parcel.split(together.view)] == texts
    for buffer in apart:
        assert buffer.close()
    await all_given_back(bench.before)


def _of_another(stored: StoredVersion, other: StoredVersion) -> StoredVersion:
    return stored._replace(envelope=other.envelope)


def _edited(place: int) -> Callable[[StoredVersion, StoredVersion], StoredVersion]:
    def edit(stored: StoredVersion, _other: StoredVersion) -> StoredVersion:
        blob = bytearray(stored.envelope)
        blob[place] ^= 1
        return stored._replace(envelope=bytes(blob))

    return edit


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_edited(-1), id="tag"),
        pytest.param(_edited(-60), id="commitment"),
        pytest.param(_edited(30), id="wrapped data key"),
        pytest.param(_edited(0), id="format"),
        pytest.param(_of_another, id="the envelope of another"),
        pytest.param(lambda stored, _: stored._replace(suite=2), id="suite of the row"),
        pytest.param(lambda stored, _: stored._replace(kek_version=2), id="KEK version of the row"),
        pytest.param(lambda stored, _: stored._replace(tenant="globex"), id="tenant of the row"),
        pytest.param(lambda stored, _: stored._replace(version=2), id="version of the row"),
    ],
)
async def test_nothing_stays_in_locked_memory_when_one_of_them_does_not_open(
    bench: Bench, damage: Callable[[StoredVersion, StoredVersion], StoredVersion], together: bool
) -> None:
    stored = [await bench.stored(at, b"text %d" % at) for at in range(6)]
    stored[2] = damage(stored[2], stored[4])
    await refuses_and_keeps_nothing(bench, stored, together=together)


@pytest.mark.parametrize("together", [True, False])
async def test_nothing_stays_of_the_others_when_a_subject_is_not_known(bench: Bench, together: bool) -> None:
    with envelope.new_dek() as key:
        inner = subject_data.seal(suites.current(), "A" * 22, key, "acme/b/1", 1, memoryview(b"text"))
        with inner:
            stored = [await bench.stored(0, b"text"), await bench.stored(1, bytes(inner.view))]
    await refuses_and_keeps_nothing(bench, stored, together=together)


async def test_nothing_stays_when_the_caller_goes_while_the_hsm_works(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [await bench.stored(at, b"text %d" % at) for at in range(40)]
    begun, gone = threading.Event(), threading.Event()
    backend = bench.hsm.backend
    unwrap_many = backend.unwrap_many

    def slow(items: Sequence[UnwrapItem]) -> list[int | HsmError]:
        begun.set()
        assert gone.wait(10)
        return unwrap_many(items)

    monkeypatch.setattr(backend, "unwrap_many", slow)
    opening = asyncio.ensure_future(bench.envelopes.open_parcel(stored))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    del opening
    assert used() > bench.before, "the thread is about to write there: it must not be lent to others"
    gone.set()
    await all_given_back(bench.before)
