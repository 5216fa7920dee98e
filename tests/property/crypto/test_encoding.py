from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.encoding import Part, append, append_texts, encode

PARTS = st.lists(
    st.one_of(
        st.none(), st.integers(), st.text(st.characters(codec="utf-8"), max_size=6), st.binary(max_size=6)
    ),
    max_size=5,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def decode(data: bytes) -> list[Part]:
    """Reads back what `encode` wrote. That there is such a function at all is injectivity."""
    parts: list[Part] = []
    while data:
        kind, length = data[:1], int.from_bytes(data[1:5], "big")
        value, data = data[5 : 5 + length], data[5 + length :]
        assert len(value) == length
        match kind:
            case b"s":
                parts.append(value.decode())
            case b"i":
                parts.append(int(value))
            case b"b":
                parts.append(value)
            case _:
                assert (kind, value) == (b"n", b"")
                parts.append(None)
    return parts


def typed(domain: str, parts: list[Part]) -> list[tuple[type, Part]]:
    return [(type(part), part) for part in (domain, *parts)]


@given(TEXT, PARTS)
def test_what_was_encoded_can_be_read_back(domain, parts):
    read = decode(encode(domain, *parts))
    assert [(type(part), part) for part in read] == typed(domain, parts)


@given(TEXT, PARTS, TEXT, PARTS)
def test_different_inputs_encode_differently(domain, parts, other_domain, other_parts):
    same = typed(domain, parts) == typed(other_domain, other_parts)
    assert (encode(domain, *parts) == encode(other_domain, *other_parts)) is same


@given(TEXT, PARTS, PARTS)
def test_more_parts_only_ever_add_bytes(domain, parts, more):
    longer = encode(domain, *parts, *more)
    assert longer.startswith(encode(domain, *parts))
    assert (len(longer) == len(encode(domain, *parts))) is (not more)


@given(st.lists(st.one_of(TEXT, st.text(st.characters(codec="ascii"), min_size=120, max_size=136))), PARTS)
def test_the_quick_way_for_texts_is_the_same(texts, parts):
    assert append_texts(b"before", [*texts, *parts]) == append(b"before", *texts, *parts)
