"""Promise 4, on the real server: outside an open session no copy of a secret is in the process.

The scan is made from this process, over the whole of the worker's memory. Its controls: while a session is open the
secret must be found (so the scan sees what is there), and only in locked memory.
"""

from __future__ import annotations

import base64
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import until
from tests.support.scan import copies, forms
from vault.client import StrongroomError

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


def canary() -> str:
    return f"canary{secrets.token_hex(24)}"


def scan(site: VaultSite, secret: str) -> dict[str, int]:
    (pid,) = site.worker_pids()
    return copies(pid, forms(secret.encode()))


def in_the_end(site: VaultSite, secret: str) -> dict[str, int]:
    """What is found when the sessions are over, which takes a moment: nothing, or what stays."""
    deadline = time.monotonic() + 20
    while any((found := scan(site, secret)).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_no_copy_of_a_secret_is_left_after_puts_reveals_sessions_and_errors(fresh_site: VaultSite) -> None:
    fresh_site.start()
    secret = canary()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        for index in range(20):
            client.put(f"acme/memory/{index}", {"value": secret, "webhook_secret": secret}, kind="generic")
            client.reveal(f"acme/memory/{index}", purpose="test")[0].close()
        names = [f"acme/memory/{index}" for index in range(20)]
        for revealed in client.reveal(*names, purpose="test"):
            revealed.close()
        for _ in range(10):
            with client.session(names[0], purpose="test") as session:
                session.reveal("value").close()
                session.verify_webhook("stripe", {"stripe-signature": "t=1,v1=00"}, b"{}")
                with pytest.raises(StrongroomError):
                    session.reveal("nothing")
        with client.session(names[0], purpose="test") as session:
            session.reveal("value").close()
            while_open = scan(fresh_site, secret)
    after = in_the_end(fresh_site, secret)
    assert while_open["raw"] >= 1, "the scan does not see what is there"
    assert after == dict.fromkeys(after, 0)


def test_no_copy_is_left_after_every_use_and_after_a_request_to_a_provider(fresh_site: VaultSite) -> None:
    import threading

    from tests.support.postgres import free_port
    from vault.cli import mock_providers

    port, pki = free_port(), fresh_site.folder / "pki"
    (fresh_site.folder / "connectors").mkdir()
    text = mock_providers.connectors(port, str(pki / "ca.pem"))["stripe-mock"]
    (fresh_site.folder / "connectors/stripe-mock.toml").write_text(text)
    fresh_site.write_config(connectors={"folder": "connectors"})
    providers = mock_providers.Providers(port, str(pki / "server.pem"), str(pki / "server-key.pem"))
    threading.Thread(target=providers.serve_forever, daemon=True).start()
    fresh_site.start()
    secret = canary()
    api_key = f"sk_test_{secret}"
    seed = base64.b32encode(secret.encode()).decode()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put("acme/memory/uses", {"key": secret, "totp_seed": seed}, kind="generic")
        client.put("acme/memory/stripe", {"api_key": api_key}, kind="stripe_account")
        with client.session("acme/memory/uses", "acme/memory/stripe", purpose="test") as session:
            for _ in range(10):
                session.hmac("key", b"message", name="acme/memory/uses")
                session.hmac("key", b"message", raw=True, name="acme/memory/uses")
                session.verify_hmac("key", b"message", b"x", name="acme/memory/uses")
                session.totp(name="acme/memory/uses")
                with pytest.raises(StrongroomError):
                    session.sign_raw(b"x", field_name="key", name="acme/memory/uses")
            assert (
                session.http_call("stripe-mock", "GET", "/v1/balance", name="acme/memory/stripe").status
                == 200
            )
            with pytest.raises(StrongroomError) as caught:
                session.http_call("stripe-mock", "GET", "/v1/echo", name="acme/memory/stripe")
            assert caught.value.reason == "RESPONSE_WITHHELD"
            while_open = scan(fresh_site, secret)
    after = in_the_end(fresh_site, secret)
    providers.shutdown()
    providers.server_close()
    assert while_open["raw"] >= 1, "the scan does not see what is there"
    assert after == dict.fromkeys(after, 0)


def test_a_client_that_is_killed_leaves_nothing_either(fresh_site: VaultSite) -> None:
    import subprocess
    import sys

    fresh_site.start()
    secret = canary()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put("acme/memory/killed", {"value": secret}, kind="generic")
    program = """
import sys
from pathlib import Path
from vault.client import Client, Profile
f = Path(sys.argv[1])
p = Profile(sys.argv[2], f/"ca.pem", f/"payments.pem", f/"payments-key.pem", "acme", ("session.reveal:acme/**",))
with Client(p).session("acme/memory/killed", purpose="test") as session:
    session.reveal()
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(fresh_site.folder / "pki"), fresh_site.address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        assert scan(fresh_site, secret)["raw"] >= 1
        child.kill()
    after = in_the_end(fresh_site, secret)
    assert after == dict.fromkeys(after, 0)
    with fresh_site.operator() as operator:
        closed = until(lambda: operator.audit_records(action="session.close"))
    assert '"reason":"disconnected"' in closed[-1].after_state


def test_a_worker_can_neither_be_dumped_nor_leave_a_core(fresh_site: VaultSite) -> None:
    fresh_site.start()
    (pid,) = fresh_site.worker_pids()
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[
        4:6
    ] == ["0", "0"]
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
