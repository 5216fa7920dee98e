"""The command says plainly what it cannot do, with an exit code that a script can trust, and never with a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.test_policy import profile_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.vault import VaultSite

# What the command says does not depend on the database.
pytestmark = pytest.mark.parametrize("site", ["sqlite"], indirect=True)

NAME = "acme/command/login"
SCOPES = ("credential.read:acme/**", "credential.write:acme/**", "session.reveal:acme/**",
          "session.use.verify_webhook:acme/**")  # fmt: skip
HERE, USAGE, REFUSED, UNREACHABLE, NOT_ALL, CONFIG = 1, 2, 3, 4, 6, 78
SESSION = """
reveal {name} --field password
unknown
reveal
reveal acme/command/another
reveal {name} --field no_such_field
verify-webhook {name} --scheme stripe --header x --body /nonexistent
reveal 'unbalanced
reveal {name} --field username
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """The command, as the service payments."""

    def __init__(self, site: VaultSite, folder: Path) -> None:
        self.folder = folder
        self.profile = profile_file(site, "payments", folder, "acme", SCOPES)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        words = [word.replace("FOLDER", str(self.folder)) for word in arguments]
        done = subprocess.run(
            [sys.executable, "-m", "vault.cli", *words, "--profile", str(self.profile)],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in ran.err, ran.err
        return ran


@pytest.fixture
def command(site: VaultSite, tmp_path: Path) -> Command:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no-token").write_text("nothing\n")
    (tmp_path / "table").write_text("token     abc\ntoken id  def\n")
    (tmp_path / "expect.toml").write_text("expect = 5\n")
    (tmp_path / "types.toml").write_text(
        '[[expect]]\nidentity = "spiffe://a/b"\nscope = "credential.read:acme/**"\nallow = "yes"\n'
    )
    (tmp_path / "broken.cedar").write_text("permit(principal")
    with site.client() as client:
        client.put(NAME, {"username": "u", "password": "p"}, kind="bank_login")
    return Command(site, tmp_path)


WRONG: dict[str, tuple[list[str], bytes, int, str]] = {
    "a life of a trillion years": (["token", "issue", "--ttl", "9" * 20], b"", USAGE, "--ttl"),
    "sessions below zero": (["token", "issue", "--max-sessions", "-1"], b"", USAGE, "--max-sessions"),
    "a version beyond all numbers": (
        ["credential", "public-key", NAME, "--version", "9" * 20], b"", USAGE, "--version",
    ),
    "a token file that holds no text": (
        ["credential", "get", NAME, "--token-file", "FOLDER/binary"], b"", USAGE, "is not a file of text",
    ),
    "a token file that holds no token": (
        ["credential", "get", NAME, "--token-file", "FOLDER/no-token"], b"", REFUSED, "TOKEN_INVALID",
    ),
    "a token file that is not there": (
        ["credential", "get", NAME, "--token-file", "FOLDER/absent"], b"", HERE, "No such file",
    ),
    "fields that are not text": (
        ["credential", "put", NAME, "--kind", "generic", "--fields", "-"], b"\xff", USAGE, "not JSON",
    ),
    "fields that nest without end": (
        ["credential", "put", NAME, "--kind", "generic", "--fields", "-"], b"[" * 100_000, USAGE, "not JSON",
    ),
    "a field with half a character": (
        ["credential", "put", NAME, "--kind", "generic", "--fields", "-"],
        b'{"value": "\\ud800"}', USAGE, "half a character",
    ),
    "a field that may never be stored": (
        ["credential", "put", NAME, "--kind", "generic", "--fields", "-"], b'{"cvv": "123"}', HERE, "PCI DSS",
    ),
    "more than a credential holds": (
        ["credential", "put", NAME, "--kind", "generic", "--fields", "-"],
        b'{"value": "' + b"x" * 65_536 + b'"}', HERE, "at most 65536 bytes",
    ),
    "a credential that is not there": (["credential", "get", f"{NAME}s"], b"", REFUSED, "CREDENTIAL_NOT_FOUND"),
    "another tenant's credential": (
        ["credential", "get", "globex/x"], b"", REFUSED, "do not cover this (action credential.read)",
    ),
    "a use that the profile has no scope for": (
        ["session", "totp", NAME], b"", REFUSED, "(action session.use.totp)",
    ),
    "a token as it is shown to people": (
        ["credential", "get", NAME, "--token-file", "FOLDER/table"], b"", USAGE, "token issue --save",
    ),
    "a table of expectations that is none": (
        ["policy", "test", "FOLDER/expect.toml", "FOLDER/broken.cedar"], b"", CONFIG, "must be tables",
    ),
    "an expectation of another type": (
        ["policy", "test", "FOLDER/types.toml", "FOLDER/broken.cedar"], b"", CONFIG, "allow must be of type bool",
    ),
    "a policy of no text": (["policy", "test", "FOLDER/types.toml", "FOLDER/binary"], b"", CONFIG, "types.toml"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "stdin", "code", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_is_said_in_words(
    command: Command, arguments: list[str], stdin: bytes, code: int, said: str
) -> None:
    ran = command(*arguments, stdin=stdin)
    assert ran.code == code, ran
    assert said in ran.err


def test_an_operation_that_cannot_be_done_does_not_end_the_session(command: Command) -> None:
    ran = command("session", "open", NAME, "--purpose", "test", stdin=SESSION.format(name=NAME).encode())
    assert ran.code == NOT_ALL, ran
    assert '"username": "u"' in ran.out, "the last line was done"
    assert "closed: 2 revealed" in ran.out
    assert len([line for line in ran.err.splitlines() if line.startswith("?")]) == 6
    done = command("session", "open", NAME, "--purpose", "test", stdin=f"reveal {NAME}\nclose\n".encode())
    assert done.code == 0, done


def test_a_list_can_be_read_by_people_and_programs(command: Command) -> None:
    table = command("credential", "list", "acme/command")
    assert (table.code, len(table.out.splitlines())) == (0, 2)
    assert max(map(len, table.out.rstrip().splitlines())) <= 80
    (row,) = json.loads(command("credential", "list", "acme/command", "--output", "json").out)
    assert (row["name"], row["kind"]) == (NAME, "bank_login")
