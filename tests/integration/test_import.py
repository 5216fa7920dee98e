"""`strongroom import`, into a real vault, from a KV version 2 server: all arrives, and nothing touches a disk."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.hsm.transit_double import Double
from tests.support.scan import forms
from vault.cli.import_run import request_id
from vault.cli.import_sources import SourceError, parse_env

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.vault import VaultSite

# What is imported goes through the SDK: which database lies under the vault makes no difference.
on_sqlite = pytest.mark.parametrize("site", ["sqlite"], indirect=True, scope="session")
MAPPING = """
[[rule]]
path = "prod/stripe/*"
name = "acme/{top}/stripe/{{1}}"
kind = "stripe_account"
fields = {{ api_key = "STRIPE_KEY", webhook_secret = "STRIPE_WEBHOOK" }}
labels = {{ team = "payments" }}

[[rule]]
path = "prod/banks/**"
name = "acme/{top}/banks/{{1}}"
kind = "imported"

[[rule]]
path = "legacy/**"
skip = true
"""


@pytest.fixture
def double() -> Iterator[Double]:
    served = Double()
    yield served
    served.close()


@pytest.fixture
def profile(site: VaultSite, tmp_path: Path) -> Path:
    """The profile of `payments` as a file; a tenant's own corner for each test."""
    file = tmp_path / "payments.toml"
    pki = site.folder / "pki"
    file.write_text(
        f'server = "{site.address}"\nca_file = "{pki}/ca.pem"\ncertificate_file = "{pki}/payments.pem"\n'
        f'private_key_file = "{pki}/payments-key.pem"\ntenant = "acme"\n'
        'scopes = ["credential.write:acme/**", "credential.read:acme/**"]\n'
    )
    return file


def run(profile: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, dict[str, Any], str]:
    """Run the command in a process that may not write a single byte to any file."""
    # Limited by a shell: Python code between fork and exec is not safe beside the threads of gRPC.
    limited = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, sys.executable, "-B", "-m", "vault.cli", "import", *arguments, "--output", "json"],
        env={**os.environ, "STRONGROOM_PROFILE": str(profile), "TMPDIR": str(profile.parent)},
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode >= 0, (done.returncode, done.stderr)
    return done.returncode, json.loads(done.stdout or b"{}"), done.stderr.decode()


def kv_uri(double: Double, folder: Path) -> str:
    token = folder / "token"
    token.write_text(double.new_token())
    token.chmod(0o600)
    return f"kv://127.0.0.1:{double.port}/secret?plaintext-http=yes&token-source=file:{token}"


def fill(double: Double) -> dict[str, dict[str, object]]:
    double.secrets = {
        "prod/stripe/live": {"STRIPE_KEY": f"sk_{secrets.token_hex(12)}", "STRIPE_WEBHOOK": "whsec_1", "OTHER": "x"},
        "prod/stripe/test": {"STRIPE_KEY": "sk_2", "STRIPE_WEBHOOK": "whsec_2"},
        "prod/banks/north/Payouts": {"User Name": "payouts", "pin": 1234},
        "legacy/old": {"a": "b"},
        "elsewhere": {"a": "b"},
    }  # fmt: skip
    return double.secrets


def revealed(site: VaultSite, name: str) -> dict[str, str]:
    with site.client() as vault, vault.reveal(name, purpose="test")[0] as found:
        return {field: found.text(field) for field in found}


@on_sqlite
def test_a_whole_kv_engine_arrives_as_the_mapping_says_and_again_changes_nothing(
    site: VaultSite, double: Double, profile: Path, tmp_path: Path
) -> None:
    top = f"kv{secrets.token_hex(4)}"
    stored = fill(double)
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(MAPPING.format(top=top))
    arguments = ("kv", kv_uri(double, tmp_path), "--mapping", str(mapping))

    code, rehearsed, _ = run(profile, *arguments, "--dry-run")
    assert (code, rehearsed["dry_run"]) == (1, True)
    assert rehearsed["counts"] == {"would-import": 3, "skipped": 1, "unmapped": 1}
    with site.client() as vault:
        assert vault.list_credentials(f"acme/{top}") == []

    code, report, _ = run(profile, *arguments)
    assert code == 1, "what no rule fits is not silently left behind"
    assert report["counts"] == {"imported": 3, "skipped": 1, "unmapped": 1}
    live = stored["prod/stripe/live"]
    assert revealed(site, f"acme/{top}/stripe/live") == {
        "api_key": live["STRIPE_KEY"],
        "webhook_secret": "whsec_1",
    }
    assert revealed(site, f"acme/{top}/banks/north/payouts") == {"user_name": "payouts", "pin": "1234"}
    with site.client() as vault:
        found = vault.get(f"acme/{top}/stripe/live")
        assert (found.kind, dict(found.labels)) == ("stripe_account", {"team": "payments"})

    code, again, _ = run(profile, *arguments)
    assert again["counts"] == {"exists": 3, "skipped": 1, "unmapped": 1}
    with site.client() as vault:
        assert {item.latest_version for item in vault.list_credentials(f"acme/{top}")} == {1}


@on_sqlite
def test_what_has_no_value_at_the_source_fails_unless_the_mapping_leaves_it_out(
    site: VaultSite, double: Double, profile: Path, tmp_path: Path
) -> None:
    top = f"null{secrets.token_hex(4)}"
    double.secrets = {
        f"{top}/none": {"key": "hush-hush", "old": None},
        f"{top}/some": {"key": "a", "port": 0, "on": False, "deep": {"x": None}, "text": "null"},
    }
    uri = kv_uri(double, tmp_path)
    for more in (("--dry-run",), ()):
        code, report, errors = run(profile, "kv", uri, "--kind", "generic", *more)
        assert (code, report["counts"]["failed"]) == (1, 1)
        (failed,) = [item for item in report["items"] if item["status"] == "failed"]
        assert failed["path"] == f"{top}/none"
        assert "the field old is null at the source" in failed["reason"]
        assert "hush" not in json.dumps(report) + errors
    assert revealed(site, f"acme/{top}/some") == {
        "key": "a", "port": "0", "on": "false", "deep": '{"x": null}', "text": "null",
    }  # fmt: skip
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        f'[[rule]]\npath = "{top}/none"\nname = "acme/{top}/none"\nfields = {{ key = "key" }}\n'
    )
    code, report, _ = run(profile, "kv", uri, "--prefix", top, "--mapping", str(mapping))
    assert report["counts"] == {"imported": 1, "unmapped": 1}
    assert revealed(site, f"acme/{top}/none") == {"key": "hush-hush"}


@on_sqlite
def test_nothing_of_an_import_lies_on_a_disk_or_in_its_report(
    site: VaultSite, double: Double, profile: Path, tmp_path: Path
) -> None:
    canary, top = f"canary-{secrets.token_hex(16)}", f"deep{secrets.token_hex(4)}"
    double.secrets = {f"{top}/{n}": {"key": canary} for n in range(5)}
    code, report, errors = run(profile, "kv", kv_uri(double, tmp_path), "--prefix", top)
    assert (code, report.get("counts")) == (0, {"imported": 5}), errors
    code, second, more = run(
        profile, "env", "--path", f"e{secrets.token_hex(4)}", stdin=f"KEY={canary}\n".encode()
    )
    assert (code, second.get("counts")) == (0, {"imported": 1}), more
    shown = json.dumps([report, second]) + errors + more
    for folder in (tmp_path, site.folder):
        for file in folder.rglob("*"):
            content = file.read_bytes() if file.is_file() else b""
            assert not [form for form, pattern in forms(canary.encode()).items() if pattern in content], file
    assert canary not in shown


@on_sqlite
def test_an_import_that_was_interrupted_is_run_again_and_does_nothing_twice(
    site: VaultSite, double: Double, profile: Path, tmp_path: Path
) -> None:
    top = f"again{secrets.token_hex(4)}"
    double.secrets = {f"{top}/{n}": {"key": f"value {n}"} for n in range(4)}
    uri = kv_uri(double, tmp_path)
    source = f"http://127.0.0.1:{double.port}/secret"
    with site.client() as vault:
        # What the interrupted run had done, the answer to which it never saw; since then it was changed here.
        sent = request_id(source, f"{top}/0", "1", f"acme/{top}/0")
        vault.put(f"acme/{top}/0", {"key": "value 0"}, kind="imported", etag="new", request_id=sent)
        vault.put(f"acme/{top}/0", {"key": "newer"}, kind="imported")
    code, report, _ = run(profile, "kv", uri, "--prefix", top)
    assert (code, report["counts"]) == (0, {"exists": 1, "imported": 3})
    assert revealed(site, f"acme/{top}/0") == {"key": "newer"}


@on_sqlite
def test_json_lines_come_in_and_a_line_that_is_none_is_named_without_its_content(
    site: VaultSite, profile: Path
) -> None:
    top = f"lines{secrets.token_hex(4)}"
    lines = [json.dumps({"path": f"{top}/{n}", "fields": {"key": f"v{n}"}}) for n in range(70)]
    code, report, _ = run(profile, "json-lines", "--kind", "generic", stdin="\n".join(lines).encode())
    assert (code, report["counts"]) == (0, {"imported": 70})
    assert revealed(site, f"acme/{top}/69") == {"key": "v69"}
    code, _, errors = run(profile, "json-lines", stdin=b'{"path": "a/b", "fields": {"key": "hush-hush"')
    assert code == 2
    assert "line 1" in errors
    assert "hush" not in errors


@on_sqlite
def test_two_paths_that_would_become_one_name_are_not_taken_for_one(site: VaultSite, profile: Path) -> None:
    top = f"twins{secrets.token_hex(4)}"
    lines = [json.dumps({"path": f"{top}/{n}", "fields": {"key": n}}) for n in ("Live", "live")]
    code, report, _ = run(profile, "json-lines", stdin="\n".join(lines).encode())
    assert code == 1
    assert report["counts"] == {"imported": 1, "failed": 1}
    twice = json.dumps({"path": f"{top}/other", "fields": {"KEY": "1", "key": "2"}})
    code, report, _ = run(profile, "json-lines", stdin=twice.encode())
    assert (code, report["counts"]) == (1, {"failed": 1})


@on_sqlite
def test_odd_input_is_imported_whole_or_refused_by_its_place_and_what_was_done_is_told(
    site: VaultSite, profile: Path
) -> None:
    top = f"odd{secrets.token_hex(4)}"

    def line(path: str, **fields: str) -> bytes:
        return json.dumps({"path": f"{top}/{path}", "fields": fields}).encode()

    lines = [
        line("twice", key="first"),
        line("twice", key="hush-hush"),
        line("large", key="hush" * 262_144),
        line("//", key="x"),
        line("a/b/c/d/e/f/g/h/i", key="x"),
        line("digits", **{"2fa": "x"}),
        line("good", key="x", empty="", text="\u00e9\n\r\n\t'\""),
    ]
    code, report, errors = run(profile, "json-lines", stdin=b"\xef\xbb\xbf" + b"\r\n".join(lines))
    assert (code, report["counts"]) == (1, {"imported": 2, "failed": 5}), report
    assert "hush" not in json.dumps(report) + errors
    assert revealed(site, f"acme/{top}/twice") == {"key": "first"}
    assert revealed(site, f"acme/{top}/good") == {"key": "x", "empty": "", "text": "\u00e9\n\r\n\t'\""}
    code, rehearsed, _ = run(profile, "json-lines", "--dry-run", stdin=b"\n".join(lines[2:]))
    assert (code, rehearsed["counts"]) == (1, {"exists": 1, "failed": 4}), "a dry run refuses the same"

    # A source that breaks off: what came before is in the report.
    for number, broken in enumerate(
        (b'{"path": "a/b", "fields": {"k": "1", "k": "hush"}}', b'{"path": "hush', b"\xff\xfe", b'"hush"')
    ):
        many = [line(f"many{number}/{n}", key="x") for n in range(64)]
        code, report, errors = run(profile, "json-lines", stdin=b"\n".join([*many, broken]))
        assert (code, report["counts"]) == (2, {"imported": 64})
        assert "line 65" in errors
        assert "hush" not in errors
    # Bytes that are no text are bytes of a value all the same.
    code, report, _ = run(profile, "env", "--path", f"{top}/env", stdin=b"KEY=\xff\xfe\n")
    assert (code, report["counts"]) == (0, {"imported": 1})
    with site.client() as vault, vault.reveal(f"acme/{top}/env", purpose="test")[0] as found:
        assert bytes(found["key"]) == b"\xff\xfe"


@on_sqlite
def test_a_source_that_is_down_or_refuses_is_said_in_one_line(
    double: Double, profile: Path, tmp_path: Path
) -> None:
    uri = kv_uri(double, tmp_path)
    double.revoke_tokens()
    code, _, errors = run(profile, "kv", uri)
    assert code == 2
    assert "Traceback" not in errors
    assert "the source" in errors


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("A=1\nB=2", {"A": b"1", "B": b"2"}),
        ("# a comment\n\nexport A = x y \nB=", {"A": b"x y", "B": b""}),
        ("A='$x \\n'\nB=\"one\\ntwo \\\"q\\\"\"", {"A": b"$x \\n", "B": b'one\ntwo "q"'}),
        ('KEY="-----BEGIN\nabc\n-----END"\nB=1 # note\n', {"KEY": b"-----BEGIN\nabc\n-----END", "B": b"1"}),
        ('A=x#y\r\nB="q" # z\r\n', {"A": b"x#y", "B": b"q"}),
        ("A=1\nA=2", {"A": b"2"}),
        ("\ufeffA=1\r\nB='x\r\ny'", {"A": b"1", "B": b"x\r\ny"}),
    ],
)  # fmt: skip
def test_an_env_file_is_read_as_shells_read_it(text: str, fields: dict[str, bytes]) -> None:
    assert {name: bytes(value) for name, value in parse_env(text.encode()).items()} == fields


@pytest.mark.parametrize("text", ["hush", "A=1\n=hush", "A=1\nB='hush", "9A=hush"])
def test_what_is_no_env_file_is_refused_by_line_and_not_quoted(text: str) -> None:
    with pytest.raises(SourceError, match=r"^line \d") as refused:
        parse_env(text.encode())
    assert "hush" not in str(refused.value)
