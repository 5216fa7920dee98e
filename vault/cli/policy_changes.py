"""What would change if a policy were put in force: rules, then lines."""

from __future__ import annotations

import difflib
from typing import TypedDict


class Changes(TypedDict):
    """The names of rules, and the lines of a unified diff."""

    removed: list[str]
    added: list[str]
    changed: list[str]
    lines: list[str]


def between(before: str, after: str, name: str) -> Changes:
    """The changes from one text to another. `name`: what the first is called."""
    from vault.core.policy import Policy  # noqa: PLC0415 - slow to import

    old, new = ({rule.name: rule.text for rule in Policy(text).rules} for text in (before, after))
    return Changes(
        removed=sorted(set(old) - set(new)),
        added=sorted(set(new) - set(old)),
        changed=sorted(name for name in set(old) & set(new) if old[name] != new[name]),
        lines=list(difflib.unified_diff(before.splitlines(), after.splitlines(), name, "new", lineterm="")),
    )


def show(changes: Changes) -> None:
    """Print them for people."""
    for change, names in (
        ("removed", changes["removed"]), ("added", changes["added"]), ("changed", changes["changed"]),
    ):  # fmt: skip
        for name in names:
            print(f"{change}: {plain(name)}")
    print("\n".join(map(plain, changes["lines"])) or "nothing would change")


def plain(line: str) -> str:
    """A line that somebody else wrote, with what does not show, such as what steers a terminal, spelt out."""
    return "".join(
        one if one.isprintable() or one == "\t" else one.encode("unicode_escape").decode() for one in line
    )
