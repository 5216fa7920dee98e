"""The life of keys on a running vault: quarantine, retirement, destruction, schedules, and the vault's own keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import until
from tests.support import seeding
from vault.client import Client, StrongroomError
from vault.crypto import notes
from vault.crypto.approvals import Operation
from vault.v1 import job_pb2, key_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite

COUNT = 300


@pytest.fixture(scope="module")
def vault(
    softhsm: tuple[str, object], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultSite]:
    """A vault of its own, with two workers: what one decides the other must hear."""
    from tests.support.vault import VaultSite

    site = VaultSite(
        tmp_path_factory.mktemp("key-life"),
        postgres.create_database("key_life"),
        softhsm[0],
        softhsm[1],  # type: ignore[arg-type]
        {"server": {"workers": 2}},
    )
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    seeding.seed(site.config_file, COUNT)
    yield site
    site.stop()


@pytest.fixture
def operator(vault: VaultSite) -> Iterator[Client]:
    with vault.operator() as client:
        yield client


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(StrongroomError) as caught:
        call()
    return caught.value.reason


def standing(client: Client, version: int) -> key_pb2.KeyStatus:
    return next(item for item in client.key_status("acme").versions if item.key.version == version)


def ended(client: Client, job: job_pb2.RewrapJob) -> job_pb2.RewrapJob:
    return list(client.watch_job("acme", job.job_id))[-1]


def opens(site: VaultSite, number: int) -> bool:
    with site.client() as payments, payments.reveal(f"acme/seed/{number:07}", purpose="test")[0] as secrets:
        return secrets["value"] == seeding.value_of(number).encode()


def approval(site: VaultSite, operator: Client, version: int) -> str:
    operation = Operation("key.destroy", "acme/keys", {"version": str(version)})
    found = operator.request_approval(operation, purpose="nobody needs it")
    for name in ("payments", "ledger"):
        with Client(site.profile(name, "acme", ("approval.approve:acme/**",))) as other:
            other.approve(found)
    return found.approval_id


def test_the_status_tells_how_long_it_takes_until_nothing_is_under_an_old_version(operator: Client) -> None:
    def remaining() -> float | None:
        found = operator.key_status("acme")
        return found.remaining.ToTimedelta().total_seconds() if found.HasField("remaining") else None

    assert remaining() == 0
    operator.rotate_key("acme")
    assert remaining() is None, "no job has shown yet how fast they are"
    ended(operator, operator.start_job("acme", "rewrap"))
    assert remaining() == 0
    operator.rotate_key("acme")
    assert 0 < (remaining() or 0) < 600
    ended(operator, operator.start_job("acme", "rewrap"))


def test_a_quarantined_version_is_emptied_first_and_its_reads_can_be_refused(
    vault: VaultSite, operator: Client
) -> None:
    suspect = operator.describe_key("acme").key.version
    assert len(operator.key_uses("acme", suspect)) == COUNT
    dry = operator.quarantine_key("acme", suspect, refuse_reads=True, validate_only=True)
    assert (dry.job.total, dry.job.job_id, dry.key.state) == (COUNT, "", key_pb2.KEY_STATE_SEALED_OFF)
    assert operator.describe_key("acme").key.version == suspect

    found = operator.quarantine_key("acme", suspect, refuse_reads=True)

    assert (found.key.state, found.job.urgent) == (key_pb2.KEY_STATE_SEALED_OFF, True)
    assert ended(operator, found.job).state == job_pb2.JOB_STATE_SUCCEEDED
    assert operator.key_uses("acme", suspect) == []
    assert standing(operator, suspect + 1).key.state == key_pb2.KEY_STATE_ACTIVE
    assert opens(vault, 0)
    with vault.client() as payments:
        payments.put("acme/quarantine/new", {"value": "x"}, kind="generic")


def test_reads_under_a_sealed_off_version_are_refused_on_every_worker_until_it_is_emptied(
    vault: VaultSite, operator: Client, postgres: Postgres
) -> None:
    def turn_a_bit() -> None:
        # The last of the tag: the version is read and its key found, but it does not open, so it stays behind.
        last = "length(envelope) - 1"
        postgres.sql(
            vault.database_url.rpartition("/")[2],
            f"UPDATE credential_versions SET envelope = set_byte(envelope, {last}, get_byte(envelope, {last}) # 1) "
            f"WHERE name = 'acme/seed/{COUNT - 1:07}'",
        )

    suspect = operator.describe_key("acme").key.version
    turn_a_bit()
    found = operator.quarantine_key("acme", suspect, refuse_reads=True)
    assert ended(operator, found.job).state == job_pb2.JOB_STATE_FAILED
    (left,) = operator.key_uses("acme", suspect)
    assert left.name == f"acme/seed/{COUNT - 1:07}"
    # Which worker answers is the kernel's choice at each connection; a worker that has not heard yet calls it damaged.
    until(lambda: {refused(lambda: opens(vault, COUNT - 1)) for _ in range(8)} == {"KEY_QUARANTINED"})

    turn_a_bit()
    again = operator.quarantine_key("acme", suspect, refuse_reads=True)
    assert ended(operator, again.job).state == job_pb2.JOB_STATE_SUCCEEDED
    assert operator.key_uses("acme", suspect) == []
    assert opens(vault, COUNT - 1)


def test_a_version_in_use_is_neither_retired_nor_destroyed(operator: Client) -> None:
    active = operator.describe_key("acme").key.version
    for call in (operator.retire_key, operator.destroy_key):
        assert refused(lambda call=call: call("acme", active)) == "KEY_STATE_UNSUITABLE"
    operator.rotate_key("acme")
    for call in (operator.retire_key, operator.destroy_key):
        assert refused(lambda call=call: call("acme", active)) == "KEY_IN_USE"
    ended(operator, operator.start_job("acme", "rewrap"))
    retired = operator.retire_key("acme", active)
    assert retired.state == key_pb2.KEY_STATE_RETIRED
    assert operator.restore_key("acme", active).state == key_pb2.KEY_STATE_DECRYPT_ONLY
    assert operator.describe_key("acme", active).key.state == key_pb2.KEY_STATE_DECRYPT_ONLY


def test_a_version_is_destroyed_when_its_time_has_come_and_only_with_approval(
    vault: VaultSite, operator: Client
) -> None:
    old = next(
        item.key.version
        for item in operator.key_status("acme").versions
        if item.key.state == key_pb2.KEY_STATE_DECRYPT_ONLY
    )
    assert refused(lambda: operator.destroy_key("acme", old)) == "APPROVAL_REQUIRED"
    dry = operator.destroy_key("acme", old, validate_only=True)
    assert dry.key.state == key_pb2.KEY_STATE_DESTROY_SCHEDULED
    assert standing(operator, old).key.state == key_pb2.KEY_STATE_DECRYPT_ONLY
    later = operator.destroy_key("acme", old, approval_id=approval(vault, operator, old))
    assert later.key.state == key_pb2.KEY_STATE_DESTROY_SCHEDULED
    assert standing(operator, old).HasField("destroy_time")
    assert operator.restore_key("acme", old).state == key_pb2.KEY_STATE_RETIRED
    assert not standing(operator, old).HasField("destroy_time")

    operator.destroy_key("acme", old, approval_id=approval(vault, operator, old), delay_seconds=0)
    until(lambda: standing(operator, old).key.state == key_pb2.KEY_STATE_DESTROYED, 20, 0.5)
    assert refused(lambda: operator.restore_key("acme", old)) == "KEY_STATE_UNSUITABLE"
    assert refused(lambda: operator.describe_key("acme", old)) == "HSM_UNAVAILABLE", (
        "the HSM knows it no more"
    )
    assert opens(vault, 1)


def test_the_vault_rotates_and_rewraps_by_itself_after_so_many_wraps(
    vault: VaultSite, operator: Client
) -> None:
    before = operator.describe_key("acme").key.version
    until(lambda: standing(operator, before).wraps, 20, 0.5)
    operator.schedule_key("acme", max_wraps=1, rewrap=True)
    until(lambda: operator.describe_key("acme").key.version > before, 20, 0.5)
    operator.schedule_key("acme")
    until(lambda: operator.describe_key("acme", before).credential_versions == 0, 20, 0.5)
    assert operator.list_jobs("acme")[0].created_by == "strongroom"
    assert opens(vault, 2)


def test_the_keys_that_sign_are_rotated_and_nobody_notices(vault: VaultSite) -> None:
    with vault.client() as payments, vault.system() as system:
        assert payments.list_credentials("acme/seed/0000001")
        old = system.checkpoint().verifier_key
        for purpose in ("token", "checkpoint", "ingest"):
            assert system.rotate_key("system", purpose=purpose).version == 2
        # Tokens of before stay good, new ones are good at once, on both workers.
        for _ in range(4):
            assert payments.list_credentials("acme/seed/0000001")
            with vault.client() as fresh:
                fresh.put("acme/signing/a", {"value": "x"}, kind="generic")
        answer = system.checkpoint()
        assert answer.verifier_key != old
        for key in (old, answer.verifier_key):
            assert notes.verify_checkpoint(answer.note, [key]).size
        verdict = system.verify_audit()
        assert verdict.valid, list(verdict.findings)
        purposes = {(item.key.purpose, item.key.version) for item in system.key_status("system").versions}
        assert (key_pb2.KEY_PURPOSE_CHECKPOINT, 2) in purposes
