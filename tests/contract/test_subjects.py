"""Data subjects: known by pseudonym, each with a key that the HSM wraps, made once however many ask at once."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from vault import config
from vault.core.keys import Keyring
from vault.core.subjects import Subjects
from vault.errors import Reason, VaultError
from vault.model import KeyPurpose, KeyState, Origin, SubjectState
from vault.server.foundation import Foundation, foundation
from vault.store import keys
from vault.store.rows import COLUMNS, row_digest

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


async def _subjects(base: Foundation) -> Subjects:
    keyring = Keyring(base.database, base.hsm, base.log, base.keyring._deployment)
    subjects = Subjects(base.database, base.hsm, base.log, keyring)
    await subjects.start()
    return subjects


async def _tenant(base: Foundation, tenant: str) -> None:
    """A tenant, made as the vault makes one, without a token's check."""
    from hsm import KeyAlgorithm
    from vault.model import AuditDraft, Outcome

    draft = AuditDraft(tenant, "test", "key.create_tenant", f"{tenant}/keys", Outcome.GRANTED, Origin())
    await base.keyring._make(tenant, KeyPurpose.KEK, KeyAlgorithm.AES_256, draft, None)


async def test_a_subject_is_made_once_by_many_at_once_and_its_key_is_the_same_for_all(
    fresh_site: VaultSite,
) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        await _tenant(base, "acme")
        replicas = [await _subjects(base) for _ in range(3)]
        made = await asyncio.gather(
            *(replica.ensure("me", Origin(), "acme", "customer 42") for replica in replicas for _ in range(4))
        )
        assert len({subject.subject_id for subject in made}) == 1
        contents = set()
        for replica in replicas:
            found = await replica.get("acme", made[0].subject_id)
            assert found is not None
            with await replica.key(found) as key:
                contents.add(bytes(key.view))
        assert len(contents) == 1
        async with base.database.read() as connection:
            versions = await keys.list_keys(connection, "acme", KeyPurpose.SUBJECT)
        assert [key.state for key in versions].count(KeyState.ACTIVE) == 1


async def test_a_subject_goes_by_a_pseudonym_of_its_own_in_every_tenant_and_its_name_is_stored_nowhere(
    fresh_site: VaultSite, postgres
) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        for tenant in ("acme", "globex"):
            await _tenant(base, tenant)
        subjects = await _subjects(base)
        one = await subjects.ensure("me", Origin(), "acme", "jane.doe@example.com")
        other = await subjects.ensure("me", Origin(), "globex", "jane.doe@example.com")
        assert one.subject_id != other.subject_id
        with await subjects.key(one) as first, await subjects.key(other) as second:
            assert bytes(first.view) != bytes(second.view)
    database = fresh_site.database_url.rpartition("/")[2]
    everything = postgres.sql(database, "SELECT string_agg(t::text, ' ') FROM subjects t") + postgres.sql(
        database, "SELECT string_agg(t::text, ' ') FROM audit_records t"
    )
    assert one.subject_id in everything
    assert "jane" not in everything


async def test_a_wrapped_key_opens_as_no_other_subject_and_not_once_its_subject_is_erased(
    fresh_site: VaultSite,
) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        await _tenant(base, "acme")
        subjects = await _subjects(base)
        one = await subjects.ensure("me", Origin(), "acme", "one")
        other = await subjects.ensure("me", Origin(), "acme", "other")
        with pytest.raises(VaultError) as swapped:
            await subjects.key(dataclasses.replace(one, wrapped_key=other.wrapped_key))
        assert swapped.value.reason is Reason.STORED_DATA_DAMAGED
        with pytest.raises(VaultError) as gone:
            await subjects.key(dataclasses.replace(one, state=SubjectState.ERASED))
        assert gone.value.reason is Reason.VERSION_DESTROYED


def test_a_column_that_was_added_later_leaves_the_digests_of_before_as_they_were() -> None:
    import datetime
    import hashlib

    from vault.clock import micros
    from vault.crypto.encoding import encode

    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    row = {
        "name": "acme/a", "tenant": "acme", "kind": "k", "labels": "{}", "state": "active", "latest_version": 1,
        "field_names": "[]", "etag": "e", "create_time": now, "update_time": now, "delete_time": None,
        "created_by": "me", "updated_by": "me", "subject_id": None,
    }  # fmt: skip
    before = [micros(value) if value is now else value for value in row.values()][:-1]
    row = dict.fromkeys(COLUMNS["credentials"]) | row
    assert (
        row_digest("credentials", row)
        == hashlib.sha256(encode("strongroom/row/v1", "credentials", *before)).digest()
    )
    assert row_digest("credentials", {**row, "subject_id": "x"}) != row_digest("credentials", row)
