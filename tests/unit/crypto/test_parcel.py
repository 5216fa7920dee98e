from __future__ import annotations

import pytest

from vault.crypto import memory, parcel
from vault.crypto.errors import BufferClosed, FormatError


def test_the_layout_is_frozen():
    with parcel.join([memoryview(b"ab"), memoryview(b""), memoryview(b"c")]) as joined:
        assert joined.view == b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c"


def test_nothing_is_an_empty_parcel():
    with parcel.join([]) as joined:
        assert len(joined) == 0
        assert parcel.split(joined.view) == []


def test_what_is_split_off_is_a_view():
    with parcel.join([memoryview(b"ab"), memoryview(b"c")]) as joined:
        first, second = parcel.split(joined.view)
        first[:] = b"xy"
        assert joined.view == b"\0\0\0\x02xy\0\0\0\x01c"
        assert second == b"c"


def test_a_cut_is_noticed_wherever_it_is_not_between_two_bundles():
    with parcel.join([memoryview(b"ab"), memoryview(b""), memoryview(b"cde")]) as joined:
        whole = bytes(joined.view)
    for length in range(len(whole)):
        if length in {0, 6, 10}:
            assert len(parcel.split(memoryview(whole[:length]))) == {0: 0, 6: 1, 10: 2}[length]
        else:
            with pytest.raises(FormatError):
                parcel.split(memoryview(whole[:length]))


@pytest.mark.parametrize(
    "data", [b"\0", b"\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xff", b"\0\0\0\0\0", b"\0\0\0\x02a"]
)
def test_what_is_not_a_parcel(data):
    with pytest.raises(FormatError):
        parcel.split(memoryview(data))


def test_a_wiped_bundle_cannot_be_joined():
    buffer = memory.allocate(3)
    buffer.close()
    with pytest.raises(BufferClosed):
        parcel.join([buffer.view])


def test_what_is_put_in_its_room_is_a_parcel():
    bundles = [b"ab", b"", b"cde"]
    empty, places = parcel.room([len(bundle) for bundle in bundles])
    with empty:
        assert [bytes(place) for place in places] == [bytes(2), b"", bytes(3)]
        for place, bundle in zip(places, bundles, strict=True):
            place[:] = bundle
        with parcel.join([memoryview(bundle) for bundle in bundles]) as joined:
            assert empty.view == joined.view
