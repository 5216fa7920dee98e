"""Answering the challenge by which a provider asks whether a webhook endpoint is ours.

Braintree: `PUBLIC_KEY|HEX`, made as its webhook signatures are; so only what has the form of a challenge is signed,
which no payload has (a payload is base64 of XML, of which 20 to 32 hex digits are never a whole one).
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from vault.core.uses.material import Done, unsuitable
from vault.core.uses.webhooks import braintree
from vault.crypto import kinds
from vault.errors import invalid_field

if TYPE_CHECKING:
    from vault.core.uses.material import Material, Surroundings

_CHALLENGE = re.compile(r"[a-f0-9]{20,32}")


@dataclasses.dataclass(frozen=True)
class AnswerChallenge:
    """Ask for the answer to a challenge of Braintree's."""

    field_name: str
    challenge: str


async def run(material: Material, request: AnswerChallenge, _surroundings: Surroundings) -> Done:
    """Answer a challenge."""
    if not _CHALLENGE.fullmatch(request.challenge):
        raise invalid_field("challenge", "must be 20 to 32 digits of lower-case hex")
    private_key = material.field(request.field_name, kinds.ANSWER_CHALLENGE)
    public_key = material.public_text(request.field_name.replace("private", "public"))
    if not public_key or "private" not in request.field_name:
        raise unsuitable("the credential has no public_key beside its private_key")
    answer = f"{public_key}|{braintree.mac(private_key, request.challenge.encode()).decode()}"
    return Done(answer, (request.field_name,))
