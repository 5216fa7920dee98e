"""What Transit, the log-ins and KV answer, asked of the double and of a real server alike.

So the double is what it stands for, and what the backend relies on is what the real one does.
"""

from __future__ import annotations

import contextlib
import os
import threading

import hvac
import pytest
import trustme
from hvac.exceptions import VaultError

from hsm import (
    HsmAuthFailed,
    HsmError,
    HsmUnavailable,
    KeyAlgorithm,
    KeyNotFound,
    KeyRef,
    KeySpec,
    open_backend,
)
from hsm.conformance.around_transit import AroundTransit
from hsm.kv import KvReader
from hsm.transit import key_name
from tests.contract.hsm.transit_serving import secret_file
from tests.support.transit_server import BINARY

AAD, DEK = b"aad", bytes(range(32))


@pytest.mark.skipif(BINARY is None, reason="neither bao nor vault is on PATH; only the double was asked")
def test_a_real_server_was_asked_too(server):
    assert server.port


def by_token(server, tmp_path):
    return server.uri(f"token-source={secret_file(tmp_path, server.new_token())}")


def by_approle(server, tmp_path):
    role, secret = server.approle()
    return server.uri(f"auth=approle&role-id={role}&secret-id-source={secret_file(tmp_path, secret)}")


def by_service_account(server, tmp_path, account):
    role, text = account
    return server.uri(f"auth=kubernetes&role={role}&jwt-source={secret_file(tmp_path, text)}")


def by_certificate(server, tmp_path, authority, common_name="strongroom"):
    leaf = authority.issue_cert("strongroom.client", common_name=common_name)
    certificate, key = (tmp_path / f"{os.urandom(4).hex()}.pem" for _ in range(2))
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    return server.uri(f"auth=cert&role=strongroom&client-cert={certificate}&client-key={key}")


@pytest.fixture(params=["token", "approle", "kubernetes", "cert"])
def uri(request, server, tmp_path, client_ca):
    """One way to log in after the other."""
    if request.param == "cert":
        return by_certificate(server, tmp_path, client_ca)
    if request.param == "kubernetes":
        return by_service_account(server, tmp_path, server.service_account())
    return {"token": by_token, "approle": by_approle}[request.param](server, tmp_path)


def fresh(backend, label="servers/kek"):
    ref = KeyRef(f"{label}/{os.urandom(4).hex()}", os.urandom(16))
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    return ref


def opens(backend, kek, blob):
    into = bytearray(32)
    backend.unwrap(kek, blob, AAD, memoryview(into))
    return into == DEK


def test_each_way_to_log_in_serves(uri):
    with open_backend(uri) as backend:
        kek = fresh(backend)
        assert opens(backend, kek, backend.wrap(kek, DEK, AAD))
        assert backend.health(deep=True).ok


def test_a_log_in_that_is_renewed_is_not_made_anew(server, uri):
    with open_backend(uri) as backend, AroundTransit(uri).log_ins() as asked:
        backend._connection._renew_at = 0.0
        backend.random(8)
        assert asked == ["POST /v1/auth/token/renew-self", "POST /v1/transit/random"]


def test_a_refused_approle_is_tried_once(server, tmp_path):
    role, _ = server.approle()
    uri = server.uri(
        f"auth=approle&role-id={role}&secret-id-source={secret_file(tmp_path, 'not-the-secret')}"
    )
    with AroundTransit(uri).log_ins() as asked, pytest.raises(HsmAuthFailed):
        open_backend(uri)
    assert asked == ["POST /v1/auth/approle/login"]


def test_a_service_account_that_is_forged_is_refused_and_tried_once(server, tmp_path):
    uri = by_service_account(server, tmp_path, server.forged_service_account())
    with AroundTransit(uri).log_ins() as asked, pytest.raises(HsmAuthFailed):
        open_backend(uri)
    assert asked == ["POST /v1/auth/kubernetes/login"]


def test_a_certificate_needs_a_common_name_for_the_server_to_know_it_by(server, tmp_path, client_ca):
    with pytest.raises(HsmUnavailable) as caught:
        open_backend(by_certificate(server, tmp_path, client_ca, common_name=None))
    assert caught.value.code_name == "HTTP 500"


def test_a_certificate_of_another_ca_is_no_log_in(server, tmp_path):
    with pytest.raises(HsmError):
        open_backend(by_certificate(server, tmp_path, trustme.CA()))


def test_a_server_of_another_ca_is_not_spoken_to(server, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    right = by_token(server, tmp_path)
    before, _, rest = right.partition("ca-file=")
    wrong = f"{before}ca-file={tmp_path / 'other.pem'}&{rest.partition('&')[2]}"
    with pytest.raises(HsmUnavailable):
        open_backend(wrong)


def test_tokens_that_were_revoked_cost_one_log_in_and_no_operation(server, tmp_path):
    uri = by_approle(server, tmp_path)
    with open_backend(uri, sessions=4, wait_seconds=20) as backend:
        kek = fresh(backend)
        blob = backend.wrap(kek, DEK, AAD)
        server.revoke_tokens()
        failures = []

        def work():
            try:
                for _ in range(5):
                    assert opens(backend, kek, blob)
            except BaseException as error:
                failures.append(error)

        with AroundTransit(uri).log_ins() as asked:
            crew = [threading.Thread(target=work) for _ in range(8)]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()
        assert failures == []
        assert asked.count("POST /v1/auth/approle/login") == 1


def test_a_key_that_another_destroyed_is_not_made_anew_by_wrapping(server, tmp_path):
    with open_backend(by_token(server, tmp_path)) as backend:
        kek = fresh(backend)
        blob = backend.wrap(kek, DEK, AAD)
        server.destroy_key(key_name(kek))
        for _ in range(2):
            with pytest.raises(KeyNotFound):
                backend.wrap(kek, DEK, AAD)
            with pytest.raises(KeyNotFound):
                opens(backend, kek, blob)
        assert key_name(kek) not in server.key_names()


def test_a_sealed_server_is_unavailable_and_comes_back(server, tmp_path):
    with open_backend(by_token(server, tmp_path)) as backend:
        kek = fresh(backend)
        blob = backend.wrap(kek, DEK, AAD)
        server.seal()
        try:
            with pytest.raises(HsmUnavailable) as caught:
                opens(backend, kek, blob)
            assert caught.value.retry_safe
            assert caught.value.code_name == "HTTP 503"
            assert not backend.health().ok
        finally:
            server.unseal()
        assert opens(backend, kek, blob)
        assert backend.health(deep=True).ok


def test_namespaces_are_places_of_their_own(server, tmp_path):
    if not server.new_namespace("team"):
        pytest.skip("this server has no namespaces")
    inside = server.uri(
        f"token-source={secret_file(tmp_path, server.new_token_in('team'))}", namespace="team"
    )
    with open_backend(inside) as team, open_backend(by_token(server, tmp_path)) as outside:
        kek = fresh(team)
        assert opens(team, kek, team.wrap(kek, DEK, AAD))
        assert team.name != outside.name
        with pytest.raises(KeyNotFound):
            outside.wrap(kek, DEK, AAD)
        assert kek not in [info.ref for info in outside.list_keys("servers/")]


def test_secrets_are_read_from_kv_by_the_same_log_in(server, tmp_path):
    server.write_secret("kv/one", {"pin": "1234", "count": 5})
    server.write_secret("kv/below/two", {"password": "p"})
    role, secret = server.approle()
    uri = server.kv_uri(f"auth=approle&role-id={role}&secret-id-source={secret_file(tmp_path, secret)}")
    with KvReader(uri) as reader:
        assert list(reader.paths("kv")) == ["kv/one", "kv/below/two"]
        found = reader.read("kv/one")
        assert found is not None
        assert (found.version, found.fields) == (1, {"pin": bytearray(b"1234"), "count": bytearray(b"5")})
        assert reader.read("kv/none") is None
        assert list(reader.paths("kv/none")) == []
        server.delete_secret("kv/one")
        assert reader.read("kv/one") is None


# What is asked of a key that is there (KEY), was retired (OLD), or is not there (NONE), by which status, and with
# which words, it is refused. The backend tells by these, and by nothing else.
REFUSALS = [
    ("get", "keys/NONE", {}, 404, ""),
    ("get", "keys/NONE/x/y", {}, 403, "permission denied"),
    ("post", "keys/NONE/config", {"min_decryption_version": 1}, 400, "no existing key named"),
    ("delete", "keys/KEY", {}, 400, "deletion is not allowed"),
    ("post", "keys/KEY/config", {"min_encryption_version": 9}, 400, "latest"),
    ("post", "keys/KEY/config", {"exportable": True}, 403, "permission denied"),
    ("post", "keys/KEY/config", {"allow_plaintext_backup": True}, 403, "permission denied"),
    ("post", "keys/NEW", {"type": "aes256-gcm96", "exportable": True}, 403, "permission denied"),
    ("post", "keys/NEW", {"type": "rot13"}, 400, "unknown key type"),
    ("get", "export/encryption-key/KEY", {}, 403, "permission denied"),
    ("get", "backup/KEY", {}, 403, "permission denied"),
    ("post", "encrypt/NONE", {"plaintext": "AAAA"}, 403, "permission denied"),
    ("post", "encrypt/OLD", {"plaintext": "AAAA", "key_version": 1}, 400, "minimum encryption key version"),
    ("post", "decrypt/NONE", {"ciphertext": "vault:v1:AAAA"}, 400, "key not found"),
    ("post", "decrypt/KEY", {"ciphertext": "AAAA"}, 400, "invalid ciphertext"),
    ("post", "decrypt/KEY", {"ciphertext": "vault:v1:" + "AAAA" * 16}, 400, ""),
    ("post", "decrypt/KEY", {"ciphertext": "vault:v9:" + "AAAA" * 16}, 400, "invalid ciphertext"),
    ("post", "decrypt/GONE", {"ciphertext": "vault:v1:" + "AAAA" * 16}, 400, "disallowed by policy"),
    ("post", "sign/NONE", {"input": "AAAA"}, 400, "key not found"),
    ("post", "sign/KEY", {"input": "AAAA"}, 400, "does not support signing"),
    ("post", "hmac/NONE/sha2-256", {"input": "AAAA"}, 400, "key not found"),
]


@pytest.fixture(scope="module")
def asking(server):
    """A raw client, by the log-in that the vault has, and keys in each state."""
    address, token = server.address, server.new_token()
    client = hvac.Client(address, token, verify=str(server.ca_file))

    def ask(method, path, body):
        try:
            client.adapter.request(method, f"/v1/transit/{path}", json=body or None)
        except VaultError as error:
            return error
        return None

    for name, lowest in (("KEY", None), ("OLD", 1), ("GONE", 2)):
        assert ask("post", f"keys/{name}", {"type": "aes256-gcm96", "exportable": False}) is None
        if lowest is not None:
            assert ask("post", f"keys/{name}/rotate", {}) is None
            body = {"min_encryption_version": 2, "min_decryption_version": lowest}
            assert ask("post", f"keys/{name}/config", body) is None
    with contextlib.closing(client.adapter):
        yield ask


STATUS = {
    "InvalidRequest": 400,
    "Forbidden": 403,
    "InvalidPath": 404,
    "InternalServerError": 500,
}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"), REFUSALS, ids=lambda value: str(value)[:40]
)
def test_what_is_refused_is_refused_alike(asking, method, path, body, status, says):
    error = asking(method, path, body)
    assert error is not None
    assert STATUS[type(error).__name__] == status, error
    assert says in str(error)
