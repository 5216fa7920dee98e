"""A batch that crosses to the process of the HSM's library and back."""

from __future__ import annotations

import json

import pytest

from hsm.errors import HsmIntegrityError
from hsm.isolation import batches
from hsm.model import KeyRef, RewrapItem, WrappedKey

OLD, NEW = KeyRef("acme/kek/1", b"\1" * 16), KeyRef("acme/kek/2", b"\2" * 16)
OUTSIDE = WrappedKey(OLD, KeyRef("root", b"\3" * 16), b"wrapped")


def test_every_item_comes_back_with_its_own_keys_blob_and_contexts() -> None:
    items = [
        RewrapItem(OLD, b"one", b"old 1", NEW, b"new 1"),
        RewrapItem(OUTSIDE, b"the second", b"old 22", NEW, b"new 2"),
        RewrapItem(OLD, b"", b"o", OLD, b"n"),
    ]
    columns = batches.pack(items)
    assert columns[0] == [OLD, NEW, OUTSIDE]
    assert batches.unpack(columns) == items
    assert batches.unpack(batches.pack([])) == []


def test_an_error_comes_back_in_the_place_of_its_item() -> None:
    error = HsmIntegrityError("rewrap", "does not verify")
    column = batches.pack_answers([b"a", error, b"", b"ccc"])
    assert batches.unpack_answers(column, 4) == [b"a", error, b"", b"ccc"]


@pytest.mark.parametrize(
    "column",
    [
        "[[1], 1]",
        "[[2, 1], 2]",
        "[[3, 0], 2]",
        "[[-1, 3], 2]",
        "[[1, 1], 3]",
        '[["1", 1], 2]',
        "[[[1], 1], 2]",
    ],
)
def test_an_answer_that_does_not_fit_the_question_is_refused(column: str) -> None:
    sizes, length = json.loads(column)
    with pytest.raises((TypeError, ValueError)):
        batches.unpack_answers([sizes, bytes(length)], 2)
