"""Rates hold over all workers together."""

from __future__ import annotations

import concurrent.futures
import time
from typing import TYPE_CHECKING

from tests.integration.wire import Wire

if TYPE_CHECKING:
    from tests.support.vault import VaultSite

LIMIT = 6


def test_a_tenants_rate_is_shared_by_all_workers_and_another_tenant_has_its_own(
    fresh_site: VaultSite,
) -> None:
    fresh_site.settings = {"server": {"workers": 2}, "rates": {"per_tenant": LIMIT}}
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    wires = [Wire(fresh_site.profile("payments"), "acme") for _ in range(8)]
    method = "/vault.v1.CredentialService/List"
    for wire in wires:
        wire.token  # noqa: B018 - issued before the clock runs

    def hammer(wire: Wire) -> list[str]:
        answers = []
        while time.time() < end:
            answers.append(wire.call(method).reason)
        return answers

    # From just behind the beginning of a second, over three whole seconds.
    time.sleep(1 - time.time() % 1)
    began = time.time()
    end = began + 2.9
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        reasons = [reason for answers in pool.map(hammer, wires) for reason in answers]
    seconds = int(time.time()) - int(began) + 1
    granted, refused = reasons.count(""), reasons.count("LIMIT_REACHED")
    assert granted + refused == len(reasons)
    assert refused
    assert granted <= LIMIT * seconds
    assert granted >= LIMIT
    with Wire(fresh_site.profile("globex"), "globex") as other:
        assert other.call(method).ok
    for wire in wires:
        wire.channel.close()
