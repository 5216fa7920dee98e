"""Who calls: the client certificate, held against one strict profile at every call.

gRPC's own view of the certificate merges all kinds of names and falls back to the CN, accepts weak keys and
outlives the certificate. So it is parsed here (remembered by digest), and its validity is checked anew each
time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from vault.errors import Reason, VaultError
from vault.model import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vault.clock import Clock

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


class Identities:
    """Accepts or refuses client certificates."""

    def __init__(self, trust_domains: Sequence[str], clock: Clock) -> None:
        self._trust_domains = frozenset(trust_domains)
        self._clock = clock
        self._known: OrderedDict[bytes, Certificate] = OrderedDict()

    def accept(self, auth_context: Mapping[str, Iterable[bytes]]) -> Certificate:
        """The certificate of a connection. Raises `CERTIFICATE_REJECTED`."""
        if list(auth_context.get("ssl_tls_version", ())) != [b"TLSv1.3"]:
            raise _rejected("the connection is not TLS 1.3")
        pems = list(auth_context.get("x509_pem_cert", ()))
        if len(pems) != 1 or len(pems[0]) > _MAX_PEM:
            raise _rejected("exactly one client certificate is needed")
        digest = hashlib.sha256(pems[0]).digest()
        certificate = self._known.get(digest)
        if certificate is None:
            certificate = parse(pems[0], self._trust_domains)
            self._known[digest] = certificate
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        if not certificate.not_before <= self._clock.now() < certificate.not_after:
            raise _rejected("the client certificate is not valid at this time")
        return certificate


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
        raise _rejected("the client certificate is malformed") from None
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
        raise _rejected("the client certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    if len(uris) == 1:
        matched = _SPIFFE.fullmatch(uris[0]) if len(uris[0]) <= _MAX_IDENTITY else None
        if matched is None or matched["domain"] not in trust_domains:
            raise _rejected("its URI is not a SPIFFE ID of a trust domain that is accepted here")
        return uris[0]
    if not uris and len(dns) == 1:
        if len(dns[0]) > _MAX_IDENTITY or not _DNS.fullmatch(dns[0]):
            raise _rejected("its DNS name is not a plain lower-case host name")
        return dns[0]
    raise _rejected("exactly one URI, or exactly one DNS name, must name the client")


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise _rejected("the client certificate has no extended key usage") from None
    if x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise _rejected("the client certificate is not for client authentication")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return
    if constraints.ca:
        raise _rejected("a CA's certificate cannot be a client's")


def _check_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    good = (
        isinstance(key, ed25519.Ed25519PublicKey)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1))
        or (isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS)
    )
    if not good:
        raise _rejected("its key must be P-256, P-384, Ed25519 or RSA of 3072 to 8192 bits")
    weak = certificate.signature_hash_algorithm
    if weak is not None and not isinstance(weak, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise _rejected("its signature must be by SHA-256 or better")


def _rejected(rule: str) -> VaultError:
    return VaultError(Reason.CERTIFICATE_REJECTED, rule)
