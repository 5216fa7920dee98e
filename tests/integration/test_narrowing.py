"""A token narrowed without the vault is good for what is left of it; its holder gets nothing of the other back."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.test_token_lineage import (
    EXCHANGE,
    GET,
    INTROSPECT,
    ISSUE,
    NAME,
    OPEN,
    READ,
    REVOKE,
    books,
    reveal,
    thumbprint,
    wire,
    works,
)
from tests.integration.wire import Books, Wire
from vault.client import narrow_token
from vault.crypto import narrowing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.vault import VaultSite

__all__ = ["books", "wire"]

ONE = f"credential.read:{NAME}"
DELEGATE = "token.delegate:acme/tokens"


def issue(wire: Wire, *scopes: str, **fields: Any) -> Any:
    scopes = scopes or (READ, OPEN)
    answer = wire.call(ISSUE, tenant="acme", scopes=scopes, narrowable=True, **fields)
    assert answer.ok, answer
    return answer.response


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forge(before: str, seed: bytes, said: dict[str, Any] | bytes, **more: Any) -> str:
    """A block that says anything, signed by a seed, as no honest client would make it."""
    new = narrowing.new_seed()
    if isinstance(said, dict):
        said = {"exp": int(time.time()) + 60, "key": narrowing.public_key(new), "scope": ONE, **said, **more}
        said = json.dumps(
            {k: v for k, v in said.items() if v is not ...}, sort_keys=True, separators=(",", ":")
        ).encode()
    signed = f"{before}~{b64(said)}"
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(b"strongroom-narrow-1\0" + signed.encode())
    return f"{signed}.{b64(signature)}~{b64(new)}"


def parts(text: str) -> tuple[str, bytes]:
    """A text without its seed, and the seed."""
    before, _, seed = text.rpartition("~")
    return before, unb64(seed)


# Good for what is left.


def test_a_narrowed_token_does_what_is_left_and_no_more(wire: Wire, books: Books) -> None:
    issued = issue(wire)
    assert works(wire, issued.token) == "OK"
    narrowed = narrow_token(issued.token, [ONE], ttl_seconds=30)
    answer = wire.call(GET, bearer=narrowed, name=NAME)
    assert answer.ok
    assert wire.call(GET, bearer=narrowed, name="acme/lineage/other").reason == "SCOPE_DENIED"
    assert reveal(wire, narrowed).reason == "SCOPE_DENIED"
    (record,) = books.records(answer.request_id)
    assert record["token_id"] == issued.token_id, "the log knows it by the token that the vault issued"
    said = wire.call(INTROSPECT, token=narrowed).response
    assert (said.active, said.parent_id, list(said.scopes)) == (True, issued.token_id, [ONE])
    assert said.expire_time.seconds <= time.time() + 30


def test_what_was_narrowed_can_be_narrowed_and_exchanged(wire: Wire) -> None:
    twice = narrow_token(narrow_token(issue(wire).token, [READ]), [ONE])
    assert works(wire, twice) == "OK"
    assert wire.call(EXCHANGE, bearer=twice, scopes=[READ]).reason == "SCOPE_DENIED"
    exchanged = wire.call(EXCHANGE, bearer=twice, scopes=[ONE])
    assert exchanged.ok
    assert works(wire, exchanged.response.token) == "OK"


def test_it_ends_when_it_says(wire: Wire) -> None:
    narrowed = narrow_token(issue(wire).token, [ONE], ttl_seconds=1)
    time.sleep(1.2)
    assert works(wire, narrowed) == "TOKEN_EXPIRED"


def test_it_dies_with_the_token_and_alone(wire: Wire) -> None:
    issued = issue(wire)
    one, other = narrow_token(issued.token, [READ]), narrow_token(issued.token, [READ])
    below = narrow_token(one, [ONE])
    own = wire.call(INTROSPECT, token=one).response.token_id
    assert wire.call(REVOKE, bearer=one, token_id=own).ok, "its own id"
    assert [works(wire, text) for text in (one, below, other, issued.token)] == ["TOKEN_REVOKED"] * 2 + [
        "OK"
    ] * 2
    assert wire.call(REVOKE, bearer=other, token_id=issued.token_id).reason == "SCOPE_DENIED"
    assert wire.call(REVOKE, token_id=issued.token_id).ok
    assert works(wire, other) == "TOKEN_REVOKED"


def test_its_sessions_are_counted(wire: Wire) -> None:
    issued = issue(wire, max_sessions=2)
    one = narrow_token(issued.token, [OPEN], max_sessions=1)
    other = narrow_token(issued.token, [OPEN])
    reasons = [reveal(wire, text).reason for text in (one, one, other, other)]
    assert reasons == ["", "TOKEN_USED_UP", "", "TOKEN_USED_UP"]


def test_it_is_for_another_certificate_only_if_the_token_may_be_delegated(
    site: VaultSite, wire: Wire
) -> None:
    ledger = thumbprint(site, "ledger")
    with Wire(site.profile("ledger")) as other:
        plain = narrow_token(issue(wire).token, [ONE], certificate_thumbprint=ledger)
        assert works(other, plain) == "TOKEN_INVALID"
        issued = issue(wire, READ, DELEGATE)
        handed = narrow_token(issued.token, [ONE], certificate_thumbprint=ledger)
        assert works(other, handed) == "OK"
        assert works(wire, handed) == "TOKEN_CERTIFICATE_MISMATCH"
        back = narrow_token(handed, [ONE], certificate_thumbprint=thumbprint(site, "payments"))
        assert works(wire, back) == "TOKEN_INVALID", "what it was handed cannot be handed on"


# Nothing of the other comes back.


def test_a_thief_of_the_narrowed_gets_nothing_of_the_token_it_was_made_from(wire: Wire) -> None:
    issued = issue(wire)
    narrowed = narrow_token(issued.token, [ONE])
    jwt, block, seed = narrowed.split("~")
    own_seed = narrowing.new_seed()
    tries = {
        "the token alone": jwt,
        "the token and an empty seed": f"{jwt}~",
        "the token and the seed of the block": f"{jwt}~{seed}",
        "the token and a seed of his own": narrowing.with_seed(jwt, own_seed),
        "a block of his own": forge(jwt, own_seed, {"scope": READ}),
        "a block signed by the last seed": forge(jwt, unb64(seed), {"scope": READ}),
        "a wider block behind": forge(f"{jwt}~{block}", unb64(seed), {"scope": READ}),
        "a longer life behind": forge(f"{jwt}~{block}", unb64(seed), {"exp": int(time.time()) + 7200}),
        "the block without a seed": f"{jwt}~{block}",
        "the block twice": f"{jwt}~{block}~{block}~{seed}",
        "the seed in the place of the block": f"{jwt}~{seed}~{seed}",
        "two seeds": f"{narrowed}~{seed}",
    }
    for what, text in tries.items():
        assert works(wire, text) == "TOKEN_INVALID", what
        assert reveal(wire, text).reason == "TOKEN_INVALID", what
    assert works(wire, narrowed) == "OK"


def test_blocks_are_not_moved_to_another_token(wire: Wire) -> None:
    one, other = issue(wire).token, issue(wire).token
    narrowed = narrow_token(one, [ONE])
    jwt = other.partition("~")[0]
    assert works(wire, f"{jwt}~{narrowed.partition('~')[2]}") == "TOKEN_INVALID"
    plain = wire.issue(READ).token
    assert works(wire, f"{plain}~{narrowed.partition('~')[2]}") == "TOKEN_INVALID"
    assert works(wire, narrowing.with_seed(plain, narrowing.new_seed())) == "TOKEN_INVALID"


SAYS: dict[str, Any] = {
    "a scope that is wider": {"scope": "credential.read:acme/*"},
    "a scope of another action": {"scope": f"credential.write:{NAME}"},
    "one scope more": {"scope": f"{ONE} key.read:acme/keys"},
    "a scope of another tenant": {"scope": "credential.read:globex/a"},
    "no scope": {"scope": ""},
    "33 scopes": {"scope": " ".join(f"credential.read:acme/lineage/n{n}" for n in range(33))},
    "one scope twice": {"scope": f"{ONE} {ONE}"},
    "two spaces": {"scope": f"{ONE}  {OPEN}"},
    "a longer life": {"exp": 2**33},
    "an end that is no time": {"exp": 2**63},
    "an end of no calendar": {"exp": 10**17},
    "an end that is text": {"exp": "1"},
    "an end that is true": {"exp": True},
    "an end with a fraction": {"exp": 1.5},
    "no end": {"exp": ...},
    "no key": {"key": ...},
    "a key that is none": {"key": "x"},
    "a key in no ASCII": {"key": "\u00e9" * 43},
    "a key of no character": {"key": "\ud800" * 43},
    "a key of nobody": {"key": b64(b"\x01" + b"\0" * 31)},
    "no scope at all": {"scope": ...},
    "one thing more": {"admin": True},
    "sessions below zero": {"max_sessions": -1},
    "no sessions": {"max_sessions": 0},
    "too many sessions": {"max_sessions": 10**9},
    "sessions as text": {"max_sessions": "5"},
    "an empty thumbprint": {"x5t#S256": ""},
    "a malformed thumbprint": {"x5t#S256": "A" * 42},
    "no object": b"[]",
    "no JSON": b"{",
    "nothing": b"",
    "deeper than anything": b"[" * 1500,
    "spaces": b'{"exp": 1, "key": "x", "scope": "y"}',
}


@pytest.mark.parametrize("said", SAYS.values(), ids=SAYS.keys())
def test_a_block_that_says_anything_else_makes_no_token(wire: Wire, said: Any) -> None:
    before, seed = parts(issue(wire, "credential.read:acme/lineage/*", OPEN, DELEGATE).token)
    assert works(wire, forge(before, seed, {})) == "OK", "the oracle"
    text = forge(before, seed, said)
    assert works(wire, text) == "TOKEN_INVALID"


FLIPS: dict[str, Callable[[str], list[str]]] = {
    "one character": lambda text: [
        text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        for place in range(text.index("~"), len(text), 11)
    ],
    "padding": lambda text: [text + "=", text.replace("~", "=~", 1)],
    "another spelling of the last bits": lambda text: [text[:-1] + chr(ord(text[-1]) + 1)],
    "cut short": lambda text: [text[:end] for end in range(text.index("~") + 1, len(text), 17)],
    "a tilde more": lambda text: [text + "~", text.replace("~", "~~", 1), "~" + text],
    "a dot more": lambda text: [text.replace("~", "~.", 1), text.replace("~", ".~", 1)],
}


@pytest.mark.parametrize("flip", FLIPS.values(), ids=FLIPS.keys())
def test_what_was_altered_is_no_token(wire: Wire, flip: Callable[[str], list[str]]) -> None:
    text = narrow_token(issue(wire).token, [ONE])
    altered = [one for one in flip(text) if one != text]
    assert altered
    for one in altered:
        assert works(wire, one) == "TOKEN_INVALID", one[len(one) - 60 :]


def test_eight_blocks_are_taken_and_no_more(wire: Wire) -> None:
    text = issue(wire, ONE).token
    for _ in range(8):
        text = narrow_token(text, [ONE])
    assert works(wire, text) == "OK"
    assert works(wire, narrow_token(text, [ONE])) == "TOKEN_INVALID"


def test_the_client_says_what_cannot_be(wire: Wire) -> None:
    issued = issue(wire, ONE).token
    for text, scopes, more in (
        (wire.issue(READ).token, [ONE], {}), (issued, [READ], {}), (issued, [], {}), (issued, ["x"], {}),
        (issued, [ONE], {"ttl_seconds": 86_400}), (issued, [ONE], {"ttl_seconds": 0}), ("x", [ONE], {}),
        ("x~y", [ONE], {}),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            narrow_token(text, scopes, **more)
