"""What each message is bound to, written out: clients in other languages rely on these bytes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from vault.crypto import contexts
from vault.crypto.encoding import encode


@dataclass(frozen=True)
class Opened:
    name: str
    version: int
    field_names: tuple[str, ...]


ONE = Opened("acme/a", 1, ("x", "y"))
OTHER = Opened("acme/b", 2, ("z",))


def test_the_contexts_are_frozen():
    assert contexts.put_info("acme/a", "generic", "key-1") == encode(
        "strongroom/put/v1", "acme/a", "generic", "key-1"
    )
    assert contexts.session_key_info("s") == encode("strongroom/session-key/v1", "s")
    assert contexts.stream_reveal_aad("s", ONE) == encode(
        "strongroom/stream-reveal/v1", "s", "acme/a", 1, 2, "x", "y"
    )
    assert contexts.reveal_info("s", [ONE, OTHER]) == encode(
        "strongroom/reveal/v1", "s", 2, "acme/a", 1, 2, "x", "y", "acme/b", 2, 1, "z"
    )


def test_no_two_messages_have_one_context():
    opened = [
        ONE,
        OTHER,
        Opened("acme/a", 2, ("x", "y")),
        Opened("acme/a", 1, ("x",)),
        Opened("acme/a", 1, ("y", "x")),
        Opened("acme/a", 1, ("xy",)),
        Opened("acme/a", 1, ()),
    ]
    found = [
        contexts.put_info("acme/a", "generic", "key-1"),
        contexts.put_info("acme/a", "key-1", "generic"),
        contexts.put_info("acme/b", "generic", "key-1"),
        contexts.put_info("acme/a", "generic", "key-2"),
        *(contexts.session_key_info(session) for session in ("s", "t", "")),
        *(contexts.stream_reveal_aad(session, each) for session in ("s", "t") for each in opened),
        *(
            contexts.reveal_info(session, each)
            for session in ("s", "t")
            for size in range(3)
            for each in itertools.permutations(opened, size)
        ),
    ]
    assert len(set(found)) == len(found)
