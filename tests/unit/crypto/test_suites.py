from __future__ import annotations

import dataclasses

import pytest

from vault.crypto import suites
from vault.crypto.errors import UnknownSuite
from vault.crypto.suites import SuiteStatus


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [
        (1, "AES-256-GCM-HKDF-SHA256-COMMIT", SuiteStatus.CURRENT),
        (2, "CHACHA20-POLY1305-HKDF-SHA256-COMMIT", SuiteStatus.ACCEPTED),
    ],
)
def test_a_number_means_one_suite_for_ever(number, name, status):
    suite = suites.suite(number)
    assert (suite.number, suite.name, suite.status) == (number, name, status)
    assert suites.by_name(name) is suite
    assert (suite.nonce_bytes, suite.tag_bytes) == (12, 16)


def test_the_current_suite_is_the_committing_aes_gcm():
    assert suites.current() is suites.suite(1)


@pytest.mark.parametrize("number", [0, -1, 3, 65_535, 65_536])
def test_an_unknown_number_is_refused(number):
    with pytest.raises(UnknownSuite):
        suites.suite(number)


@pytest.mark.parametrize("name", ["", "aes-256-gcm-hkdf-sha256-commit", "AES-256-GCM", "none"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownSuite):
        suites.by_name(name)


def test_a_suite_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        suites.current().status = SuiteStatus.RETIRED
