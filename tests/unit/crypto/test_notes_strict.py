"""One checkpoint has one spelling: what other readers of C2SP notes would take differently is refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vault.crypto import notes
from vault.crypto.errors import FormatError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
VERIFIER = notes.verifier_key("example.com/log", SPKI)
ROOT = base64.b64encode(bytes(range(32))).decode()


def signed(body: str) -> str:
    return notes.sign_with(body, VERIFIER, KEY.sign(body.encode()))


def test_extension_lines_are_carried():
    head = notes.verify_checkpoint(signed(f"example.com/log\n7\n{ROOT}\nmore\nand more\n"), [VERIFIER])
    assert (head.origin, head.size, head.root) == ("example.com/log", 7, bytes(range(32)))


@pytest.mark.parametrize(
    "body",
    [
        f"\n7\n{ROOT}\n",
        "example.com/log\n7\n",
        f"example.com/log\n7\n{ROOT}\n\nmore\n",
        f"example.com/log\n\n7\n{ROOT}\n",
        f"example.com/log\n07\n{ROOT}\n",
        f"example.com/log\n+7\n{ROOT}\n",
        f"example.com/log\n-7\n{ROOT}\n",
        f"example.com/log\n7 \n{ROOT}\n",
        f"example.com/log\n\u0667\n{ROOT}\n",
        f"example.com/log\n7\n{ROOT[:-2]}9=\n",
        f"example.com/log\n7\n{ROOT[:-1]}\n",
        f"example.com/log\n7\n{ROOT} \n",
        f"example.com/log\n7\n{base64.b64encode(bytes(31)).decode()}\n",
    ],
    ids=[
        "no-origin",
        "no-root",
        "empty-extension",
        "empty-line",
        "leading-zero",
        "plus",
        "minus",
        "space",
        "other-digits",
        "other-base64-of-the-same-root",
        "unpadded",
        "space-behind-root",
        "short-root",
    ],
)
def test_a_signed_note_that_is_not_exactly_a_checkpoint_is_refused(body):
    with pytest.raises(FormatError):
        notes.verify_checkpoint(signed(body), [VERIFIER])
