"""Certificates that are fields of credentials: when a chain ends, and what is none."""

from __future__ import annotations

import base64
import contextlib
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.certificates import self_signed
from vault.crypto import certificates
from vault.crypto.errors import FormatError

PEM = self_signed(ec.generate_private_key(ec.SECP256R1()), "acme")
DER = x509.load_pem_x509_certificate(PEM).public_bytes(Encoding.DER)
VERSION_3, VERSION_6 = bytes.fromhex("a003020102"), bytes.fromhex("a003020105")


def armoured(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def test_a_chain_ends_with_the_first_of_its_certificates() -> None:
    later = self_signed(ec.generate_private_key(ec.SECP256R1()), "ca", datetime.timedelta(days=9))
    expected = x509.load_pem_x509_certificate(PEM).not_valid_after_utc
    for chain in (PEM, PEM + later, bytearray(later + PEM), memoryview(later + PEM)):
        assert certificates.expire_time(chain) == expected


@pytest.mark.parametrize(
    "chain",
    [
        b"",
        b"no PEM",
        armoured(b"\x00"),
        armoured(DER[:-1]),
        armoured(DER.replace(VERSION_3, VERSION_6)),
        PEM + armoured(DER[1:]),
    ],
)
def test_what_is_no_certificate_is_refused(chain: bytes) -> None:
    with pytest.raises(FormatError):
        certificates.expire_time(chain)


@pytest.mark.parametrize("chain", [PEM, PEM + armoured(b"\x00")])
def test_the_copy_that_is_read_is_wiped_and_the_callers_is_not(
    chain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have left a private key among the certificates."""
    kept = bytearray(chain)
    read: list[bytes] = []
    load = x509.load_pem_x509_certificates

    def loaded(pem: bytes) -> list[x509.Certificate]:
        assert pem == kept
        read.append(pem)
        return load(pem)

    monkeypatch.setattr(x509, "load_pem_x509_certificates", loaded)
    with contextlib.suppress(FormatError):
        certificates.expire_time(chain)
    assert read == [bytes(len(kept))]
    assert chain == kept
