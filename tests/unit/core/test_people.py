"""Which identities are people's: whole segments, whole labels, and nothing that only begins or ends alike."""

from __future__ import annotations

import pytest

from vault.core.people import matcher

ALICE = "spiffe://bank.example/people/alice"


@pytest.mark.parametrize(
    ("pattern", "people", "others"),
    [
        (
            "spiffe://bank.example/people/*",
            [ALICE],
            [
                "spiffe://bank.example/payments",
                f"{ALICE}/phone",
                "spiffe://bank.example/people/",
                f"x{ALICE}",
            ],
        ),
        ("spiffe://bank.example/*/alice", [ALICE, "spiffe://bank.example/x/alice"], [f"{ALICE}s"]),
        (ALICE, [ALICE], [f"{ALICE}s", ALICE.replace(".", "x"), f"{ALICE}\n"]),
        (
            "*.people.example",
            ["a.people.example"],
            ["people.example", "a.b.people.example", "a.people.examples"],
        ),
    ],
)
def test_a_star_is_one_whole_segment_or_label(pattern: str, people: list[str], others: list[str]) -> None:
    found = matcher([pattern, "nobody.example"])
    assert all(map(found.fullmatch, people))
    assert not any(map(found.fullmatch, others))
