"""The SDKs against a real vault, on both databases: the main job, and what a user sees when it goes wrong."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
import weakref
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from vault.client import AsyncClient, SessionClosedError, StrongroomError
from vault.crypto.errors import BufferClosed
from vault.crypto.kinds import KindError
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def pem_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def unique(prefix: str = "acme/sdk") -> str:
    return f"{prefix}/{secrets.token_hex(6)}"


def test_what_is_put_is_revealed_to_its_caller_field_by_field(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        put = client.put(
            name, {"username": "u", "password": "pä$$"}, kind="bank_login", labels={"env": "test"}
        )
        assert (put.latest_version, list(put.field_names), dict(put.labels)) == (
            1,
            ["password", "username"],
            {"env": "test"},
        )
        (all_of_it,) = client.reveal(name, purpose="test")
        (one,) = client.reveal(name, purpose="test", field_names=["username"])
    with all_of_it, one:
        assert (all_of_it.text("password"), list(all_of_it)) == ("pä$$", ["password", "username"])
        assert list(one) == ["username"]


def test_a_session_reveals_and_wipes_when_its_block_ends(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        client.put(name, {"api_key": "k"}, kind="api_key")
        with client.session(name, purpose="test") as session:
            revealed = session.reveal("api_key")
            assert bytes(revealed["api_key"]) == b"k"
    with pytest.raises(BufferClosed):
        revealed["api_key"]
    assert session.closed is not None
    assert session.closed.reason == session_pb2.CLOSE_REASON_CLOSED_BY_CALLER
    assert (session.closed.reveals, session.closed.buffers, session.closed.buffers_wiped) == (1, 2, 2)


def test_a_webhook_is_verified_without_a_reveal(site: VaultSite) -> None:
    name = unique()
    body, moment = b'{"id":"evt_1"}', int(time.time())
    signature = hmac.digest(b"whsec_x", f"{moment}.".encode() + body, "sha256").hex()
    with site.client() as client:
        client.put(name, {"webhook_secret": "whsec_x"}, kind="stripe_account")
        with client.session(name, purpose="test") as session:
            good = session.verify_webhook("stripe", {"Stripe-Signature": f"t={moment},v1={signature}"}, body)
            bad = session.verify_webhook(
                "stripe", {"Stripe-Signature": f"t={moment},v1={signature}"}, body + b" "
            )
    assert good.verdict == session_pb2.WEBHOOK_VERDICT_VALID
    assert good.matched_field_name == "webhook_secret"
    assert bad.verdict == session_pb2.WEBHOOK_VERDICT_SIGNATURE_MISMATCH
    assert session.closed is not None
    assert (session.closed.reveals, session.closed.uses) == (0, 2)


def test_secrets_are_used_without_a_reveal(site: VaultSite) -> None:
    name = unique()
    key = b"k" * 32
    fields = {
        "key": key,
        "totp_seed": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "private_key": "p",
        "public_key": "pub",
    }
    with site.client() as client:
        client.put(name, fields, kind="generic")
        with client.session(name, purpose="test") as session:
            mac = session.hmac("key", b"message", context="invoices")
            assert session.verify_hmac("key", b"message", mac, context="invoices")
            assert not session.verify_hmac("key", b"other", mac, context="invoices")
            assert session.hmac("key", b"message", raw=True) == hmac.digest(key, b"message", "sha256")
            assert len(session.totp().code) == 6
            assert session.answer_challenge("0" * 20).startswith("pub|")
    assert session.closed is not None
    assert (session.closed.reveals, session.closed.uses) == (0, 6)


def test_a_private_key_signs_in_every_format_without_leaving_the_vault(site: VaultSite) -> None:
    name = unique()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with site.client() as client:
        client.put(name, {"private_key": pem, "algorithm": "ES256", "kid": "k1"}, kind="signing_key")
        with client.session(name, purpose="test") as session:
            assert session.sign_jws(b"payload", header={"cty": "text/plain"}).count("..") == 1
            assert session.client_assertion("https://bank.example", client_id="me").count(".") == 2
            headers = session.sign_http(
                "POST", "https://bank.example/pay", {}, components=["@method", "content-digest"], body=b"{}"
            )
            assert set(headers) == {"content-digest", "signature-input", "signature"}
            signed = session.sign_raw(b"message")
    assert signed.algorithm == "ES256"
    key.public_key().verify(signed.signature, b"message", ec.ECDSA(hashes.SHA256()))


def test_what_does_not_fit_its_kind_or_may_never_be_stored_is_refused_here_and_in_the_vault(
    site: VaultSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique()
    bad = (
        ({"api_key": "k", "colour": "red"}, "stripe_account", "KIND_MISMATCH"),
        ({"private_key": "no key"}, "signing_key", "KIND_MISMATCH"),
        ({"private_key": pem_key(), "certificate": NO_CERTIFICATE}, "tls_client", "KIND_MISMATCH"),
        ({"cvv": "123"}, "generic", "STORING_FORBIDDEN"),
        ({"note": ";4111111111111111=29121010000?"}, "generic", "STORING_FORBIDDEN"),
        ({"value": "x"}, "teapot", "FIELD_INVALID"),
    )
    with site.client() as client:
        for fields, kind, _ in bad:
            with pytest.raises(KindError):
                client.put(name, fields, kind=kind)
        # A client that does not look: the vault does.
        monkeypatch.setattr("vault.crypto.kinds.check", lambda _kind, _fields: None)
        for fields, kind, reason in bad:
            with pytest.raises(StrongroomError) as caught:
                client.put(name, fields, kind=kind)
            assert caught.value.reason == reason


def test_each_use_needs_its_own_scope_and_verifying_never_gives_the_power_to_sign(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        client.put(name, {"key": "k" * 32, "private_key": pem_key(), "public_key": "pub"}, kind="generic")
    uses = {
        "hmac": lambda session: session.hmac("key", b""),
        "hmac_raw": lambda session: session.hmac("key", b"", raw=True),
        "verify_hmac": lambda session: session.verify_hmac("key", b"", b""),
        "answer_challenge": lambda session: session.answer_challenge("0" * 20),
        "sign_jws": lambda session: session.sign_jws(b"x"),
        "client_assertion": lambda session: session.client_assertion("https://x", client_id="me"),
        "sign_http": lambda session: session.sign_http("GET", "https://x/", {}, components=["@path"]),
        "sign_raw": lambda session: session.sign_raw(b"x"),
    }
    for held in uses:
        with (
            site.client(scopes=(f"session.use.{held}:acme/**",)) as client,
            client.session(name, purpose="test") as session,
        ):
            for asked, use in uses.items():
                if asked == held:
                    use(session)
                else:
                    with pytest.raises(StrongroomError) as caught:
                        use(session)
                    assert caught.value.reason == "SCOPE_DENIED"


def test_a_failed_operation_leaves_the_session_open(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        client.put(name, {"api_key": "k"}, kind="api_key")
        with client.session(name, purpose="test") as session:
            with pytest.raises(StrongroomError) as caught:
                session.reveal("nothing")
            assert caught.value.reason == "UNKNOWN_FIELD"
            assert session.reveal("api_key").text("api_key") == "k"


def test_nothing_keeps_a_call_that_is_over(site: VaultSite) -> None:
    # gRPC's call that is collected at the interpreter's end can hang the program for ever.
    name = unique()
    with site.client() as client:
        client.put(name, {"a": "b"}, kind="generic")
        with client.session(name, purpose="test") as session:
            ended = weakref.ref(session._call)
        assert ended() is None
        with pytest.raises(StrongroomError) as refused, client.session(f"{name}-not", purpose="test"):
            pass
        assert refused.value.__context__ is None, "the error of a stream is the call"


def test_a_hundred_credentials_are_revealed_in_one_call_or_none_is(site: VaultSite) -> None:
    prefix = unique()
    names = [f"{prefix}/{index}" for index in range(100)]
    with site.client() as client:
        for index, name in enumerate(names):
            client.put(name, {"value": f"secret {index}"}, kind="generic")
        revealed = client.reveal(*names, purpose="test")
        assert [item.text("value") for item in revealed] == [f"secret {index}" for index in range(100)]
        for item in revealed:
            item.close()
        with pytest.raises(StrongroomError) as caught:
            client.reveal(*names[:99], f"{prefix}/absent", purpose="test")
    assert caught.value.reason == "CREDENTIAL_NOT_FOUND"


def test_versions_are_immutable_and_a_destroyed_one_is_gone(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        first = client.put(name, {"value": "one"}, kind="generic", etag="new")
        second = client.put(name, {"value": "two"}, kind="generic", etag=first.etag)
        with pytest.raises(StrongroomError) as stale:
            client.put(name, {"value": "three"}, kind="generic", etag=first.etag)
        assert stale.value.reason == "ETAG_MISMATCH"
        client.destroy_version(name, 2)
        with pytest.raises(StrongroomError) as destroyed:
            client.reveal(name, purpose="test")
        versions = client.list_versions(name)
    assert second.latest_version == 2
    assert destroyed.value.reason == "VERSION_DESTROYED"
    assert [(version.version, version.state) for version in versions] == [(2, 2), (1, 1)]


def test_a_deleted_credential_is_neither_revealed_nor_written_until_it_is_undeleted(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        client.put(name, {"value": "one"}, kind="generic")
        client.delete(name)
        for attempt in (
            lambda: client.reveal(name, purpose="test"),
            lambda: client.put(name, {"value": "two"}, kind="generic"),
            lambda: client.delete(name),
        ):
            with pytest.raises(StrongroomError) as caught:
                attempt()
            assert caught.value.reason == "CREDENTIAL_DELETED"
        assert name not in [
            credential.name for credential in client.list_credentials(name.rpartition("/")[0])
        ]
        client.undelete(name)
        assert client.reveal(name, purpose="test")[0].text("value") == "one"


def test_deleting_a_credential_ends_the_sessions_that_hold_it(site: VaultSite) -> None:
    name = unique()
    with site.client() as client, site.client() as other:
        client.put(name, {"value": "one"}, kind="generic")
        with pytest.raises(SessionClosedError) as caught, client.session(name, purpose="test") as session:
            other.delete(name)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                session.reveal("value").close()
                time.sleep(0.05)
    assert caught.value.closed.reason == session_pb2.CLOSE_REASON_CREDENTIAL_GONE
    assert caught.value.closed.buffers_wiped == caught.value.closed.buffers


def test_after_a_rotation_old_versions_open_and_new_ones_use_the_new_key(site: VaultSite) -> None:
    old, new = unique(), unique()
    with site.client() as client, site.operator() as operator:
        client.put(old, {"value": "old"}, kind="generic")
        before = operator.describe_key("acme").key.version
        rotated = operator.rotate_key("acme")
        client.put(new, {"value": "new"}, kind="generic")
        revealed = client.reveal(old, new, purpose="test")
        assert [item.text("value") for item in revealed] == ["old", "new"]
        assert rotated.version == before + 1
        assert client.list_versions(new)[0].kek_version == rotated.version
        described = operator.describe_key("acme", before)
        assert (described.sensitive, described.extractable, described.local) == (True, False, True)
        assert described.credential_versions >= 1
        states = [key.state for key in operator.list_keys("acme")]
        assert states.count(2) == 1


def test_lists_page_through_everything_and_show_only_what_the_token_may_read(site: VaultSite) -> None:
    prefix = unique()
    with site.client() as client:
        for index in range(5):
            client.put(f"{prefix}/a/{index}", {"v": "x"}, kind="generic")
        client.put(f"{prefix}/b/0", {"v": "x"}, kind="generic")
    with site.client(scopes=(f"credential.read:{prefix}/a/*",)) as reader:
        names = [credential.name for credential in reader.list_credentials(prefix)]
    assert names == [f"{prefix}/a/{index}" for index in range(5)]


def test_the_log_holds_every_act_and_verifies(site: VaultSite) -> None:
    name = unique()
    with site.client() as client:
        client.put(name, {"value": "x"}, kind="generic")
        client.reveal(name, purpose="for the log")[0].close()
    with site.client(scopes=(f"credential.read:{name}",)) as powerless:
        with pytest.raises(StrongroomError) as refused:
            powerless.reveal(name, purpose="test")
        assert refused.value.reason == "SCOPE_DENIED"
    with site.operator() as operator, site.system() as system:
        records = operator.audit_records(resource=name)
        assert [(record.action, record.outcome, record.reason) for record in records] == [
            ("credential.put", 1, ""),
            ("session.reveal", 1, ""),
            ("session.reveal", 2, "SCOPE_DENIED"),
        ]
        assert "for the log" in records[1].after_state
        assert "credential_versions:" in records[0].rows_written
        note = operator.checkpoint()
        report = system.verify_audit()
    assert report.valid, list(report.findings)
    assert report.checkpoints >= 1
    assert note.note.startswith("strongroom/audit\n")


async def test_the_asyncio_sdk_does_the_same_and_many_at_once(site: VaultSite) -> None:
    prefix = unique()
    async with AsyncClient(site.profile("payments")) as client:
        await asyncio.gather(
            *(client.put(f"{prefix}/{index}", {"v": str(index)}, kind="generic") for index in range(20))
        )
        revealed = await asyncio.gather(
            *(client.reveal(f"{prefix}/{index}", purpose="test") for index in range(20))
        )
        assert [item.text("v") for (item,) in revealed] == [str(index) for index in range(20)]
        async with client.session(f"{prefix}/0", f"{prefix}/1", purpose="test") as session:
            assert (await session.reveal("v", name=f"{prefix}/1")).text("v") == "1"
            with pytest.raises(StrongroomError) as caught:
                await session.reveal("v", name=f"{prefix}/2")
            assert caught.value.reason in ("CREDENTIAL_NOT_FOUND", "SCOPE_DENIED")
        assert session.closed is not None
        assert session.closed.reason == session_pb2.CLOSE_REASON_CLOSED_BY_CALLER


async def test_many_writers_of_one_credential_lose_no_version(site: VaultSite) -> None:
    name = unique()
    async with AsyncClient(site.profile("payments")) as client:
        results = await asyncio.gather(
            *(client.put(name, {"v": str(index)}, kind="generic") for index in range(40)),
            return_exceptions=True,
        )
        stored = [result.latest_version for result in results if not isinstance(result, BaseException)]
        refused = [result for result in results if isinstance(result, BaseException)]
        versions = [version.version for version in await client.list_versions(name)]
    assert sorted(stored) == sorted(versions)
    assert all(isinstance(error, StrongroomError) and error.reason == "ETAG_MISMATCH" for error in refused)
