"""What can be wrong when a PKCS#11 token is opened, and what is said then."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm import HsmAuthFailed, HsmUnavailable, open_backend, softhsm
from hsm.pkcs11.module import Module, _modules
from hsm.uri import UriError

_C_LOGIN = "C_Login"


def _with(uri: str, **changes: str) -> str:
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    parts = dict(part.split("=", 1) for part in path.split(";"))
    options = dict(part.split("=", 1) for part in query.split("&"))
    for name, value in changes.items():
        name = name.replace("_", "-")  # noqa: PLW2901
        (options if name in options else parts)[name] = value
    joined = ";".join(f"{name}={value}" for name, value in parts.items())
    return f"pkcs11:{joined}?" + "&".join(f"{name}={value}" for name, value in options.items())


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The answers of every C_Login made during the test."""
    answers: list[int] = []
    initialize = Module.initialize

    def watched(self: Module) -> None:
        initialize(self)
        real = getattr(self.functions, "_real_login", self.functions.C_Login)

        def login(*args: object) -> int:
            answers.append(real(*args))
            return answers[-1]

        monkeypatch.setattr(self.functions, "C_Login", login)

    monkeypatch.setattr(Module, "initialize", watched)
    return answers


def test_a_token_opens_with_its_pin_and_one_login(token_uri, logins):
    with open_backend(token_uri, sessions=3) as backend:
        assert backend.health().ok
        assert backend.health(deep=True).reason == "ok"
        assert backend.name == "pkcs11:" + token_uri.split("serial=")[1].split("?")[0]
    assert logins == [0]


def test_a_wrong_pin_is_tried_exactly_once(token_uri, logins, tmp_path):
    pin = tmp_path / "pin"
    pin.write_text("not the pin\n")
    pin.chmod(0o400)
    with pytest.raises(HsmAuthFailed) as caught:
        open_backend(_with(token_uri, pin_source=f"file:{pin}"))
    assert logins == [0xA0]
    assert caught.value.code_name == "CKR_PIN_INCORRECT"
    assert not caught.value.retry_safe
    assert "not the pin" not in str(caught.value)
    assert not [m for m in _modules.values() if m.users]


def test_a_second_backend_must_know_the_pin_too(token_uri, tmp_path):
    pin = tmp_path / "pin"
    pin.write_text("wrong")
    pin.chmod(0o400)
    with open_backend(token_uri) as first:
        with pytest.raises(HsmAuthFailed):
            open_backend(_with(token_uri, pin_source=f"file:{pin}"))
        with open_backend(token_uri) as second:
            assert second.health().ok
        assert first.health(deep=True).ok


def test_a_missing_module_is_named(token_uri):
    with pytest.raises(HsmUnavailable, match=r"/nowhere/p11\.so"):
        open_backend(_with(token_uri, module_path="/nowhere/p11.so"))


def test_a_library_that_is_no_module_is_named(token_uri, tmp_path):
    fake = tmp_path / "fake.so"
    fake.write_text("not an object file")
    with pytest.raises(HsmUnavailable, match=r"fake\.so"):
        open_backend(_with(token_uri, module_path=str(fake)))


def test_a_token_that_is_not_there_is_unavailable(token_uri):
    with pytest.raises(HsmUnavailable, match="no token"):
        open_backend(_with(token_uri, serial="0000000000000000"))


@pytest.mark.parametrize("make", ["missing", "readable", "empty"])
def test_a_pin_that_cannot_be_had_is_an_auth_failure_without_a_login(token_uri, logins, tmp_path, make):
    pin = tmp_path / "pin"
    if make != "missing":
        pin.write_text("" if make == "empty" else "1234")
        pin.chmod(0o444 if make == "readable" else 0o400)
    with pytest.raises(HsmAuthFailed, match="PIN"):
        open_backend(_with(token_uri, pin_source=f"file:{pin}"))
    assert logins == []


def test_a_uri_of_another_scheme_is_refused():
    with pytest.raises(UriError):
        open_backend("ftp://example")


def test_a_closed_backend_refuses_and_says_so(token_uri):
    backend = open_backend(token_uri)
    backend.close()
    backend.close()
    assert backend.health().reason == "closed"
    with pytest.raises(HsmUnavailable, match="closed"):
        backend.random(16)


def test_initialising_a_token_twice_finds_the_first(tmp_path):
    first = softhsm.init_token(tmp_path, "again", tmp_path / "pin")
    assert softhsm.init_token(tmp_path, "again", tmp_path / "pin") == first
    assert (tmp_path / "pin").stat().st_mode & 0o077 == 0
    assert "reset_on_fork = true" in softhsm.config_file(tmp_path).read_text()


def test_a_missing_softhsm_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_MODULE", "/nowhere")
    with pytest.raises(HsmUnavailable, match="apt install softhsm2"):
        softhsm.init_token(tmp_path, "x", Path("pin"))
