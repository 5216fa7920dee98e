"""Transit's own concerns: logging in and staying so, trouble on the way, and what the server is asked."""

from __future__ import annotations

import os
import threading

import pytest
import trustme

from hsm import (
    HsmAuthFailed,
    HsmBusy,
    HsmError,
    HsmIntegrityError,
    HsmPolicyViolation,
    HsmUnavailable,
    KeyAlgorithm,
    KeyNotFound,
    KeyNotPermitted,
    KeyRef,
    KeySpec,
    open_backend,
)
from hsm.transit import _ref, key_name
from hsm.uri import TransitAuth, UriError, parse_transit
from tests.contract.hsm.transit_double import Double
from tests.contract.hsm.transit_serving import secret_file
from tests.integration.wire import until

AAD, DEK = b"aad", bytes(range(32))


@pytest.fixture
def double():
    double = Double()
    yield double
    double.close()


@pytest.fixture
def uri(double, tmp_path):
    return double.uri(f"auth=approle&role-id=the-role&secret-id-source={secret_file(tmp_path, 'the-secret')}")


@pytest.fixture
def backend(uri):
    with open_backend(uri, sessions=4, wait_seconds=2) as backend:
        yield backend


@pytest.fixture
def kek(backend):
    ref = KeyRef("transit/kek", os.urandom(16))
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    return ref


def logins(double):
    return sum(path.endswith("/login") for _, path in double.calls)


def opens(backend, kek, blob):
    into = bytearray(32)
    backend.unwrap(kek, blob, AAD, memoryview(into))
    return into == DEK


@pytest.mark.parametrize("auth", ["token", "approle", "kubernetes"])
def test_each_way_to_log_in(double, tmp_path, auth):
    query = {
        "token": lambda: f"token-source={secret_file(tmp_path, double.new_token())}",
        "approle": lambda: (
            f"auth=approle&role-id=the-role&secret-id-source={secret_file(tmp_path, 'the-secret')}"
        ),
        "kubernetes": lambda: f"auth=kubernetes&role=vault&jwt-source={secret_file(tmp_path, 'the-jwt')}",
    }[auth]()
    with open_backend(double.uri(query)) as backend:
        assert len(backend.random(8)) == 8
        assert backend.name == f"transit:127.0.0.1:{double.port}//transit"


@pytest.mark.parametrize("auth", ["token", "approle"])
def test_a_refused_log_in_is_tried_once(double, tmp_path, auth):
    source = secret_file(tmp_path, "not-the-secret")
    query = (
        f"token-source={source}"
        if auth == "token"
        else f"auth=approle&role-id=the-role&secret-id-source={source}"
    )
    with pytest.raises(HsmAuthFailed) as caught:
        open_backend(double.uri(query))
    assert "not-the-secret" not in str(caught.value)
    assert len(double.calls) == 1


def test_a_new_secret_in_the_file_ends_a_refusal(double, tmp_path):
    """An agent beside the process may write a new token at any time."""
    source = secret_file(tmp_path, double.new_token())
    path = tmp_path / source.rsplit("/", 1)[1]
    with open_backend(double.uri(f"token-source={source}")) as backend:
        double.revoke_tokens()
        for _ in range(3):
            with pytest.raises(HsmAuthFailed):
                backend.random(8)
        asked = len(double.calls)
        with pytest.raises(HsmAuthFailed):
            backend.random(8)
        assert len(double.calls) == asked, "a refused token is not sent again"
        assert backend.health().reason == "auth failed"
        path.unlink()
        path.write_text(double.new_token())
        path.chmod(0o400)
        assert len(backend.random(8)) == 8


def test_a_token_that_was_revoked_is_replaced_by_one_new_log_in(double, backend, kek):
    blob = backend.wrap(kek, DEK, AAD)
    before = logins(double)
    double.revoke_tokens()
    failures = []

    def work():
        for _ in range(5):
            try:
                assert opens(backend, kek, blob)
            except BaseException as error:
                failures.append(error)

    crew = [threading.Thread(target=work) for _ in range(8)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert failures == []
    assert logins(double) == before + 1


def test_a_token_is_renewed_before_it_ends(double, uri):
    double.ttl = 0.0  # at once
    with pytest.raises(HsmError):
        open_backend(uri)
    double.ttl = 60.0
    with open_backend(uri) as backend:
        backend._connection._renew_at = 0.0
        double.ttl = 3600.0
        backend.random(8)
        assert ("POST", "auth/token/renew-self") in double.calls
        before = logins(double)
        backend._connection._renew_at = 0.0
        double.revoke_tokens()
        backend.random(8)
        assert logins(double) == before + 1


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503, 412])
def test_passing_trouble_is_tried_again(double, backend, kek, status):
    double.fail(status, status)
    blob = backend.wrap(kek, DEK, AAD)
    double.fail(status, status)
    assert opens(backend, kek, blob)


def test_lasting_trouble_is_unavailability_and_passes(double, backend, kek):
    blob = backend.wrap(kek, DEK, AAD)
    double.sealed = True
    with pytest.raises(HsmUnavailable) as caught:
        opens(backend, kek, blob)
    assert caught.value.retry_safe
    assert caught.value.code_name == "HTTP 503"
    assert not backend.health().ok
    double.sealed = False
    assert opens(backend, kek, blob)
    assert backend.health(deep=True).ok


def test_creation_is_not_repeated(double, backend):
    ref = KeyRef("transit/once", os.urandom(16))
    posts = [call for call in double.calls if call[0] == "POST"]
    backend.list_keys()
    double.fail(200, 503)  # the list, and then the creation itself
    with pytest.raises(HsmUnavailable):
        backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    made = [call for call in double.calls if call[0] == "POST" and call not in posts]
    assert len(made) == 1
    with pytest.raises(KeyNotFound):
        backend.key_info(ref)


def test_an_exportable_key_is_destroyed_again(double, backend, monkeypatch):
    from tests.contract.hsm import transit_double

    real = transit_double.Key
    monkeypatch.setattr(transit_double, "Key", lambda kind, _, backup: real(kind, True, backup))
    with pytest.raises(HsmPolicyViolation):
        backend.create_key(KeySpec(KeyRef("transit/exportable", os.urandom(16)), KeyAlgorithm.AES_256))
    assert double.keys == {}


def test_a_key_that_another_destroyed_is_not_made_anew_by_wrapping(double, backend, kek):
    backend.wrap(kek, DEK, AAD)
    double.keys.clear()
    with pytest.raises(KeyNotFound):
        backend.wrap(kek, DEK, AAD)
    assert double.keys == {}


def test_what_is_not_permitted_is_said_so(double, backend, kek):
    double.fail(403, 200, 403)  # the log-in in between is fine
    with pytest.raises(KeyNotPermitted):
        backend.wrap(kek, DEK, AAD)
    backend.wrap(kek, DEK, AAD)


def test_more_callers_than_connections_wait_and_then_are_told(double, uri):
    with open_backend(uri, sessions=1, wait_seconds=0.05) as backend:
        thread = threading.Thread(target=lambda: backend.random(8))
        with double.lock:  # so nobody is answered
            before = double.arrived
            thread.start()
            until(lambda: double.arrived > before)
            with pytest.raises(HsmBusy):
                backend.random(8)
        thread.join()


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    source = secret_file(tmp_path, "x")
    with pytest.raises(HsmUnavailable):
        open_backend(f"transit://127.0.0.1:9/transit?plaintext-http=yes&token-source={source}&timeout=0.5")


def test_a_pkcs11_blob_is_not_sent_to_the_server(double, backend, kek):
    before = len(double.calls)
    with pytest.raises(HsmIntegrityError):
        backend.unwrap(kek, b"\x01\x01" + bytes(60), AAD, memoryview(bytearray(64)))
    assert len(double.calls) == before


def test_a_log_in_by_certificate_over_tls(tmp_path):
    ca, stranger = trustme.CA(), trustme.CA()
    double = Double(tls=ca)
    client, other = (one.issue_cert("strongroom.client", common_name="strongroom") for one in (ca, stranger))

    def uri(leaf, authority):
        place = tmp_path / os.urandom(4).hex()
        place.mkdir()
        authority.cert_pem.write_to_path(place / "ca.pem")
        leaf.cert_chain_pems[0].write_to_path(place / "client.pem")
        leaf.private_key_pem.write_to_path(place / "client-key.pem")
        files = f"ca-file={place}/ca.pem&client-cert={place}/client.pem&client-key={place}/client-key.pem"
        return f"transit://localhost:{double.port}/transit?auth=cert&role=vault&{files}"

    try:
        with open_backend(uri(client, ca)) as backend:
            assert len(backend.random(8)) == 8
            double.revoke_tokens()
            assert len(backend.random(8)) == 8
        assert [path for _, path in double.calls].count("auth/cert/login") == 2
        for wrong in (uri(other, ca), uri(client, stranger)):  # a client, and a server, of another CA
            with pytest.raises(HsmError):
                open_backend(wrong)
    finally:
        double.close()


@pytest.mark.parametrize("label", ["a", "acme/kek/v1", "a.b_c-d e", "%_2f", "~!@#$^&*()"])
def test_every_label_has_a_name_of_its_own(label):
    ref = KeyRef(label, os.urandom(16))
    assert _ref(key_name(ref)) == ref
    assert key_name(ref).replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_names_of_others_are_not_ours():
    for name in ("somebodys-key", "k-", "k-a.123", "k-_2f", "k-_00." + "0" * 32):
        assert _ref(name) is None


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("transit:///transit?token-source=file:/x", "transit://host"),
        ("transit://h/transit", "needs token-source"),
        ("transit://h/transit?auth=ldap", "auth is"),
        ("transit://h/transit?auth=approle&role-id=x", "secret-id-source"),
        ("transit://h/transit?auth=cert&client-cert=/c", "client-key"),
        ("transit://h/transit?token-source=hvs.secret", "token-source"),
        ("transit://h/transit?token-source=file:/x&timeout=0", "timeout"),
        ("transit://h/transit?token-source=file:/x&plaintext-http=maybe", "plaintext-http"),
        ("transit://h/transit?token-source=file:/x&token=abc", "unknown attribute"),
        ("transit://user:pw@h/transit?token-source=file:/x", "transit://host"),
    ],
)
def test_what_is_wrong_with_a_uri_is_named(uri, says):
    with pytest.raises(UriError, match=says) as caught:
        parse_transit(uri)
    assert "hvs.secret" not in str(caught.value)


def test_https_is_the_default():
    uri = parse_transit(
        "transit://vault.example:8200/kms/transit?auth=kubernetes&role=v&namespace=ns&ca-file=/ca"
    )
    assert (uri.address, uri.mount, uri.auth) == (
        "https://vault.example:8200",
        "kms/transit",
        TransitAuth.KUBERNETES,
    )
    assert uri.source is not None
    assert uri.source.place.endswith("serviceaccount/token")
    assert (uri.namespace, uri.ca_file, uri.timeout) == ("ns", "/ca", 5.0)
