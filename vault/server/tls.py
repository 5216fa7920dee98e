"""The server's half of mutual TLS: TLS 1.3 only, a client certificate required.

gRPC has no switch for the version. Two guards stand in for it: `worker.CIPHER_SUITES`, put into the environment
before gRPC is loaded, leaves TLS 1.2 no cipher that fits an elliptic-curve key, so an RSA key is refused here;
and `identity.py` looks at the version of every connection.

The files are read again when they change. What is then in force is whole and right, or what was in force before: a
file that cannot be used changes nothing, and is told of in the log.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vault.config import seconds
from vault.errors import StartError
from vault.server.trust import Trust, TrustError, load_anchors, load_lists

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable
    from pathlib import Path

    from vault.clock import Clock
    from vault.config import Tls
    from vault.server.trust import RevocationList

log = logging.getLogger("strongroom.tls")

LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class _Material:
    """What the files held at one moment, checked."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes
    trust: Trust


class TlsFiles:
    """What is in force of the files of `[tls]`."""

    def __init__(self, tls: Tls, clock: Clock) -> None:
        """Read the files. Raises `StartError` for what is missing or does not belong together."""
        self._tls = tls
        self._clock = clock
        self._seen = self._stamp()
        self._material = self._read(())
        self._served = self._material

    @property
    def trust(self) -> Trust:
        """The CAs and revocation lists in force."""
        return self._material.trust

    def ends(self) -> dict[str, datetime.datetime]:
        """When the certificates in force end: the server's own, and the first of the clients' CAs."""
        own = x509.load_pem_x509_certificate(self._material.certificate)
        return {
            "server": own.not_valid_after_utc,
            "client_ca": min(one.not_valid_after_utc for one in self.trust.anchors),
        }

    def credentials(self) -> grpc.ServerCredentials:
        """The server's credentials. Each new connection is made with what is then in force."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._material),
            self._fetch,  # type: ignore[arg-type]  # the stubs forget None: nothing has changed
            require_client_authentication=True,
        )

    async def run(self, changed: Callable[[], None]) -> None:
        """Read the files again whenever they change, until cancelled. `changed` is called after every look."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stamp = self._stamp()
            if stamp != self._seen:
                try:
                    self._material = await asyncio.to_thread(self._read, self.trust.lists or ())
                except StartError as error:
                    # Half-written perhaps; or wrong, and then it is said once for each change.
                    log.warning("the TLS files cannot be used; the old stay", extra={"why": str(error)})
                else:
                    log.info("the TLS files were read again")
                self._seen = stamp
            changed()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._material
        if material is self._served:
            return None
        self._served = material
        return _configuration(material)

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells that a file was written anew."""
        return tuple(_stamp(file) for file in self._files())

    def _files(self) -> tuple[Path, ...]:
        tls = self._tls
        files = (tls.certificate_file, tls.private_key_file, tls.client_ca_file)
        return files if tls.client_crl_file is None else (*files, tls.client_crl_file)

    def _read(self, before: tuple[RevocationList, ...]) -> _Material:
        tls = self._tls
        certificate = _read_file(tls.certificate_file, "tls.certificate_file")
        private_key = _read_file(tls.private_key_file, "tls.private_key_file")
        client_ca = _read_file(tls.client_ca_file, "tls.client_ca_file")
        _check_pair(certificate, private_key)
        try:
            anchors = load_anchors(client_ca)
        except TrustError as error:
            raise StartError(f"tls.client_ca_file: {error}") from None
        lists = None
        if tls.client_crl_file is not None:
            pem = _read_file(tls.client_crl_file, "tls.client_crl_file")
            try:
                lists = load_lists(pem, anchors, self._clock.now())
            except TrustError as error:
                raise StartError(f"tls.client_crl_file: {error}") from None
            if any(_older(new, old) for new in lists for old in before):
                raise StartError("tls.client_crl_file: holds an older revocation list than the one in force")
        return _Material(
            certificate, private_key, client_ca, Trust(anchors, lists, seconds(tls.crl_grace_seconds))
        )


def _older(new: RevocationList, old: RevocationList) -> bool:
    return new.issuer == old.issuer and new.issue_time < old.issue_time


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.private_key, material.certificate)], root_certificates=material.client_ca
    )


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _check_pair(certificate: bytes, private_key: bytes) -> None:
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise StartError("tls.certificate_file: holds no PEM certificate") from None
    try:
        key = serialization.load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError("tls.private_key_file: holds no unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise StartError("tls.private_key_file: must be an elliptic-curve key (P-256 or P-384)")
    if leaf.public_key() != key.public_key():
        raise StartError("tls: the certificate and the private key do not match")


def _read_file(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"{key}: cannot read {file}: {error.strerror or type(error).__name__}") from None


def certificate_der(file: Path, key: str) -> bytes:
    """A certificate from its PEM file, as DER. Raises `StartError` that names the configuration's key."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        raise StartError(f"{key}: {file} is no certificate in PEM") from None
    return certificate.public_bytes(serialization.Encoding.DER)
