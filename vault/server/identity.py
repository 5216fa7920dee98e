"""Who calls: the client certificate, held against one strict profile at every call.

gRPC's own view of the certificate merges all kinds of names and falls back to the CN, accepts weak keys and
outlives the certificate. So it is parsed here (remembered by digest), and at every call its validity is checked anew,
and that a CA trusted now issued it and has not revoked it (`trust.py`; remembered until the files change).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from vault.errors import VaultError
from vault.model import Certificate
from vault.server.trust import rejected

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vault.clock import Clock
    from vault.server.trust import Trust

_CACHED = 10_000
_MIN_RSA_BITS = 3072
_MAX_RSA_BITS = 8192
_MAX_IDENTITY = 255
_MAX_PEM = 16_384
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SPIFFE = re.compile(
    rf"spiffe://(?P<domain>{_LABEL}(?:\.{_LABEL})*)(?:/[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*)+"
)
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


@dataclass(slots=True)
class _Known:
    """A certificate that meets the profile, and what the trust of one moment says of it."""

    digest: bytes
    certificate: Certificate
    parsed: x509.Certificate
    others: tuple[x509.Certificate, ...]
    judged_by: Trust | None = None
    good_until: datetime.datetime | None = None


class Identities:
    """Accepts or refuses client certificates. `trust` gives the CAs and revocation lists that are in force."""

    def __init__(self, trust_domains: Sequence[str], trust: Callable[[], Trust], clock: Clock) -> None:
        self._trust_domains = frozenset(trust_domains)
        self._trust = trust
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._by_thumbprint: dict[str, _Known] = {}

    def accept(self, auth_context: Mapping[str, Iterable[bytes]]) -> Certificate:
        """The certificate of a connection. Raises `CERTIFICATE_REJECTED`."""
        if list(auth_context.get("ssl_tls_version", ())) != [b"TLSv1.3"]:
            raise rejected("the connection is not TLS 1.3")
        pems = list(auth_context.get("x509_pem_cert", ()))
        if len(pems) != 1 or len(pems[0]) > _MAX_PEM:
            raise rejected("exactly one client certificate is needed")
        digest = hashlib.sha256(pems[0]).digest()
        known = self._known.get(digest)
        if known is None:
            certificate = parse(pems[0], self._trust_domains)
            known = _Known(
                digest, certificate, x509.load_pem_x509_certificate(pems[0]), _others(auth_context)
            )
            self._remember(known)
        self._known.move_to_end(digest)
        try:
            self._judge(known)
        except VaultError:
            # It may come with others than when it was seen first: a CA between has a new certificate.
            others = _others(auth_context)
            if others == known.others:
                raise
            known.others, known.judged_by = others, None
            self._judge(known)
        return known.certificate

    def recheck(self, certificate: Certificate) -> None:
        """Hold a certificate that was accepted before against what is in force now. Raises `CERTIFICATE_REJECTED`."""
        known = self._by_thumbprint.get(certificate.thumbprint)
        if known is None:
            raise rejected("the client certificate was not seen of late")
        # It is in use: a session or watch on it must not end because others came.
        self._known.move_to_end(known.digest)
        self._judge(known)

    def _judge(self, known: _Known) -> None:
        certificate, trust, now = known.certificate, self._trust(), self._clock.now()
        if not certificate.not_before <= now < certificate.not_after:
            raise rejected("the client certificate is not valid at this time")
        if known.judged_by is not trust or known.good_until is None:
            known.good_until = trust.judge(known.parsed, known.others)
            known.judged_by = trust
        if now >= known.good_until:
            raise rejected("the revocation list of the client certificate's CA, or that CA, is out of date")

    def _remember(self, known: _Known) -> None:
        self._known[known.digest] = known
        self._by_thumbprint[known.certificate.thumbprint] = known
        if len(self._known) > _CACHED:
            _, oldest = self._known.popitem(last=False)
            if self._by_thumbprint.get(oldest.certificate.thumbprint) is oldest:
                del self._by_thumbprint[oldest.certificate.thumbprint]


def _others(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[x509.Certificate, ...]:
    """What a client sent with its certificate."""
    chain = b"".join(auth_context.get("x509_pem_cert_chain", ()))
    if len(chain) > _MAX_PEM:
        raise rejected("the client certificate is malformed")
    try:
        return tuple(x509.load_pem_x509_certificates(chain)) if chain else ()
    except ValueError:
        raise rejected("the client certificate is malformed") from None


def parse(pem: bytes, trust_domains: frozenset[str]) -> Certificate:
    """Hold a certificate against the profile: one name, clientAuth, no CA, a strong key.

    Raises `CERTIFICATE_REJECTED`, whose text names the rule and never repeats what the certificate says.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        identity = _identity(certificate, trust_domains)
        _check_usage(certificate)
        _check_key(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise rejected("the client certificate is malformed") from None
    thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
    return Certificate(
        identity=identity,
        thumbprint=thumbprint,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        der=certificate.public_bytes(serialization.Encoding.DER),
    )


def _identity(certificate: x509.Certificate, trust_domains: frozenset[str]) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise rejected("the client certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    if len(uris) == 1:
        matched = _SPIFFE.fullmatch(uris[0]) if len(uris[0]) <= _MAX_IDENTITY else None
        if matched is None or matched["domain"] not in trust_domains:
            raise rejected("its URI is not a SPIFFE ID of a trust domain that is accepted here")
        return uris[0]
    if not uris and len(dns) == 1:
        if len(dns[0]) > _MAX_IDENTITY or not _DNS.fullmatch(dns[0]):
            raise rejected("its DNS name is not a plain lower-case host name")
        return dns[0]
    raise rejected("exactly one URI, or exactly one DNS name, must name the client")


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise rejected("the client certificate has no extended key usage") from None
    if x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise rejected("the client certificate is not for client authentication")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return
    if constraints.ca:
        raise rejected("a CA's certificate cannot be a client's")


def _check_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    good = (
        isinstance(key, ed25519.Ed25519PublicKey)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1))
        or (isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS)
    )
    if not good:
        raise rejected("its key must be P-256, P-384, Ed25519 or RSA of 3072 to 8192 bits")
    weak = certificate.signature_hash_algorithm
    if weak is not None and not isinstance(weak, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise rejected("its signature must be by SHA-256 or better")
