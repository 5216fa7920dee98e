"""Each kind of sink by itself, with a real receiver: what it takes, and what it says when it does not."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from tests.support.receivers import Collector, SyslogReceiver
from vault import config
from vault.cli.pki import ensure_pki
from vault.core.records import cells, ocsf, plain
from vault.core.sinks import SinkError
from vault.errors import StartError
from vault.sinks.file import File
from vault.sinks.open import outlets
from vault.sinks.otlp import Otlp
from vault.sinks.syslog import Syslog, context, frame, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def row(sequence: int, **changes: Any) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "id": "5f0c2f5e-2f3c-4c57-9d0a-0f3c8d2f1a11",
        "created_at": datetime.datetime(2026, 11, 24, 12, 0, 0, 1, datetime.UTC),
        "tenant": "acme",
        "user_id": "spiffe://example/payments",
        "action_type": "session.reveal",
        "resource": "acme/stripe",
        "outcome": "granted",
        "reason": "",
        "ip_address": "10.0.0.1",
        "device_id": "",
        "request_id": "r",
        "token_id": "t",
        "session_id": "",
        "before_state": "",
        "after_state": "{}",
        "rows_written": "",
        "leaf_hash": bytes(32),
        **changes,
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.mark.parametrize(("answer", "told"), [("refuse", "answers 503"), ("reject", "rejects 1 records")])
def test_a_collector_that_does_not_accept_everything_has_not_taken_it(
    collector: Collector, answer: str, told: str
) -> None:
    sink = Otlp(collector.url, None, None)
    sink.deliver([row(0)])
    assert collector.sequences() == [0]
    collector.answer = answer
    with pytest.raises(SinkError, match=told):
        sink.deliver([row(1)])
    collector.answer = "take"
    sink.deliver([row(1), row(2)])
    sink.close()
    assert collector.sequences()[-2:] == [1, 2]


def test_a_receiver_whose_certificate_does_not_verify_gets_nothing(tmp_path: Path) -> None:
    ensure_pki(tmp_path / "a", {})
    ensure_pki(tmp_path / "b", {})
    receiver = SyslogReceiver(tmp_path / "a")
    sink = Syslog("localhost", receiver.port, context(str(tmp_path / "b/ca.pem"), None, None), plain)
    with pytest.raises(SinkError, match="certificate"):
        sink.deliver([row(0)])
    assert receiver.messages == []
    receiver.stop()


def test_a_message_has_the_form_of_rfc_5424_and_the_frame_of_rfc_5425() -> None:
    made = message(row(7, outcome="refused"), "host.example", {"sequence": 7, "text": "a\nb"})
    assert made == (
        b"<108>1 2026-11-24T12:00:00.000001Z host.example strongroom - session.reveal - "
        b'{"sequence": 7, "text": "a\\nb"}'
    )
    assert frame(made) == str(len(made)).encode() + b" " + made


def test_a_file_takes_no_record_twice_and_keeps_the_newest_full_ones(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for first in range(0, 60, 3):
        sink = File(path, 1000, 2, plain)
        sink.deliver([row(sequence) for sequence in range(max(0, first - 2), first + 3)])
        sink.close()
    full = sorted(tmp_path.glob("audit-*.jsonl"))
    assert len(full) == 2
    files = [part for part in (*full, path) if part.exists()]
    kept = [json.loads(line)["sequence"] for part in files for line in part.read_text().splitlines()]
    assert kept == list(range(kept[0], 60))


@pytest.mark.parametrize("render", [plain, ocsf])
@pytest.mark.parametrize("max_bytes", [1000, 1 << 24], ids=["full files", "one file"])
@pytest.mark.parametrize("again", [False, True], ids=["open", "opened again"])
@pytest.mark.parametrize("back", [1, 499, 500, 1999])
def test_a_file_takes_nothing_of_a_log_that_was_set_back(
    tmp_path: Path, render: Any, max_bytes: int, back: int, *, again: bool
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = File(path, max_bytes, 10_000, render)
    for first in range(0, 2000, 400):
        sink.deliver([row(sequence, id=f"first-{sequence}") for sequence in range(first, first + 400)])
    if again:
        sink.close()
        sink = File(path, max_bytes, 10_000, render)
    # What comes again is there, and is no fault.
    sink.deliver([row(sequence, id=f"first-{sequence}") for sequence in range(1501, 2000)])
    with pytest.raises(SinkError, match="set back"):
        sink.deliver([row(2000 - back, id="second")])
    written = "".join(part.read_text() for part in tmp_path.glob("audit*.jsonl"))
    assert "second" not in written
    assert written.count("\n") == 2000
    # A file of its own takes the log that there is.
    for part in tmp_path.glob("audit*.jsonl"):
        part.rename(part.with_suffix(".lost"))
    sink.deliver([row(2000 - back, id="second")])
    sink.close()
    assert "second" in path.read_text()


def test_a_disk_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    sink = File(tmp_path / "folder" / "audit.jsonl", 1000, 2, ocsf)
    with pytest.raises(SinkError, match="cannot write the file"):
        sink.deliver([row(0)])
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    sink.deliver([row(0)])
    sink.close()
    (line,) = (tmp_path / "folder" / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["class_uid"] == 6003


def test_no_cell_of_a_spreadsheet_is_a_formula() -> None:
    made = cells(row(1, device_id="=HYPERLINK(1)", user_id="@x", reason="-1", before_state="+1"))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in made)


def test_an_event_has_every_attribute_that_ocsf_requires_of_api_activity() -> None:
    for made in (row(1), row(2, ip_address="", user_id="", outcome="refused", reason="SCOPE_DENIED")):
        event = ocsf(made)
        required = (
            "activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint",
            "time", "type_uid",
        )  # fmt: skip
        assert all(event[name] for name in required)
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["metadata"]["product"]["name"]
        assert event["api"]["operation"]
        assert event["time"] == 1795521600000


@pytest.mark.parametrize(
    ("sinks", "told"),
    [
        ([{"name": "a", "kind": "pigeon"}], "kind"),
        ([{"name": "a", "kind": "otlp", "url": "http://collector.example/v1/logs"}], "url"),
        ([{"name": "A b", "kind": "file", "file": "x"}], "name"),
        ([{"name": "a", "kind": "file", "file": "x"}] * 2, "name of its own"),
        (
            [{"name": "a", "kind": "syslog", "host": "h", "ca_file": "x", "certificate_file": "y"}],
            "belong together",
        ),
    ],
)
def test_a_sink_that_cannot_be_is_told_at_start(sinks: list[dict[str, str]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config.Audit.model_validate({"sinks": sinks})


def test_files_that_a_sink_needs_and_are_not_there_are_told_at_start(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(StartError, match="its TLS files"):
        outlets([config.SyslogSink(name="a", kind="syslog", host="h", ca_file=absent)])
    with pytest.raises(StartError, match="ca_file"):
        outlets([config.OtlpSink(name="a", kind="otlp", url="https://c.example/v1/logs", ca_file=absent)])
    with pytest.raises(StartError, match="cannot read"):
        outlets([config.OtlpSink(name="a", kind="otlp", url="https://c.example/v1/logs", token_file=absent)])
