"""The suite on the life of a key."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: D103

from __future__ import annotations

import os
import secrets

import pytest

from hsm import (
    HsmBackend,
    HsmPolicyViolation,
    KeyAlgorithm,
    KeyAmbiguous,
    KeyNotFound,
    KeyNotPermitted,
    KeyRef,
    KeySpec,
    KeyState,
)
from hsm.conformance import children
from hsm.conformance.support import AAD, DEK, refused, unwrapped
from hsm.usage import REFUSE_AT

# -- the life of a key --------------------------------------------------------------------------------


def test_a_new_kek_is_what_policy_demands(backend: HsmBackend) -> None:
    ref = KeyRef("conformance/new", secrets.token_bytes(16))
    info = backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    assert (info.ref, info.algorithm, info.state) == (ref, KeyAlgorithm.AES_256, KeyState.ACTIVE)
    assert info.extractable is False
    assert info.sensitive is not False
    assert info.local is not False
    assert backend.key_info(ref) == info
    assert info in backend.list_keys("conformance/new")
    assert info not in backend.list_keys("conformance/newer")


def test_rotation_keeps_the_old_and_rewrap_moves_it(backend: HsmBackend, kek: KeyRef) -> None:
    new = children.fresh(backend, "kek2", KeyAlgorithm.AES_256)
    blob = backend.wrap(kek, DEK, AAD)
    moved = backend.rewrap(kek, blob, AAD, new, b"new context")
    assert unwrapped(backend, new, moved, b"new context") == DEK
    refused(backend, new, moved, AAD)
    assert unwrapped(backend, kek, blob) == DEK


def test_a_retired_kek_opens_but_no_longer_wraps(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    backend.set_key_state(kek, KeyState.DECRYPT_ONLY)
    assert backend.key_info(kek).state is KeyState.DECRYPT_ONLY
    assert unwrapped(backend, kek, blob) == DEK
    with pytest.raises(KeyNotPermitted):
        backend.wrap(kek, DEK, AAD)
    refused(backend, kek, blob, b"other")
    backend.set_key_state(kek, KeyState.ACTIVE)
    assert unwrapped(backend, kek, backend.wrap(kek, DEK, AAD)) == DEK


def test_a_disabled_kek_does_nothing_and_can_be_enabled(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    backend.set_key_state(kek, KeyState.DISABLED)
    assert backend.key_info(kek).state is KeyState.DISABLED
    with pytest.raises(KeyNotPermitted):
        backend.wrap(kek, DEK, AAD)
    with pytest.raises(KeyNotPermitted):
        backend.unwrap(kek, blob, AAD, memoryview(bytearray(64)))
    backend.set_key_state(kek, KeyState.ACTIVE)
    assert unwrapped(backend, kek, blob) == DEK


def test_a_destroyed_key_is_gone_with_all_that_it_wrapped(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    with pytest.raises(ValueError, match="confirmed"):
        backend.destroy_key(kek, confirm="something else")
    assert unwrapped(backend, kek, blob) == DEK
    backend.destroy_key(kek, confirm=kek.label)
    for use in (
        lambda: backend.unwrap(kek, blob, AAD, memoryview(bytearray(64))),
        lambda: backend.wrap(kek, DEK, AAD),
        lambda: backend.key_info(kek),
        lambda: backend.destroy_key(kek, confirm=kek.label),
        lambda: backend.set_key_state(kek, KeyState.ACTIVE),
    ):
        with pytest.raises(KeyNotFound):
            use()
    assert not [info for info in backend.list_keys("conformance/") if info.ref == kek]


def test_a_label_or_an_id_that_is_taken_is_refused(backend: HsmBackend, kek: KeyRef) -> None:
    for clash in (kek, KeyRef(kek.label, os.urandom(16)), KeyRef("conformance/clash", kek.object_id)):
        with pytest.raises(KeyAmbiguous):
            backend.create_key(KeySpec(clash, KeyAlgorithm.AES_256))
    assert unwrapped(backend, kek, backend.wrap(kek, DEK, AAD)) == DEK


def test_label_and_id_must_both_match(backend: HsmBackend, kek: KeyRef) -> None:
    backend.wrap(kek, DEK, AAD)
    for near in (KeyRef(kek.label, os.urandom(16)), KeyRef("conformance/near", kek.object_id)):
        with pytest.raises(KeyNotFound):
            backend.wrap(near, DEK, AAD)
        with pytest.raises(KeyNotFound):
            backend.key_info(near)


def test_orphans_are_found(backend: HsmBackend, kek: KeyRef) -> None:
    orphan = children.fresh(backend, "orphan", KeyAlgorithm.AES_256)
    assert [info.ref for info in backend.orphans([kek], "conformance/")] == [orphan]
    with pytest.raises(ValueError, match="prefix"):
        backend.orphans([], "")


def test_a_worn_out_key_refuses_to_wrap_and_still_opens(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    if kek not in backend.usage():
        pytest.skip("this backend does not count")
    assert backend.usage()[kek] == 1
    backend.note_usage(kek, REFUSE_AT - 2)
    backend.wrap(kek, DEK, AAD)
    with pytest.raises(HsmPolicyViolation):
        backend.wrap(kek, DEK, AAD)
    assert unwrapped(backend, kek, blob) == DEK
