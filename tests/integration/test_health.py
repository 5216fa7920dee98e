"""The health service: whoever TLS lets in may ask whether the vault works; who stays to be told is held to more."""

from __future__ import annotations

import contextlib
import datetime
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.test_identity import ID, dns, uri
from tests.integration.wire import until
from tests.support.vault import issue_certificate
from vault.client.errors import from_rpc
from vault.server.health import MAX_WATCHES_PER_IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.vault import VaultSite

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ALL = health_pb2.HealthCheckRequest()


@contextlib.contextmanager
def health(site: VaultSite, name: str) -> Iterator[Any]:
    """The health service, on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    profile = site.profile(name)
    with grpc.secure_channel(profile.server, profile.channel_credentials(), options) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def reason_of(watch: Any) -> str:
    """Why a watch ends."""
    with pytest.raises(grpc.RpcError) as caught:
        for _ in watch:
            pass
    return from_rpc(caught.value).reason


def test_a_certificate_that_names_no_caller_may_ask_and_not_watch(site: VaultSite) -> None:
    issue_certificate(site.folder / "pki", "balancer", dns("balancer"))
    with health(site, "balancer") as balancer:
        assert balancer.Check(ALL, timeout=10).status == SERVING
        assert reason_of(balancer.Watch(ALL, timeout=10)) == "CERTIFICATE_REJECTED"


def test_an_identity_has_so_many_watches_of_health_and_no_other_has_less_for_it(site: VaultSite) -> None:
    with (
        health(site, "payments") as first,
        health(site, "payments") as second,
        health(site, "ledger") as other,
    ):
        held = [first.Watch(ALL, timeout=120) for _ in range(MAX_WATCHES_PER_IDENTITY - 8)]
        held += [second.Watch(ALL, timeout=120) for _ in range(8)]
        assert {next(watch).status for watch in held} == {SERVING}
        assert reason_of(second.Watch(ALL, timeout=10)) == "LIMIT_REACHED"
        assert first.Check(ALL, timeout=10).status == SERVING
        assert next(other.Watch(ALL, timeout=10)).status == SERVING
        # One that its client leaves makes room.
        held.pop().cancel()

        def is_told() -> bool:
            with contextlib.suppress(grpc.RpcError):
                return next(second.Watch(ALL, timeout=10)).status == SERVING
            return False

        until(is_told)


def test_a_watch_does_not_outlive_its_certificate(site: VaultSite) -> None:
    life = datetime.timedelta(seconds=8)
    issue_certificate(site.folder / "pki", "brief", uri(ID), life=life)
    with health(site, "brief") as brief:
        assert reason_of(brief.Watch(ALL, timeout=60)) == "CERTIFICATE_REJECTED"


def test_a_watch_hears_that_the_worker_stops_and_does_not_hold_it_up(fresh_site: VaultSite) -> None:
    fresh_site.settings = {"server": {"drain_seconds": 60.0}}
    fresh_site.write_config()
    fresh_site.start()
    with health(fresh_site, "payments") as watcher:
        watch = watcher.Watch(ALL, timeout=120)
        assert next(watch).status == SERVING
        began = time.monotonic()
        assert fresh_site.stop() == 0
        assert [answer.status for answer in watch] == [NOT_SERVING]
    assert time.monotonic() - began < 30
