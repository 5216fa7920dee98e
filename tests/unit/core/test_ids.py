"""Ids are typed on command lines."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from vault.core import requests

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}")


@given(st.binary(min_size=16, max_size=32))
def test_an_id_is_22_characters_and_never_looks_like_an_option(digest: bytes) -> None:
    assert _ID.fullmatch(requests.id_of(digest))


def test_no_id_comes_twice() -> None:
    made = {requests.new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(map(requests.token_id, made))
