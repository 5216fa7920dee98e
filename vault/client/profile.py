"""Who a client is and where its vault is: one TOML file, without a secret in it."""

from __future__ import annotations

import base64
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class ProfileError(Exception):
    """The profile cannot be used: one line that says what is wrong."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_KINDS: dict[str, Callable[[object], bool]] = {
    "scopes": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "token_seconds": lambda value: type(value) is int,
}


@dataclass(frozen=True)
class Profile:
    """Where the vault is, which certificate to show, and what to ask for.

    `server` is `host:port`. The files are PEM. `tenant` and `scopes` are what the client's tokens shall be
    for; `token_seconds` is how long each shall live.
    """

    server: str
    ca_file: Path
    certificate_file: Path
    private_key_file: Path
    tenant: str
    scopes: tuple[str, ...]
    token_seconds: int = 3600
    device_id: str = ""

    @classmethod
    def load(cls, file: str | Path) -> Profile:
        """Read a profile. Relative paths in it are relative to its folder. Raises `ProfileError`."""
        path = Path(file)
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ProfileError(f"cannot read the profile {path}: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(f"cannot read the profile {path}: {error}") from None
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ProfileError(f"{path}: unknown key {min(unknown)}")
        for name, value in values.items():
            if not _KINDS.get(name, _is_text)(value):
                raise ProfileError(f"{path}: {name}: not of the right type")
        for name in ("ca_file", "certificate_file", "private_key_file"):
            if name in values:
                values[name] = path.resolve().parent / values[name]
        values["scopes"] = tuple(values.get("scopes", ()))
        try:
            return cls(**values)
        except TypeError:
            missing = {"server", "ca_file", "certificate_file", "private_key_file", "tenant"} - set(values)
            raise ProfileError(f"{path}: missing {', '.join(sorted(missing))}") from None

    def private_key(self) -> PrivateKeyTypes:
        """The private key of this profile's certificate. Raises `ProfileError`."""
        try:
            return serialization.load_pem_private_key(self.private_key_file.read_bytes(), None)
        except OSError as error:
            raise ProfileError(f"cannot read {error.filename}: {error.strerror}") from None
        except (ValueError, TypeError):
            raise ProfileError(f"{self.private_key_file}: not an unencrypted PEM private key") from None

    def thumbprint(self) -> str:
        """The SHA-256 thumbprint of this profile's certificate, as tokens are bound to it (RFC 8705).

        Raises `ProfileError`.
        """
        return _thumbprint(self.certificate())

    def certificate(self) -> x509.Certificate:
        """The certificate to show. Raises `ProfileError`."""
        return _certificate(self.certificate_file)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Mutual TLS with this profile's certificate. Raises `ProfileError`.

        What gRPC would only call a failed handshake is found here: files that are no PEM, a key of another certificate.
        """
        _certificate(self.ca_file)
        if self.private_key().public_key() != self.certificate().public_key():
            raise ProfileError(f"{self.private_key_file}: not the key of {self.certificate_file}")
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca_file.read_bytes(),
                private_key=self.private_key_file.read_bytes(),
                certificate_chain=self.certificate_file.read_bytes(),
            )
        except OSError as error:
            raise ProfileError(f"cannot read {error.filename}: {error.strerror}") from None


class Shown:
    """What a client shows and trusts on its connection: its profile's files, as they were when they last fitted."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._seen = self._contents()
        self.credentials = profile.channel_credentials()

    def renewed(self) -> bool:
        """Whether the files hold something new since, so that another connection is needed.

        What does not fit together yet, being written just now, is left for the next time.
        """
        try:
            seen = self._contents()
            if seen == self._seen:
                return False
            self.credentials = self._profile.channel_credentials()
        except (OSError, ProfileError):
            return False
        self._seen = seen
        return True

    def _contents(self) -> tuple[bytes, ...]:
        profile = self._profile
        return tuple(
            file.read_bytes() if file.exists() else b""
            for file in (profile.ca_file, profile.certificate_file)
        )


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise ProfileError(f"cannot read {error.filename}: {error.strerror}") from None
    except ValueError:
        raise ProfileError(f"{file}: not a PEM certificate") from None


def thumbprint(pem: bytes) -> str:
    """The SHA-256 thumbprint of a certificate, base64url without padding. Raises `ValueError`."""
    return _thumbprint(x509.load_pem_x509_certificate(pem))


def _thumbprint(certificate: x509.Certificate) -> str:
    return base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
