"""The suite on KEKs that lie outside of the HSM, wrapped under a root key."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: D103

from __future__ import annotations

import secrets
import threading

import pytest

from hsm import (
    HsmBackend,
    HsmError,
    HsmIntegrityError,
    HsmUnsupported,
    KeyAlgorithm,
    KeyNotFound,
    KeyNotPermitted,
    KeyRef,
    KeyState,
    WrappedKey,
    open_backend,
)
from hsm.conformance import children
from hsm.conformance.support import AAD, DEK, refused, unwrapped

_CACHED = 4


def _named(name: str = "wrapped") -> KeyRef:
    return KeyRef(f"conformance/{name}", secrets.token_bytes(16))


@pytest.fixture
def root(backend: HsmBackend) -> KeyRef:
    """A new root key."""
    if not backend.capabilities().wrapped_keys:
        pytest.skip("no wrapped keys here")
    return children.fresh(backend, "root", KeyAlgorithm.AES_256_ROOT)


def test_where_keys_cannot_lie_outside_it_says_so(backend: HsmBackend, kek: KeyRef) -> None:
    if backend.capabilities().wrapped_keys:
        pytest.skip("they can here")
    with pytest.raises(HsmUnsupported):
        backend.create_wrapped_key(kek, _named())
    with pytest.raises(HsmUnsupported):
        backend.wrap(WrappedKey(_named(), kek, b"x"), DEK, AAD)


def test_a_wrapped_key_is_used_like_any_other_and_leaves_nothing_behind(
    backend: HsmBackend, root: KeyRef
) -> None:
    before = backend.list_keys("conformance/")
    key, other = (backend.create_wrapped_key(root, _named(name)) for name in ("a", "b"))
    blob = backend.wrap(key, DEK, AAD)
    assert unwrapped(backend, key, blob) == DEK
    refused(backend, key, blob, b"another context")
    refused(backend, other, blob)
    moved = backend.rewrap(key, blob, AAD, other, b"new")
    assert unwrapped(backend, other, moved, b"new") == DEK
    assert backend.list_keys("conformance/") == before


def test_another_process_opens_it_too(backend: HsmBackend, root: KeyRef, uri: str) -> None:
    key = backend.create_wrapped_key(root, _named())
    blob = backend.wrap(key, DEK, AAD)
    with open_backend(uri, sessions=2) as second:
        assert unwrapped(second, key, blob) == DEK


def test_a_root_key_wraps_no_data_keys(backend: HsmBackend, root: KeyRef) -> None:
    assert backend.key_info(root).algorithm in (KeyAlgorithm.AES_256_ROOT, KeyAlgorithm.AES_256)
    if backend.key_info(root).algorithm is KeyAlgorithm.AES_256:
        pytest.skip("KEKs and roots are alike here")
    with pytest.raises(HsmError):
        backend.wrap(root, DEK, AAD)


def test_a_wrapped_key_given_to_another_name_is_refused(backend: HsmBackend, root: KeyRef) -> None:
    key = backend.create_wrapped_key(root, _named())
    blob = backend.wrap(key, DEK, AAD)
    for thief in (_named(), KeyRef("conformance/thief", key.ref.object_id), KeyRef(key.ref.label, bytes(16))):
        refused(backend, WrappedKey(thief, root, key.blob), blob)
        with pytest.raises(HsmIntegrityError):
            backend.wrap(WrappedKey(thief, root, key.blob), DEK, AAD)


def test_a_changed_byte_anywhere_in_a_wrapped_key_is_found(backend: HsmBackend, root: KeyRef) -> None:
    key = backend.create_wrapped_key(root, _named())
    for place in range(len(key.blob)):
        changed = bytearray(key.blob)
        changed[place] ^= 1
        with pytest.raises((HsmIntegrityError, HsmUnsupported)):
            backend.wrap(WrappedKey(key.ref, root, bytes(changed)), DEK, AAD)
    for cut in (b"", key.blob[:5], key.blob[:-8], key.blob + bytes(8)):
        with pytest.raises(HsmIntegrityError):
            backend.wrap(WrappedKey(key.ref, root, cut), DEK, AAD)
    assert unwrapped(backend, key, backend.wrap(key, DEK, AAD)) == DEK


def test_a_new_root_takes_the_keys_of_the_old(backend: HsmBackend, root: KeyRef) -> None:
    new = children.fresh(backend, "root2", KeyAlgorithm.AES_256_ROOT)
    key = backend.create_wrapped_key(root, _named())
    blob = backend.wrap(key, DEK, AAD)
    moved = backend.rewrap_key(key, new)
    assert moved.root == new
    assert unwrapped(backend, moved, blob) == DEK
    assert unwrapped(backend, key, blob) == DEK
    with pytest.raises(HsmIntegrityError):
        backend.wrap(WrappedKey(key.ref, new, key.blob), DEK, AAD)
    backend.destroy_key(root, confirm=root.label)
    assert unwrapped(backend, moved, blob) == DEK
    with pytest.raises(KeyNotFound):
        backend.rewrap_key(key, new)


def test_a_retired_root_makes_no_new_keys_and_opens_the_old(backend: HsmBackend, root: KeyRef) -> None:
    key = backend.create_wrapped_key(root, _named())
    backend.set_key_state(root, KeyState.DECRYPT_ONLY)
    assert backend.key_info(root).state is KeyState.DECRYPT_ONLY
    with pytest.raises(KeyNotPermitted):
        backend.create_wrapped_key(root, _named())
    assert unwrapped(backend, key, backend.wrap(key, DEK, AAD)) == DEK
    if backend.key_info(root).algorithm is KeyAlgorithm.AES_256_ROOT:
        with pytest.raises(HsmUnsupported):
            backend.set_key_state(root, KeyState.DISABLED)


def test_a_root_that_is_not_there_is_said_to_be_missing(backend: HsmBackend, root: KeyRef) -> None:
    key = backend.create_wrapped_key(root, _named())
    nowhere = _named("nowhere")
    with pytest.raises(KeyNotFound):
        backend.create_wrapped_key(nowhere, _named())
    with pytest.raises(KeyNotFound):
        backend.wrap(WrappedKey(key.ref, nowhere, key.blob), DEK, AAD)


def test_more_keys_than_are_held_at_once_by_several_threads(
    uri: str, backend: HsmBackend, root: KeyRef
) -> None:
    keys = [backend.create_wrapped_key(root, _named(f"many/{number}")) for number in range(5 * _CACHED)]
    blobs = [backend.wrap(key, bytes((number,)) * 32, AAD) for number, key in enumerate(keys)]
    faults: list[str] = []
    with open_backend(uri, sessions=4, wait_seconds=60, cached_keys=_CACHED) as small:

        def use(start: int) -> None:
            for turn in range(100):
                number = (start * 7 + turn * 3) % len(keys)
                try:
                    if unwrapped(small, keys[number], blobs[number]) != bytes((number,)) * 32:
                        faults.append("a wrong key came back")
                except HsmError as error:
                    faults.append(str(error))

        crew = [threading.Thread(target=use, args=(start,)) for start in range(8)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    assert not faults
