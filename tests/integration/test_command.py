"""The command says plainly what it cannot do, with an exit code that a script can trust, and never with a traceback."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.test_policy import profile_file
from tests.support.vault import ALL_SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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

    def __init__(self, site: VaultSite, folder: Path, scopes: Sequence[str] = SCOPES) -> None:
        self.folder = folder
        self.profile = profile_file(site, "payments", folder, "acme", scopes)

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


def test_a_token_that_is_saved_is_for_its_writer_alone_whatever_was_there_before(command: Command) -> None:
    file = command.folder / "token"
    file.write_text("an older one, of many characters, which everybody could read " * 100)
    file.chmod(0o644)
    saved = command("token", "issue", "--scope", f"credential.read:{NAME}", "--save", str(file))
    assert saved.code == 0, saved
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("credential", "get", NAME, "--token-file", str(file)).code == 0


def test_an_operation_that_cannot_be_done_does_not_end_the_session(command: Command) -> None:
    ran = command("session", "open", NAME, "--purpose", "test", stdin=SESSION.format(name=NAME).encode())
    assert ran.code == NOT_ALL, ran
    assert '"username": "u"' in ran.out, "the last line was done"
    assert "closed: 2 revealed" in ran.out
    assert len([line for line in ran.err.splitlines() if line.startswith("?")]) == 6
    done = command("session", "open", NAME, "--purpose", "test", stdin=f"reveal {NAME}\nclose\n".encode())
    assert done.code == 0, done


def test_every_use_can_be_done_in_an_open_session(site: VaultSite, tmp_path: Path) -> None:
    everything = Command(site, tmp_path, [f"{action}:acme/**" for action in ALL_SCOPES])
    folder, key = f"acme/{secrets.token_hex(6)}", ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    names = keys, hook, signer = f"{folder}/keys", f"{folder}/hook", f"{folder}/signer"
    with site.client() as client:
        client.put(
            keys,
            {
                "key": b"k" * 32,
                "totp_seed": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
                "private_key": b"s",
                "public_key": b"p",
            },
            kind="generic",
        )
        client.put(hook, {"webhook_secret": "whsec_1"}, kind="stripe_account")
        client.put(signer, {"private_key": pem, "algorithm": "ES256"}, kind="signing_key")
    message = tmp_path / "message"
    message.write_bytes(b"to whom it may concern")
    mac = hmac.digest(b"k" * 32, message.read_bytes(), "sha256").hex()
    now = int(time.time())
    signature = hmac.digest(b"whsec_1", b"%d." % now + message.read_bytes(), "sha256").hex()
    done = f"""
        hmac {keys} --field key --message {message} --raw      # as its holder
        hmac {keys} --field key --message {message} --context invoices
        verify-hmac {keys} --field key --message {message} --mac {mac} --raw
        verify-hmac {keys} --field key --message {message} --mac {"0" * 64} --raw
        totp {keys}
        answer-challenge {keys} {"0" * 20}
        verify-webhook {hook} --scheme stripe --header 'Stripe-Signature: t={now},v1={signature}' --body {message}
        verify-webhook {hook} --scheme stripe --header 'Stripe-Signature: t={now},v1={"0" * 64}' --body {message}
        sign {signer} --format raw --message {message}
        sign {signer} --format jws --message {message}
        sign {signer} --format client-assertion --audience https://as.example --client-id me
        sign {signer} --format http --uri https://bank.example/x --component @method --component @path
        reveal {keys} --field private_key
        hmac --help
    """
    ran = everything("session", "open", *names, "--purpose", "t", "--output", "json", stdin=done.encode())
    assert (ran.code, ran.err) == (0, "")
    answers = list(documents(ran.out.partition(" Usage:")[0]))[len(names) :]
    assert answers[0] == {"mac": mac}
    assert answers[1]["mac"] != mac
    assert answers[2:4] == [{"valid": True}, {"valid": False}]
    assert re.fullmatch("[0-9]{6}", answers[4]["code"])
    assert answers[5]["response"].startswith("p|")
    verdicts = [answer["verdict"] for answer in answers[6:8]]
    assert verdicts == ["WEBHOOK_VERDICT_VALID", "WEBHOOK_VERDICT_SIGNATURE_MISMATCH"]
    signed = bytes.fromhex(answers[8]["signature"])
    key.public_key().verify(signed, message.read_bytes(), ec.ECDSA(hashes.SHA256()))
    assert answers[9]["jws"].count(".") == answers[10]["client_assertion"].count(".") == 2
    assert {"signature", "signature-input"} <= {name.lower() for name in answers[11]}
    assert answers[12] == {"private_key": "s"}
    assert len(answers) == 13
    assert "--context" in ran.out
    assert '"uses": 12' in ran.out

    # What goes out gets as far as the vault, which has no such connector; what is the session's or its stdin's not.
    refused = {
        f"http {keys} nowhere GET /": "CONNECTOR_NOT_FOUND",
        f"refresh {keys} nowhere --client {hook}": "an oauth_grant is refreshed",
        f"link-token {keys} nowhere --user u --client-name n --country GB": "CONNECTOR_NOT_FOUND",
        f"hmac {keys} --field key --message -": "stdin gives the operations",
        f"totp {keys} --purpose another": "--purpose: belongs to",
        f"totp {keys} -p other.toml": "--profile: belongs to",
        f"reveal {keys} --approval {'A' * 22}": "--approval",
        f"hmac {keys} --message {message}": "--field",
        f"open {keys}": "must be close, or one of answer-challenge",
        f"totp {NAME}": "not a credential of this session",
    }
    ran = everything("session", "open", *names, "--purpose", "t", stdin="\n".join(refused).encode())
    assert ran.code == NOT_ALL
    told = [line for line in ran.err.splitlines() if line.startswith("?")]
    for line, said in zip(told, refused.values(), strict=True):
        assert said in line


def documents(text: str) -> Iterator[dict[str, Any]]:
    """One document of JSON after another."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def test_a_list_can_be_read_by_people_and_programs(command: Command) -> None:
    table = command("credential", "list", "acme/command")
    assert (table.code, len(table.out.splitlines())) == (0, 2)
    assert max(map(len, table.out.rstrip().splitlines())) <= 80
    (row,) = json.loads(command("credential", "list", "acme/command", "--output", "json").out)
    assert (row["name"], row["kind"]) == (NAME, "bank_login")


def test_a_profile_without_scopes_is_told_what_it_lacks(site: VaultSite, tmp_path: Path) -> None:
    command = Command(site, tmp_path, ())
    ran = command("credential", "list")
    assert (ran.code, "names no scopes" in ran.err, "docs/configuration.md" in ran.err) == (HERE, True, True)
    # What takes no token, or names its scopes, needs none of the profile's.
    assert command("token", "jwks").code == 0
    assert command("token", "issue", "--scope", f"credential.read:{NAME}").code == 0
