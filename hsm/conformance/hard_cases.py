"""The suite on thieves, wrong secrets, forks, refusals that must cost nothing, and blobs of earlier versions."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: D103

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm import (
    HsmAuthFailed,
    HsmBackend,
    HsmError,
    HsmUnsupported,
    KeyAlgorithm,
    KeyRef,
    KeySpec,
    KeyState,
    SignatureAlgorithm,
    WrapScheme,
    open_backend,
)
from hsm.conformance import children
from hsm.conformance.support import AAD, DEK, refused, run_child, unwrapped

if TYPE_CHECKING:
    from hsm.conformance.around import Around

_GOLDEN = json.loads((Path(__file__).parent / "blobs.json").read_text())
_SCHEMES = {"gcm": WrapScheme.AES_GCM, "kwp": WrapScheme.AES_KWP, "transit": WrapScheme.TRANSIT}


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_cannot_be_stolen(backend: HsmBackend, around: Around, algorithm: KeyAlgorithm) -> None:
    try:
        ref = children.fresh(backend, "steal", algorithm)
    except HsmUnsupported:
        pytest.skip(f"no {algorithm} keys here")
    assert around.steal(ref) == []


def test_a_wrong_secret_is_tried_exactly_once(uri: str, around: Around, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-secret")
    wrong.chmod(0o400)
    changed = re.sub(r"((?:pin|token|secret-id|jwt)-source)=[^&]*", rf"\1=file:{wrong}", uri)
    if changed == uri:
        pytest.skip("the URI names no secret")
    with around.log_ins() as tried, pytest.raises(HsmAuthFailed) as caught:
        open_backend(changed)
    assert len(tried) == 1
    assert not caught.value.retry_safe
    assert "not-the-secret" not in str(caught.value)


def test_a_forked_child_is_refused_and_harms_nothing(uri: str) -> None:
    done = run_child("fork", uri)
    assert (done.returncode, done.stdout) == (0, "refused forked\n"), done.stderr[-2000:]


def test_no_place_in_the_pool_is_lost_to_a_refusal(uri: str) -> None:
    """With two sessions, the third that is not given back would leave none for the call after it."""
    with open_backend(uri, sessions=2, wait_seconds=1.0) as backend:
        kek = children.fresh(backend, "refusals", KeyAlgorithm.AES_256)
        retired = children.fresh(backend, "refusals", KeyAlgorithm.AES_256)
        blob = backend.wrap(kek, DEK, AAD)
        backend.set_key_state(retired, KeyState.DECRYPT_ONLY)
        missing = KeyRef("conformance/none", secrets.token_bytes(16))
        into = memoryview(bytearray(64))
        refusals: dict[str, Any] = {
            "another context": lambda: backend.unwrap(kek, blob, b"other", into),
            "a changed blob": lambda: backend.unwrap(kek, blob[:-1] + bytes([blob[-1] ^ 1]), AAD, into),
            "a blob of another kind": lambda: backend.unwrap(kek, b"\x01\x09" + blob[2:], AAD, into),
            "a short buffer": lambda: backend.unwrap(kek, blob, AAD, into[:16]),
            "no such key": lambda: backend.wrap(missing, DEK, AAD),
            "a retired key": lambda: backend.wrap(retired, DEK, AAD),
            "a key of another kind": lambda: backend.sign(kek, SignatureAlgorithm.ES256, b"m"),
            "a label that is taken": lambda: backend.create_key(KeySpec(kek, KeyAlgorithm.AES_256)),
            "destroying what is not there": lambda: backend.destroy_key(missing, confirm=missing.label),
        }
        for what, refuse in refusals.items():
            for _ in range(5):
                with pytest.raises((HsmError, ValueError)) as caught:
                    refuse()
                assert not getattr(caught.value, "retry_safe", False), what
                assert unwrapped(backend, kek, blob) == DEK, what
        for ref in (kek, retired):
            backend.destroy_key(ref, confirm=ref.label)


@pytest.mark.parametrize("vector", _GOLDEN, ids=lambda vector: vector["name"])
def test_blobs_of_earlier_versions_still_open(
    backend: HsmBackend, around: Around, vector: dict[str, str]
) -> None:
    scheme = _SCHEMES[vector["name"].partition("-")[0]]
    if backend.capabilities().wrap is not scheme:
        pytest.skip(f"{scheme} is not what this backend wraps by")
    ref = KeyRef("conformance/golden", bytes.fromhex(vector["object_id"]))
    around.plant(ref, bytes.fromhex(vector["key"]), scheme)
    blob, aad = bytes.fromhex(vector["blob"]), bytes.fromhex(vector["aad"])
    if vector["expect"] == "opens":
        assert unwrapped(backend, ref, blob, aad).hex() == vector["dek"]
    else:
        refused(backend, ref, blob, aad)
