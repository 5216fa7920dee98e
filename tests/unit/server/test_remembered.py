"""Certificates that are remembered: a bounded number, and those that are in use last."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from vault.cli.pki import ensure_pki
from vault.clock import SystemClock
from vault.server import identity
from vault.server.trust import Trust, load_anchors

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NAMES = ("busy", "held", "third", "fourth")


def test_a_certificate_that_is_in_use_is_not_forgotten_for_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_CACHED", 2)
    ensure_pki(tmp_path, {name: f"spiffe://bank.example/{name}" for name in NAMES})
    trust = Trust(load_anchors((tmp_path / "ca.pem").read_bytes()), None, datetime.timedelta(0))
    identities = identity.Identities(["bank.example"], lambda: trust, SystemClock())
    shown = {
        name: {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [(tmp_path / f"{name}.pem").read_bytes()]}
        for name in NAMES
    }
    busy = identities.accept(shown["busy"])
    held = identities.accept(shown["held"])
    identities.accept(shown["busy"])
    identities.recheck(held)
    identities.recheck(busy)
    identities.accept(shown["third"])
    identities.recheck(busy)  # a session on it lasts
    identities.accept(shown["fourth"])
    identities.recheck(busy)
