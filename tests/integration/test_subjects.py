"""Credentials of data subjects, from the client: nothing changes for callers, and whose data it is stays as it was."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from vault.client import StrongroomError

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


def test_the_data_of_a_subject_is_put_revealed_and_rotated_like_any_other(site: VaultSite) -> None:
    name = f"acme/subjects/{secrets.token_hex(4)}"
    with site.client() as vault, site.operator() as operator:
        first = vault.put(name, {"key": "one"}, kind="generic", subject="customer 42")
        assert len(first.subject_id) == 22
        operator.rotate_key("acme")
        second = vault.put(name, {"key": "two"}, kind="generic")
        assert (second.latest_version, second.subject_id) == (2, first.subject_id)
        with vault.reveal(name, purpose="test")[0] as found:
            assert found.text("key") == "two"
        with vault.session(name, purpose="test") as session, session.reveal() as found:
            assert found.text("key") == "two"
        other = vault.put(f"{name}-2", {"key": "x"}, kind="generic", subject="customer 42")
        assert other.subject_id == first.subject_id


def test_whose_data_a_credential_is_cannot_be_changed(site: VaultSite) -> None:
    name = f"acme/subjects/{secrets.token_hex(4)}"
    with site.client() as vault:
        vault.put(name, {"key": "one"}, kind="generic", subject="customer 1")
        vault.put(f"{name}-free", {"key": "one"}, kind="generic")
        for changed in (name, f"{name}-free"):
            with pytest.raises(StrongroomError) as refused:
                vault.put(changed, {"key": "two"}, kind="generic", subject="customer 2")
            assert (refused.value.reason, refused.value.metadata["field"]) == ("FIELD_INVALID", "subject")
