"""A credential tells who last wrote, used and revealed it."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from tests.integration.wire import until

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


def test_who_last_wrote_used_and_revealed_a_credential_can_be_seen(site: VaultSite) -> None:
    prefix = f"acme/activity/{secrets.token_hex(4)}"
    name, untouched = f"{prefix}/touched", f"{prefix}/untouched"
    with site.client() as payments, site.client("ledger") as ledger:
        began = time.time()
        for one in (name, untouched):
            payments.put(one, {"api_key": "k" * 32}, kind="api_key")
        ledger.put(name, {"api_key": "n" * 32}, kind="api_key")
        payments.set_standing(name, "expiring", note="soon")
        ledger.reveal(name, purpose="test")[0].close()
        with payments.session(name, purpose="test") as session:
            session.hmac("api_key", b"message")
            session.reveal().close()
            session.hmac("api_key", b"message")
        with ledger.session(name, purpose="test") as session:
            session.hmac("api_key", b"message")

        def told() -> object:
            seen = payments.get(name)
            done = seen.last_used_by.endswith("/ledger") and seen.last_revealed_by.endswith("/payments")
            return seen if done else None

        seen = until(told)
        assert seen.last_written_by.endswith("/ledger"), "who set its standing wrote nothing"
        assert seen.updated_by.endswith("/payments")
        assert seen.created_by.endswith("/payments")
        moments = [
            moment.ToNanoseconds() / 1e9
            for moment in (seen.last_written_time, seen.last_revealed_time, seen.last_used_time)
        ]
        assert moments == sorted(moments)
        assert began <= moments[0]
        assert moments[-1] <= time.time()
        listed = {item.name: item for item in payments.list_credentials(prefix)}
        assert listed[name] == seen
        assert not listed[untouched].HasField("last_used_time")
        assert not listed[untouched].HasField("last_revealed_time")
        assert listed[untouched].last_written_by.endswith("/payments")
