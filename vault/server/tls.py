"""The server's half of mutual TLS: TLS 1.3 only, a client certificate required.

gRPC has no switch for the version. Two guards stand in for it: `worker.CIPHER_SUITES`, put into the environment
before gRPC is loaded, leaves TLS 1.2 no cipher that fits an elliptic-curve key, so an RSA key is refused here;
and `identity.py` looks at the version of every connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vault.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

    from vault.config import Tls


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """The server's credentials. Raises `StartError` for files that are missing or do not belong together."""
    certificate = _read(tls.certificate_file, "tls.certificate_file")
    private_key = _read(tls.private_key_file, "tls.private_key_file")
    client_ca = _read(tls.client_ca_file, "tls.client_ca_file")
    _check_pair(certificate, private_key)
    try:
        x509.load_pem_x509_certificates(client_ca)
    except ValueError:
        raise StartError("tls.client_ca_file: holds no PEM certificate") from None
    return grpc.ssl_server_credentials(
        [(private_key, certificate)], root_certificates=client_ca, require_client_auth=True
    )


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


def _read(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"{key}: cannot read {file}: {error.strerror or type(error).__name__}") from None
