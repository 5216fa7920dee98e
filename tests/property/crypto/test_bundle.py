from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from vault.crypto import bundle, memory, parcel
from vault.crypto.errors import FormatError

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)
FIELDS = st.dictionaries(NAMES, st.binary(max_size=200), max_size=64)


@given(FIELDS)
@settings(deadline=None)
def test_what_was_packed_comes_back(fields):
    with bundle.pack_into(fields, memory.allocate) as packed:
        assert bundle.field_names(packed.view) == tuple(sorted(fields))
        for name, value in fields.items():
            assert bundle.field_view(packed.view, name) == value


@given(FIELDS, st.randoms())
@settings(deadline=None)
def test_the_order_of_the_fields_makes_no_difference(fields, random):
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    with (
        bundle.pack_into(fields, memory.allocate) as one,
        bundle.pack_into(dict(shuffled), memory.allocate) as other,
    ):
        assert one.view == other.view


@given(FIELDS, st.data())
@settings(deadline=None)
def test_a_selection_is_the_bundle_of_the_selected(fields, data):
    names = data.draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    with bundle.pack_into(fields, memory.allocate) as packed, bundle.select(packed.view, names) as chosen:
        assert {
            name: bytes(bundle.field_view(chosen.view, name)) for name in bundle.field_names(chosen.view)
        } == {name: fields[name] for name in names}


@given(
    st.one_of(
        st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x01\0\x01\x01a\0\0\0" + tail)
    )
)
def test_any_bytes_are_a_bundle_that_packs_to_the_same_bytes_or_a_format_error(data):
    view = memoryview(data)
    with contextlib.suppress(FormatError):
        fields = {name: bundle.field_view(view, name) for name in bundle.field_names(view)}
        with bundle.pack_into(fields, memory.allocate) as packed:
            assert packed.view == data


@given(FIELDS, st.data())
@settings(deadline=None)
def test_one_changed_byte_is_another_bundle_or_a_format_error(fields, data):
    with bundle.pack_into(fields, memory.allocate) as packed:
        altered = bytearray(packed.view)
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    view = memoryview(altered)
    with contextlib.suppress(FormatError):
        read = {name: bytes(bundle.field_view(view, name)) for name in bundle.field_names(view)}
        assert read != fields


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_a_parcel_comes_apart_as_it_was_joined(bundles):
    with parcel.join([memoryview(each) for each in bundles]) as joined:
        assert parcel.split(joined.view) == bundles


@given(st.binary(max_size=60))
def test_any_bytes_are_a_parcel_that_joins_to_the_same_bytes_or_a_format_error(data):
    with contextlib.suppress(FormatError), parcel.join(parcel.split(memoryview(data))) as joined:
        assert joined.view == data
