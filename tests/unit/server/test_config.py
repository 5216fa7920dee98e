"""The configuration is strict, and its errors name key and rule but never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vault.config import load, read_secret_file
from vault.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[tls]
certificate_file = "a.pem"
private_key_file = "/abs/b.pem"
client_ca_file = "c.pem"
[identity]
trust_domains = ["bank.example"]
[hsm]
uri = "pkcs11:token=x"
[database]
url = "sqlite:///vault.db"
[policy]
files = ["p.cedar"]
[approvals]
destroy_key = 2
delete_tenant = 2
change_policy = 2
recover_database = 2
break_glass = 2
issue_token = 2
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "strongroom.toml"
    file.write_text(text)
    return file


def test_paths_are_relative_to_the_files_folder(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.tls.certificate_file == tmp_path / "a.pem"
    assert str(config.tls.private_key_file) == "/abs/b.pem"
    assert config.policy.files == (tmp_path / "p.cedar",)
    assert config.database.url == f"sqlite:///{tmp_path}/vault.db"


@pytest.mark.parametrize(
    "pattern",
    [
        "spiffe://bank.example/people/*",
        "spiffe://bank.example/*/alice",
        "*.people.bank.example",
        "alice.bank.example",
    ],
)
def test_patterns_of_people(tmp_path: Path, pattern: str) -> None:
    text = GOOD.replace("[identity]", f'[identity]\npersonal = ["{pattern}"]')
    assert load(write(tmp_path, text)).identity.personal == (pattern,)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "*", "**", "spiffe://bank.example", "spiffe://bank.example/", "spiffe://*/people/alice",
        "spiffe://bank.example/people/**", "spiffe://bank.example/people/a*", "spiffe://bank.example/people/",
        "spiffe://bank.example/../alice", "spiffe://Bank.example/people/*", "spiffe://bank.example/people/*\\n",
        "spiffe://elsewhere.example/people/*", "people/*", "a.*.example", "*.", "alice", "spiffe://bank.example/ä",
    ],
)  # fmt: skip
def test_patterns_that_are_none(tmp_path: Path, pattern: str) -> None:
    text = GOOD.replace("[identity]", f'[identity]\npersonal = ["{pattern}"]')
    with pytest.raises(StartError, match="identity"):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[tls]", "[tls]\ntypo = 1"), r"tls\.typo: unknown key"),
        (("[tls]", "[surprise]\nx = 1\n[tls]"), "surprise: unknown key"),
        (('uri = "pkcs11:token=x"', ""), r"hsm\.uri"),
        (("[policy]\nfiles = ", "[policy]\nfiles = []\n#"), r"policy\.files"),
        (("[tls]", "[tokens]\nmax_life_seconds = 86401\n[tls]"), r"tokens\.max_life_seconds"),
        (
            ("[tls]", "[tokens]\nmax_life_seconds = 60\ndefault_life_seconds = 61\n[tls]"),
            "default_life_seconds",
        ),
        (("[tls]", "[server]\nworkers = 0\n[tls]"), r"server\.workers"),
        (("[tls]", '[server]\nlisten = "everywhere"\n[tls]'), r"server\.listen"),
        (("destroy_key = 2", "destroy_key = 0"), r"approvals\.destroy_key"),
        (("break_glass = 2\n", ""), r"approvals\.break_glass: is required"),
        (("break_glass = 2\n", "brake_glass = 2\n"), r"approvals\.brake_glass: unknown key"),
        (("[tls]", "[tls"), "TOML"),
    ],
)
def test_each_broken_rule_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(StartError, match=said):
        load(write(tmp_path, GOOD.replace(*change)))


def test_a_value_is_never_repeated(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        load(write(tmp_path, GOOD.replace("[tls]", "[server]\nworkers = 'canary-4711'\n[tls]")))
    assert "canary" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="absent"):
        load(tmp_path / "absent.toml")
    with pytest.raises(StartError, match="password_file"):
        read_secret_file(tmp_path / "absent", "database.password_file")
