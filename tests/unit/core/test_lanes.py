from __future__ import annotations

import datetime

import pytest

from vault.core.batch import Load
from vault.core.lanes import LEASE, Company, next_chunk


@pytest.mark.parametrize("seconds_each", [0.0001, 0.001, 0.01, 0.1, 0.9])
def test_a_chunk_ends_well_within_its_lease_however_slow_the_hsm(seconds_each):
    chunk = 32
    for _ in range(10):
        chunk = next_chunk(chunk, chunk, chunk * seconds_each)
    assert chunk * seconds_each < LEASE.total_seconds() / 2
    assert chunk == 512 or chunk * seconds_each > LEASE.total_seconds() / 10


def test_a_chunk_grows_step_by_step_and_shrinks_at_once():
    assert next_chunk(32, 32, 0.001) == 64
    assert next_chunk(256, 256, 8.0) == 32


def test_even_the_slowest_hsm_gets_on_one_by_one():
    assert next_chunk(1, 1, 60.0) == 1


def test_small_chunks_for_other_reasons_say_nothing_against_large_ones():
    assert next_chunk(512, 16, 0.01) == 512
    assert next_chunk(256, 0, 1.0) == 256


def test_whoever_started_a_job_is_no_company_and_whoever_calls_after_it_is():
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    load, clock = Load(), Clock()
    company = Company(load, clock)  # type: ignore[arg-type]
    with load.call():
        assert company.is_here()
    company.forget()
    assert not company.is_here()
    with load.call():
        pass
    assert company.is_here()
    clock.now += 0.2
    assert company.is_here(), "they may come again in a moment"
    clock.now += 0.2
    assert not company.is_here()


def test_a_report_names_no_more_failures_than_an_hsm_can_sign() -> None:
    from hsm.backend import MAX_MESSAGE
    from vault.core import rotation_report
    from vault.core.rotation_report import that_fit
    from vault.model import JobFailure

    now = datetime.datetime.now(datetime.UTC)
    failures = [
        JobFailure("job", f"acme/{'x' * 500}{number:06}", 2**31 - 1, "STORED_DATA_DAMAGED", now)
        for number in range(10_000)
    ]
    named = that_fit(failures)
    assert named == failures[: len(named)]
    items = [{"name": item.name, "reason": item.reason, "version": item.version} for item in named]
    assert MAX_MESSAGE / 4 < len(rotation_report.text({"failures": items})) < MAX_MESSAGE
    assert that_fit(failures[:100]) == failures[:100]
