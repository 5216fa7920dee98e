"""Compliance reports: every standard's, from a real vault; signed, anchored in the log, and readable."""

from __future__ import annotations

import hashlib
import json
import secrets
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import until
from vault.cli.compliance import page
from vault.core.compliance import FORMAT, GATHERERS, STANDARDS, standard_of, verify_report
from vault.crypto.errors import CryptoError

if TYPE_CHECKING:
    from tests.support.vault import VaultSite
    from vault.client import Client

VOID = {"meta", "link", "br", "img"}


class Nesting(HTMLParser):
    """Well-formed: every element that is opened is closed, in order, and nothing comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe"}
        for name, value in attributes:
            assert name != "src"
            assert not name.startswith("on")
            if name == "id":
                self.ids.add(value or "")
            if name == "href":
                self.links.add(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Nesting:
    parser = Nesting()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert parser.links <= {f"#{name}" for name in parser.ids}
    return parser


def test_requirements_are_cited_once_and_rest_on_evidence_that_is_gathered() -> None:
    used: set[str] = set()
    for name in STANDARDS:
        requirements = standard_of(name)["requirement"]
        ids = [requirement["id"] for requirement in requirements]
        assert len(set(ids)) == len(ids) > 5, name
        for requirement in requirements:
            assert set(requirement) <= {"id", "subject", "answer", "evidence", "outside"}
            assert set(requirement["evidence"]) <= set(GATHERERS)
            used |= set(requirement["evidence"])
    assert used == set(GATHERERS)


def test_a_report_is_signed_anchored_in_the_log_and_readable(site: VaultSite) -> None:
    name = f"acme/compliance/{secrets.token_hex(6)}"
    with site.client() as client:
        client.put(name, {"value": "canary-of-the-report"}, kind="generic")
        client.reveal(name, purpose="report")[0].close()
    with site.system() as system:
        for standard in STANDARDS:
            made = system.compliance_report(standard)
            digest = hashlib.sha256(made.report.encode()).hexdigest()
            verify_report(made.report.encode(), made.note, [made.verifier_key])
            record = system.audit_records(action="audit.report", newest_first=True, most=1)[0]
            assert json.loads(record.after_state)["sha256"] == digest
            report = json.loads(made.report)
            assert report["format"] == FORMAT
            assert report["evidence"].get("verification", {"verdict": "holds"})["verdict"] == "holds"
            assert "canary" not in made.report
            shown = read(page(made.report, made.note))
            assert digest in shown.text
            assert all(requirement["id"] in shown.text for requirement in report["requirements"])
    keys = json.loads(made.report)["evidence"]["keys"]
    assert {(row[0], row[1]) for row in keys["rows"]} >= {("acme", "kek"), ("system", "checkpoint")}
    created, end, state = (keys["columns"].index(name) for name in ("created", "cryptoperiod ends", "state"))
    for row in keys["rows"]:
        if row[:2] == ["acme", "kek"]:
            year = int(row[created][:4])
            assert row[end][:4] == (str(year + 2) if row[state] == "active" else "")


def test_a_report_that_was_changed_or_signed_by_another_does_not_verify(site: VaultSite) -> None:
    with site.system() as system:
        made = system.compliance_report("gdpr")
        checkpoint = system.checkpoint()
    altered = made.report.replace('"verdict":"holds"', '"verdict":"informs"', 1)
    assert altered != made.report
    with pytest.raises(CryptoError):
        verify_report(altered.encode(), made.note, [made.verifier_key])
    with pytest.raises(CryptoError):
        verify_report(made.report.encode(), checkpoint.note, [made.verifier_key])
    other = "other/audit" + made.verifier_key[made.verifier_key.index("+") :]
    with pytest.raises(CryptoError):
        verify_report(made.report.encode(), made.note, [other])


def report_of(system: Client) -> dict[str, Any]:
    evidence: dict[str, Any] = json.loads(system.compliance_report("pci-dss-4.0.1", days=1).report)[
        "evidence"
    ]
    return evidence


def test_what_is_wrong_needs_attention(fresh_site: VaultSite) -> None:
    from tests.integration.wire import Books

    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        evidence = report_of(system)
        assert evidence["threats"]["verdict"] == evidence["verification"]["verdict"] == "holds"
        assert "files of the configuration" in evidence["policy"]["note"]
    books = Books(fresh_site)
    books.rows("UPDATE keys SET created_by = 'nobody' WHERE tenant = 'acme' AND purpose = 'kek'")
    long_ago = "create_time - interval '3 years'"
    books.rows(f"UPDATE keys SET create_time = {long_ago} WHERE tenant = 'system' AND purpose = 'token'")
    books.close()
    with fresh_site.client() as client:
        client.put("acme/trap", {"value": "x"}, kind="generic", labels={"canary": "true"})
        client.reveal("acme/trap", purpose="test")[0].close()
    with fresh_site.system() as system:
        until(lambda: system.audit_records(action="threat.find"))
        evidence = report_of(system)
    assert evidence["verification"]["verdict"] == "attention"
    assert any("keys:acme/kek/1" in row[1] for row in evidence["verification"]["rows"])
    assert evidence["sinks"]["verdict"] == "attention"
    assert evidence["key_ages"]["verdict"] == evidence["keys"]["verdict"] == "attention"
    assert evidence["threats"]["verdict"] == "attention"
    assert [row[3] for row in evidence["threats"]["rows"]] == ["threat.find"]


def test_the_page_escapes_whatever_a_caller_could_write() -> None:
    report = {
        "standard": {"id": "x", "title": "<b>x</b>", "about": ""},
        "created": "now", "since": "then", "requested_by": "<script>alert(1)</script>",
        "log": {"size": 1, "root": "", "checkpoint": "", "damaged": False},
        "requirements": [],
        "evidence": {
            "keys": {
                "title": "a", "columns": ["x"], "rows": [['"><img src=x onerror=alert(1)>']], "verdict": "holds",
                "note": "",
            }
        },
    }  # fmt: skip
    shown = read(page(json.dumps(report), "<!-- note"))
    assert "<script>alert(1)</script>" in shown.text
    assert "<!-- note" in shown.text
