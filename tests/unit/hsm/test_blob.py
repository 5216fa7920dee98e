from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm import blob as blobs
from hsm import conformance
from hsm.errors import HsmIntegrityError

VECTORS = json.loads((Path(conformance.__file__).parent / "blobs.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_frozen_blobs_parse(vector):
    raw = bytes.fromhex(vector["blob"])
    wrapped = blobs.parse(raw)
    assert wrapped.dek_size == (31 if vector["name"] == "kwp-other-size" else len(vector["dek"]) // 2)
    size = bytes((wrapped.dek_size,)) if wrapped.scheme == blobs.KWP else b""
    assert blobs.header(wrapped.scheme) + size + wrapped.iv + wrapped.body == raw


@given(st.binary(max_size=200))
def test_whatever_comes_it_is_parsed_or_an_integrity_error(data):
    try:
        wrapped = blobs.parse(data)
    except HsmIntegrityError:
        return
    assert data[0] == blobs.FORMAT
    assert blobs.MIN_DEK <= wrapped.dek_size <= blobs.MAX_DEK


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"\x01\x01", b"\x02\x01" + bytes(60), b"\x01\x09" + bytes(60), b"\x01\x01" + bytes(43)],
)
def test_what_wrap_cannot_have_made_is_refused(data):
    with pytest.raises(HsmIntegrityError):
        blobs.parse(data)


def test_schemes_are_bound():
    assert len({blobs.bind(scheme, b"a") for scheme in blobs.IV_SIZES}) == 2
    assert blobs.kwp_digest(32, b"a") != blobs.kwp_digest(31, b"a")
