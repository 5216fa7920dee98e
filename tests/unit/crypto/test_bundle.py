from __future__ import annotations

import tracemalloc

import pytest

from vault.crypto import bundle, memory
from vault.crypto.errors import BufferClosed, FormatError, LockedMemoryExhausted


def raw(*fields: tuple[bytes, bytes], count: int | None = None, version: int = 1) -> memoryview:
    """A bundle written by hand, however wrong."""
    body = b"".join(
        bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in fields
    )
    number = len(fields) if count is None else count
    return memoryview(bytes([version]) + number.to_bytes(2, "big") + body)


GOOD = raw((b"api_key", b"sk_1"), (b"b", b""), (b"webhook_secret", b"\0\xff"))


def test_the_layout_is_frozen():
    with bundle.pack_into(
        {"b": b"", "webhook_secret": b"\0\xff", "api_key": b"sk_1"}, memory.allocate
    ) as packed:
        assert packed.view == GOOD


def test_fields_come_back_sorted_and_whole():
    assert bundle.field_names(GOOD) == ("api_key", "b", "webhook_secret")
    assert bundle.field_view(GOOD, "api_key") == b"sk_1"
    assert bundle.field_view(GOOD, "b") == b""
    assert bundle.field_view(GOOD, "webhook_secret") == b"\0\xff"


def test_a_bundle_may_be_empty():
    with bundle.pack_into({}, memory.allocate) as packed:
        assert bundle.field_names(packed.view) == ()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_values_may_be_any_bytes(kind):
    with bundle.pack_into({"a": kind(b"value")}, memory.allocate) as packed:
        assert bundle.field_view(packed.view, "a") == b"value"


class TestNoCopies:
    def test_a_field_is_a_view_of_the_bundle_itself(self):
        with bundle.pack_into({"a": b"before"}, memory.allocate) as packed:
            field = bundle.field_view(packed.view, "a")
            assert type(field) is memoryview
            field[:] = b"after!"
            assert bytes(packed.view).endswith(b"after!")

    def test_no_object_of_a_values_size_is_made(self):
        value = memoryview(bytearray(60_000))
        memory.allocate(bundle.MAX_BYTES).close()
        tracemalloc.start()
        try:
            with bundle.pack_into({"a": value}, memory.allocate) as packed:
                bundle.field_names(packed.view)
                bundle.field_view(packed.view, "a")
                with bundle.select(packed.view, ["a"]):
                    pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 30_000

    def test_a_field_shows_zeros_once_the_bundle_is_wiped(self):
        packed = bundle.pack_into({"a": b"secret"}, memory.allocate)
        field = bundle.field_view(packed.view, "a")
        packed.close()
        assert bytes(field) == bytes(6)

    def test_a_field_of_a_wiped_bundle_never_shows_what_comes_after(self):
        packed = bundle.pack_into({"a": b"secret"}, memory.allocate)
        field = bundle.field_view(packed.view, "a")
        packed.close()
        later = [bundle.pack_into({"a": b"other!"}, memory.allocate) for _ in range(50)]
        assert bytes(field) == bytes(6)
        for each in later:
            each.close()


class TestSelect:
    def test_some_of_the_fields(self):
        with bundle.select(GOOD, ["webhook_secret", "api_key"]) as chosen:
            assert bundle.field_names(chosen.view) == ("api_key", "webhook_secret")
            assert bundle.field_view(chosen.view, "webhook_secret") == b"\0\xff"

    def test_it_outlives_what_it_was_taken_from(self):
        packed = bundle.pack_into({"a": b"1", "b": b"2"}, memory.allocate)
        with bundle.select(packed.view, ["b"]) as chosen:
            packed.close()
            assert bundle.field_view(chosen.view, "b") == b"2"

    @pytest.mark.parametrize("names", [["nope"], ["api_key", "nope"], [""], ["API_KEY"], ["api_ke"]])
    def test_a_field_that_is_not_there(self, names):
        with pytest.raises(bundle.UnknownField) as caught:
            bundle.select(GOOD, names)
        assert "nope" not in str(caught.value)

    def test_field_view_of_a_field_that_is_not_there(self):
        with pytest.raises(bundle.UnknownField):
            bundle.field_view(GOOD, "nope")


class TestPacking:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "A",
            "aB",
            "1a",
            "_a",
            "a-b",
            "a.b",
            "a b",
            "a" * 64,
            "ä",
            "a\n",
            "\na",
            "a\0",
            "\uff41",
            "a\u0301",
            "\ud800",
            "*",
        ],
    )
    def test_bad_names(self, name):
        with pytest.raises(FormatError):
            bundle.pack_into({name: b"x"}, memory.allocate)

    @pytest.mark.parametrize("name", ["a", "a1_", "a" * 63, "a_b_c9"])
    def test_good_names(self, name):
        with bundle.pack_into({name: b"x"}, memory.allocate) as packed:
            assert bundle.field_names(packed.view) == (name,)

    def test_64_fields_and_not_65(self):
        names = [f"f{number:02}" for number in range(65)]
        with bundle.pack_into(dict.fromkeys(names[:64], b""), memory.allocate) as packed:
            assert bundle.field_names(packed.view) == tuple(names[:64])
        with pytest.raises(FormatError):
            bundle.pack_into(dict.fromkeys(names, b""), memory.allocate)

    def test_64_kib_and_not_one_byte_more(self):
        room = bundle.MAX_BYTES - 3 - 1 - 1 - 4
        with bundle.pack_into({"a": bytes(room)}, memory.allocate) as packed:
            assert len(packed) == bundle.MAX_BYTES
            assert len(bundle.field_view(packed.view, "a")) == room
        with pytest.raises(FormatError):
            bundle.pack_into({"a": bytes(room + 1)}, memory.allocate)

    def test_nothing_is_allocated_for_what_is_refused(self):
        def refuse(_size: int) -> memory.LockedBuffer:
            raise AssertionError("allocated")

        for fields in ({"A": b""}, {"a": bytes(bundle.MAX_BYTES)}, {f"f{n}": b"" for n in range(65)}):
            with pytest.raises(FormatError):
                bundle.pack_into(fields, refuse)

    def test_exhausted_memory_is_passed_on(self):
        with pytest.raises(LockedMemoryExhausted):
            bundle.pack_into({"a": b"x"}, memory.LockedArena(0).allocate)


class TestParsing:
    def test_cut_at_every_byte(self):
        for length in range(len(GOOD)):
            with pytest.raises(FormatError):
                bundle.field_names(GOOD[:length])

    @pytest.mark.parametrize("extra", [b"\0", b"\x01a\0\0\0\0", bytes(100)])
    def test_bytes_too_many(self, extra):
        with pytest.raises(FormatError):
            bundle.field_names(memoryview(bytes(GOOD) + extra))

    @pytest.mark.parametrize(
        "data",
        [
            raw((b"a", b"1"), (b"a", b"2")),
            raw((b"b", b""), (b"a", b"")),
            raw((b"a", b""), (b"c", b""), (b"b", b"")),
            raw((b"a", b""), version=0),
            raw((b"a", b""), version=2),
            raw((b"a", b""), count=0),
            raw((b"a", b""), count=2),
            raw((b"a", b""), count=65_535),
            raw(*((b"f%02d" % n, b"") for n in range(65))),
            raw((b"a", bytes(bundle.MAX_BYTES))),
            memoryview(b""),
            memoryview(b"\x01"),
            memoryview(b"\x01\0"),
            memoryview(b"\x01\0\x01\x01a\xff\xff\xff\xff"),
            memoryview(b"\x01\0\x01\x01a\0\0\0\x02x"),
            memoryview(b"\x01\0\x01\xffa"),
        ],
    )
    def test_what_is_not_a_bundle(self, data):
        for use in (
            bundle.field_names,
            lambda view: bundle.field_view(view, "a"),
            lambda view: bundle.select(view, ["a"]),
        ):
            with pytest.raises(FormatError):
                use(data)

    @pytest.mark.parametrize(
        "name",
        [b"", b"A", b"1", b"_a", b"a-b", b"a" * 64, b"a\n", b"a\0", b"\xc3\xa4", b"\xe4", b"\xff", b"a b"],
    )
    def test_bad_names(self, name):
        with pytest.raises(FormatError):
            bundle.field_names(raw((name, b"x")))

    def test_a_wiped_bundle_cannot_be_read(self):
        packed = bundle.pack_into({"a": b"1"}, memory.allocate)
        packed.close()
        with pytest.raises(BufferClosed):
            bundle.field_names(packed.view)
