"""What people see of a list: a table if it fits, else a paragraph for each row."""

from __future__ import annotations

import io
import os
import sys

import pytest

from vault.cli.output import Format, show_dict, show_rows

ROWS = [{"name": "acme/stripe/live", "update_time": "2026-11-28"}, {"name": "acme/x", "update_time": ""}]
COLUMNS = ("name", "update_time")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int, output: Format = Format.TABLE, *, tty: bool) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    out = Screen() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    show_rows(output, ROWS, COLUMNS)
    return "\n".join(line.rstrip() for line in out.getvalue().split(os.linesep))


def test_a_table_that_fits_its_screen_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "name              update time\nacme/stripe/live  2026-11-28\nacme/x\n"
    assert shown(monkeypatch, 29, tty=True) == text


def test_on_a_narrower_screen_each_row_is_a_paragraph_and_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "name         acme/stripe/live\nupdate time  2026-11-28\n\nname         acme/x\n"
    assert shown(monkeypatch, 28, tty=True) == text


def test_without_a_screen_a_row_is_a_line_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shown(monkeypatch, 10, tty=False).splitlines()) == 1 + len(ROWS)


def test_json_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = (shown(monkeypatch, width, Format.JSON, tty=True) for width in (10, 200))
    assert narrow == wide


def test_what_has_no_value_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "state": "JOB_STATE_UNSPECIFIED",
        "kind": "JOB_KIND_REWRAP",
        "total": 0,
        "end_time": None,
        "failures": [],
    }
    show_dict(Format.TABLE, values)
    assert capsys.readouterr().out.splitlines() == ["kind      REWRAP", "total     0"]


def test_a_list_has_a_gap_where_there_is_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(Format.TABLE, [{"state": "KEY_STATE_UNSPECIFIED", "version": None}], ("state", "version"))
    assert capsys.readouterr().out.split() == ["state", "version"]
