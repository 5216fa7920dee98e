"""What the pages say can be typed and followed: commands and options exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from vault.cli.main import app
from vault.crypto import scopes

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "deploy/README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
COMMAND = typer.main.get_command(app)
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("sh", "console", "")


def commands(page: Path) -> list[list[str]]:
    """The words behind `strongroom` of every command in a page's shell blocks."""
    blocks = (block for language, block in _BLOCK.findall(page.read_text()) if language in _SHELL)
    lines = (
        re.sub(r"\s#.*", "", line) for block in blocks for line in block.replace("\\\n", " ").splitlines()
    )
    parts = (part.split("$(")[0] for line in lines for part in re.split(r"[|;](?= |$)", line))
    return [
        re.sub("[\"']", "", part).split()[1:] for part in parts if re.match(r"\s*(\S*/)?strongroom \w", part)
    ]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_has_the_options_that_it_is_given(page: Path) -> None:
    for words in commands(page):
        node, rest = COMMAND, words
        while isinstance(node, typer.core.TyperGroup) and rest and rest[0] in node.commands:
            node, rest = node.commands[rest[0]], rest[1:]
        assert not isinstance(node, typer.core.TyperGroup), f"no such command: strongroom {' '.join(words)}"
        options = {name for param in node.params for name in (*param.opts, *param.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= options, f"no such option: strongroom {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_the_pages_hold_commands_to_be_checked() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 80


def test_every_action_of_a_scope_is_in_the_table_of_scopes() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    table = page.partition("\n### Scopes\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+\.[a-z_.]+)`", table))
    assert {action for action in scopes.ACTIONS if not action.startswith("session.use.")} <= named
    assert named <= {*scopes.ACTIONS, "session.use."}
    for resource in re.findall(r"`((?:acme|system)/[a-z/*]+)`", table):
        scopes.parse(f"audit.read:{resource}")
