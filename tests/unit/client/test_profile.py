"""A profile is one strict file: no key that is unknown, none that is missing, each of its type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import self_signed
from vault.client.profile import Profile, ProfileError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {
    "server": '"127.0.0.1:7443"',
    "ca_file": '"ca.pem"',
    "certificate_file": '"c.pem"',
    "private_key_file": '"k.pem"',
    "tenant": '"acme"',
    "scopes": '["credential.read:acme/**"]',
}


def load(folder: Path, **changed: str) -> Profile:
    file = folder / "profile.toml"
    file.write_text("\n".join(f"{key} = {value}" for key, value in {**GOOD, **changed}.items() if value))
    return Profile.load(file)


def test_paths_are_relative_to_its_folder(tmp_path: Path) -> None:
    profile = load(tmp_path)
    assert profile.ca_file == tmp_path.resolve() / "ca.pem"
    assert (profile.scopes, profile.token_seconds) == (("credential.read:acme/**",), 3600)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("scopes", '"credential.read:acme/**"', "scopes: not of the right type"),
        ("scopes", "[1]", "scopes: not of the right type"),
        ("token_seconds", '"3600"', "token_seconds: not of the right type"),
        ("token_seconds", "true", "token_seconds: not of the right type"),
        ("server", "7443", "server: not of the right type"),
        ("ca_file", "[]", "ca_file: not of the right type"),
        ("unheard_of", "1", "unknown key unheard_of"),
        ("tenant", "", "missing tenant"),
        ("server", "'", "cannot read the profile"),
    ],
)
def test_each_broken_rule_is_named(tmp_path: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        load(tmp_path, **{key: value})


def test_what_is_no_text_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="cannot read the profile"):
        Profile.load(tmp_path / "p")


def test_files_that_no_handshake_could_use_are_named_before_there_is_one(tmp_path: Path) -> None:
    key, another = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ca.pem").write_bytes(self_signed(another, "ca"))
    (tmp_path / "c.pem").write_bytes(self_signed(key, "client"))
    (tmp_path / "k.pem").write_bytes(key.private_bytes(*form))
    profile = load(tmp_path)
    profile.channel_credentials()
    for name, data, said in (
        ("k.pem", another.private_bytes(*form), "k.pem: not the key of .*c.pem"),
        ("k.pem", b"nothing", "k.pem: not an unencrypted PEM private key"),
        ("c.pem", b"nothing", "c.pem: not a PEM certificate"),
        ("ca.pem", b"nothing", "ca.pem: not a PEM certificate"),
    ):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ProfileError, match=said):
            profile.channel_credentials()
        (tmp_path / name).write_bytes(good)
