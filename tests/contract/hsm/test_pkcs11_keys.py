"""What only PKCS#11 can show: thieves, doubles, foreign objects, and blobs of earlier versions."""

from __future__ import annotations

import logging
import os

import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from hsm import (
    HsmPolicyViolation,
    KeyAlgorithm,
    KeyAmbiguous,
    KeyNotFound,
    KeyRef,
    KeySpec,
    open_backend,
)
from hsm.pkcs11 import keys, steal


def on_session(backend, work):
    return backend._runner.alone("test", lambda worker: work(worker.session))


def plant(backend, ref, value, capabilities):
    template = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.LABEL: ref.label,
        Attribute.ID: ref.object_id,
        Attribute.VALUE: value,
        **{
            name: bool(capabilities & flag)
            for name, flag in (
                (Attribute.ENCRYPT, MechanismFlag.ENCRYPT),
                (Attribute.DECRYPT, MechanismFlag.DECRYPT),
                (Attribute.WRAP, MechanismFlag.WRAP),
                (Attribute.UNWRAP, MechanismFlag.UNWRAP),
            )
        },
    }
    on_session(backend, lambda session: session.create_object(template))


@pytest.fixture
def ref(backend):
    ref = KeyRef("pkcs11/test", os.urandom(16))
    yield ref
    on_session(
        backend, lambda session: [key.destroy() for key in session.get_objects({Attribute.ID: ref.object_id})]
    )


def test_the_thief_finds_what_is_open(backend, ref):
    """Else the conformance suite's steal test would prove nothing."""

    def work(session):
        key = session.generate_key(
            KeyType.AES,
            256,
            id=ref.object_id,
            label=ref.label,
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        return steal.attempts(session, key)

    found = on_session(backend, work)
    assert "read its value" in found
    assert "wrap it by AES_KEY_WRAP" in found
    assert "copy it as extractable" in found


def test_two_keys_of_one_label_and_id_are_ambiguous(backend, ref):
    for _ in range(2):
        plant(backend, ref, os.urandom(32), MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT)
    for use in (
        lambda: backend.wrap(ref, bytes(32), b"a"),
        lambda: backend.key_info(ref),
        lambda: backend.destroy_key(ref, confirm=ref.label),
    ):
        with pytest.raises(KeyAmbiguous):
            use()


@pytest.mark.parametrize("fault", ["not sensitive", "extractable", "may derive"])
def test_a_key_that_comes_out_wrong_is_destroyed(backend, ref, fault, monkeypatch):
    monkeypatch.setattr(keys, "policy_faults", lambda *_: [fault])
    with pytest.raises(HsmPolicyViolation, match=fault):
        backend.create_key(KeySpec(ref, KeyAlgorithm.EC_P256))
    assert on_session(backend, lambda session: list(session.get_objects({Attribute.ID: ref.object_id}))) == []


def test_policy_sees_an_imported_key_that_may_do_too_much(backend, ref):
    plant(backend, ref, os.urandom(32), MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT | MechanismFlag.WRAP)

    def work(worker):
        key = keys.find_any(worker, ref, "test")
        return keys.policy_faults(worker, key, keys.describe(worker, key, kwp=False))

    found = backend._runner.alone("test", work)
    assert {"not made in the HSM", "may both encrypt and wrap", "was extractable"} <= set(found)


def test_objects_of_others_are_not_listed_and_not_touched(backend):
    def make(session):
        session.generate_key(KeyType.AES, 128, id=b"short", label="pkcs11/foreign", store=True)

    on_session(backend, make)
    try:
        assert backend.list_keys("pkcs11/foreign") == []
    finally:
        on_session(
            backend,
            lambda session: [
                key.destroy() for key in session.get_objects({Attribute.LABEL: "pkcs11/foreign"})
            ],
        )


def test_an_object_that_only_shares_the_label_blocks_creation(backend, ref):
    plant(backend, KeyRef(ref.label, os.urandom(16)), os.urandom(32), MechanismFlag.ENCRYPT)
    try:
        with pytest.raises(KeyAmbiguous):
            backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    finally:
        on_session(
            backend,
            lambda session: [key.destroy() for key in session.get_objects({Attribute.LABEL: ref.label})],
        )


def test_the_wear_of_a_key_is_warned_of_once(backend, ref, caplog):
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    with caplog.at_level(logging.WARNING, "hsm.usage"):
        backend.note_usage(ref, (1 << 30) - 2)
        for _ in range(4):
            backend.wrap(ref, bytes(32), b"a")
    assert len(caplog.records) == 1
    assert "rotate" in caplog.text


def test_a_destroyed_key_is_not_found_in_sessions_that_knew_it(token_uri, ref, backend):
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    blob = backend.wrap(ref, bytes(32), b"a")
    with open_backend(token_uri) as other:
        other.unwrap(ref, blob, b"a", memoryview(bytearray(32)))
        backend.destroy_key(ref, confirm=ref.label)
        with pytest.raises(KeyNotFound):
            other.unwrap(ref, blob, b"a", memoryview(bytearray(32)))
