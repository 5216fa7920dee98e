"""Whose certificates are accepted: the CAs trusted here, and what they have revoked (RFC 5280).

gRPC holds a certificate against the CAs once, when a connection is made. The connection may last; so at every call the
certificate is held against the CAs and revocation lists that are in force then (`identity.py`, which remembers the
judgement until they change).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_PATH = 4
_END = b"-----END X509 CRL-----"
_SKEW = datetime.timedelta(seconds=60)


class TrustError(Exception):
    """CAs or lists that cannot be used: what is wrong with them, in a few words."""


@dataclass(frozen=True, eq=False)
class RevocationList:
    """A certificate revocation list whose signature was checked."""

    issuer: x509.Name
    crl: x509.CertificateRevocationList = field(repr=False)
    serials: frozenset[int] = field(repr=False)
    issue_time: datetime.datetime
    next_update: datetime.datetime


@dataclass(frozen=True, eq=False)
class Trust:
    """The CAs and revocation lists of one moment."""

    anchors: tuple[x509.Certificate, ...]
    lists: tuple[RevocationList, ...] | None
    """None: revocation is not asked for."""
    grace: datetime.timedelta
    """How long past its time a list may be used."""

    def judge(self, leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> datetime.datetime:
        """Until when a certificate is good, as far as those say who issued it. `others` is what was sent with it.

        Raises `CERTIFICATE_REJECTED` if no CA trusted here issued it, if it or a CA between is revoked, or if the list
        that would tell is not at hand.
        """
        certificate = leaf
        until = leaf.not_valid_after_utc
        for _ in range(_MAX_PATH):
            anchor = _issuer(certificate, self.anchors)
            issuer = anchor or _issuer(certificate, others)
            if issuer is None:
                break
            until = min(until, issuer.not_valid_after_utc)
            if self.lists is not None:
                until = min(until, self._listed(certificate, issuer))
            if anchor is not None:
                return until
            certificate = issuer
        raise rejected("the client certificate is not of a CA that is trusted here")

    def _listed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> datetime.datetime:
        for one in self.lists or ():
            if one.issuer == issuer.subject and _signed(one.crl, issuer):
                if certificate.serial_number in one.serials:
                    raise rejected("the client certificate is revoked")
                return one.next_update + self.grace
        raise rejected("no revocation list of the client certificate's CA is at hand")


def load_anchors(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The CAs in a PEM file. Raises `TrustError`."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise TrustError("holds no PEM certificate") from None


def load_lists(
    pem: bytes, anchors: Sequence[x509.Certificate], now: datetime.datetime
) -> tuple[RevocationList, ...]:
    """The lists in a PEM file. Raises `TrustError` for a file that must not come into force.

    At least one must be by a CA trusted here. Full lists only: what a critical extension says (a delta, an indirect or
    a partial list) is not understood, so such a list is refused.
    """
    parts = [part.strip() + b"\n" + _END + b"\n" for part in pem.split(_END)[:-1]]
    if not parts:
        raise TrustError("holds no PEM revocation list")
    lists = tuple(_load_list(part, now) for part in parts)
    if not any(_signed(one.crl, anchor) for one in lists for anchor in anchors):
        raise TrustError("holds no revocation list of a CA of tls.client_ca_file")
    return lists


def _load_list(pem: bytes, now: datetime.datetime) -> RevocationList:
    try:
        crl = x509.load_pem_x509_crl(pem)
        critical = any(extension.critical for extension in crl.extensions)
        odd = any(extension.critical for entry in crl for extension in entry.extensions)
        serials = frozenset(entry.serial_number for entry in crl)
    except ValueError:
        raise TrustError("holds a malformed revocation list") from None
    if critical or odd:
        raise TrustError("holds a revocation list with a critical extension")
    if crl.next_update_utc is None:
        raise TrustError("holds a revocation list that does not say when the next is due")
    if crl.last_update_utc > now + _SKEW:
        raise TrustError("holds a revocation list from the future")
    return RevocationList(crl.issuer, crl, serials, crl.last_update_utc, crl.next_update_utc)


def _issuer(certificate: x509.Certificate, among: Sequence[x509.Certificate]) -> x509.Certificate | None:
    for candidate in among:
        if candidate.subject != certificate.issuer or not _is_ca(candidate):
            continue
        try:
            certificate.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return candidate
    return None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if crl.issuer != issuer.subject:
        return False
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # a CA's key can sign
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def rejected(rule: str) -> VaultError:
    """The refusal of a client certificate: it names the rule, and never repeats what the certificate says."""
    return VaultError(Reason.CERTIFICATE_REJECTED, rule)
