from __future__ import annotations

import enum

import pytest

from vault.crypto.encoding import append, append_texts, encode


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


def test_the_layout_is_frozen():
    assert encode("d", "é", b"\0", -12, None, "", 0) == (
        b"s\0\0\0\x01ds\0\0\0\x02\xc3\xa9b\0\0\0\x01\0i\0\0\0\x03-12n\0\0\0\0s\0\0\0\0i\0\0\0\x010"
    )


@pytest.mark.parametrize(
    "part",
    [True, 1.0, bytearray(b"x"), memoryview(b"x"), ("x",), ["x"], {}, object(), Colour.RED, Number.ONE],
)
def test_a_type_that_could_be_read_in_two_ways_is_refused(part):
    with pytest.raises(TypeError):
        encode("d", part)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a", ""), ("a",)),
        (("a", None), ("a",)),
        (("a", None), ("a", "")),
        (("a",), (b"a",)),
        ((1,), ("1",)),
        ((12,), (1, 2)),
        (("", "a"), ("a", "")),
        (("s\0\0\0\x01b",), ("", "b")),
    ],
)
def test_neighbours_never_encode_alike(one, other):
    assert encode("d", *one) != encode("d", *other)


def test_the_domain_is_a_part_that_is_always_there():
    assert encode("d", "e") != encode("de")
    assert encode("a") != encode("b")


def test_half_a_character_is_refused():
    with pytest.raises(ValueError, match="surrogates"):
        encode("d", "\ud800")


def test_an_encoding_can_be_continued():
    assert append(encode("d", "a"), b"b", None, 3) == encode("d", "a", b"b", None, 3)
    assert append(encode("d")) == encode("d")


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("",),
        ("a", "", "granted", "x" * 127),
        ("a", "x" * 128, "b"),
        ("a", "x" * 70_000),
        ("é", "a"),
        ("a", "\x7f", "\0"),
        ("a", "\x80"),
        ("a" * 127, "é" * 127),
        ("\u20ac" * 43,),
    ],
    ids=len,
)
def test_texts_encode_the_same_the_quick_way(texts):
    head = encode("d", 1)
    assert append_texts(head, texts) == append(head, *texts)


@pytest.mark.parametrize("part", [True, 1.0, bytearray(b"x"), ("x",), ["x"], {}, object()])
def test_the_quick_way_refuses_what_the_other_does(part):
    with pytest.raises(TypeError):
        append_texts(b"", ["a", part])


@pytest.mark.parametrize("size", [255, 256, 1023, 1024, 70_000])
def test_long_parts_say_their_length_too(size):
    head = size.to_bytes(4, "big")
    assert encode("d", "x" * size) == encode("d") + b"s" + head + b"x" * size
    assert encode("d", b"x" * size) == encode("d") + b"b" + head + b"x" * size
