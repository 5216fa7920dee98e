"""`strongroom person identify` shows a pseudonym as it stands in the log, whatever its characters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from vault.cli import erasures
from vault.cli.output import Format

KNOWN, GONE = "person:a_b-cDeFgHiJkLmNoPqR_s", "person:_______________________"


class Vault:
    def identify(self, _pseudonyms: Sequence[str]) -> list[str]:
        return ["spiffe://bank.example/zara_p", ""]


def test_it_is_shown_unaltered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @contextlib.contextmanager
    def client(*_options: object) -> Iterator[Vault]:
        yield Vault()

    monkeypatch.setattr(erasures, "client", client)
    erasures.identify([KNOWN, GONE], output=Format.TABLE)
    assert capsys.readouterr().out.splitlines() == [
        f"{KNOWN}  spiffe://bank.example/zara_p",
        f"{GONE}  nobody: erased, or never here",
    ]
