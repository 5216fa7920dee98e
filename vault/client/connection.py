"""Why no connection came about. gRPC says little of it, so one handshake is made and looked at.

What is found has a reason of the SDK's own (docs/errors.md) and, like everything that never reached a vault, the code
UNAVAILABLE. The texts name files, addresses and times, and nothing of what is in a file.
"""

from __future__ import annotations

import datetime
import re
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

import grpc

from vault.client.errors import UNREACHABLE, StrongroomError
from vault.client.profile import ProfileError

if TYPE_CHECKING:
    from vault.client.profile import Profile

_SECONDS = 3.0
_DEFAULT_PORT = 443
_NAMES_DIFFER = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


class _Finding(NamedTuple):
    reason: str
    message: str


def explain(profile: Profile, failure: StrongroomError, *, heard: bool = False) -> StrongroomError:
    """The failure, with what is wrong with the connection if that is what failed. Blocks for seconds at most.

    `heard`: the vault has answered this client before. If so, a call that took too long says nothing of the connection,
    and a vault with too much to do is spared a handshake.
    """
    late = failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not heard
    if failure.reason != UNREACHABLE and not late:
        return failure
    address = _address(profile.server)
    found = address and _look(profile, *address, datetime.datetime.now(datetime.UTC))
    return StrongroomError(grpc.StatusCode.UNAVAILABLE, *found, {}) if found else failure


def _address(server: str) -> tuple[str, int] | None:
    """The host and port that gRPC takes from a profile's `server`; None for forms of its own (`unix:` and the like)."""
    match = re.fullmatch(r"(?:dns:///?)?(\[[0-9A-Fa-f:.%]+\]|[^:/\[\]]+)(?::(\d{1,5}))?", server)
    return (match[1].strip("[]"), int(match[2] or _DEFAULT_PORT)) if match else None


def _look(profile: Profile, host: str, port: int, now: datetime.datetime) -> _Finding | None:
    """What is wrong; None if a handshake succeeds now, or fails in a way that tells no more than gRPC does."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as plain:
            return _handshake(profile, plain, host, where, now)
    except socket.gaierror as error:
        return _Finding(UNREACHABLE, f"the name {host} is not found ({error.strerror})")
    except TimeoutError:
        return _Finding(UNREACHABLE, f"{where} does not answer within {_SECONDS:.0f} s")
    except ConnectionRefusedError:
        return _Finding(UNREACHABLE, f"nothing listens at {where}")
    except ConnectionError:
        return _Finding(UNREACHABLE, f"{where} ends the connection at once")
    except (ProfileError, OSError, OverflowError):
        return None


def _handshake(
    profile: Profile, plain: socket.socket, host: str, where: str, now: datetime.datetime
) -> _Finding | None:
    try:
        connection = _context(profile).wrap_socket(plain, server_hostname=host)
    except TimeoutError:
        return _Finding(UNREACHABLE, f"{where} takes connections, but says nothing within {_SECONDS:.0f} s")
    except ssl.SSLError as error:
        return _broken(error, profile, where)
    with connection:
        if connection.selected_alpn_protocol() != "h2":
            return _Finding("NOT_A_VAULT", f"what listens at {where} speaks TLS, but not gRPC")
        return None if _is_let_in(connection) else _own_certificate(profile, where, now)


def _broken(error: ssl.SSLError, profile: Profile, where: str) -> _Finding:
    """Why a handshake did not come to its end."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = error.verify_message.rstrip(".")
        if error.verify_code in _NAMES_DIFFER:
            return _Finding("SERVER_NAME_MISMATCH", f"the certificate shown at {where} is for others: {what}")
        text = f"the certificate shown at {where} does not hold by {profile.ca_file}: {what}"
        return _Finding("SERVER_UNTRUSTED", text)
    if error.reason in _NO_TLS:
        return _Finding("NOT_A_VAULT", f"what listens at {where} does not speak TLS")
    return _Finding(UNREACHABLE, f"the TLS handshake with {where} fails: {error.reason}")


def _context(profile: Profile) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(profile.ca_file)
    # A password, lest OpenSSL asks at the terminal for that of a key which is encrypted now.
    context.load_cert_chain(profile.certificate_file, profile.private_key_file, password="")
    context.set_alpn_protocols(["h2"])
    return context


def _is_let_in(connection: ssl.SSLSocket) -> bool:
    """Whether the server goes on once it has seen our certificate: then it speaks first (RFC 9113, section 3.4)."""
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def _own_certificate(profile: Profile, where: str, now: datetime.datetime) -> _Finding:
    """Why a server would not take our certificate."""
    file, certificate = profile.certificate_file, profile.certificate()
    if now > (end := certificate.not_valid_after_utc):
        return _Finding(
            "CERTIFICATE_EXPIRED", f"the client certificate {file} expired at {end:%Y-%m-%dT%H:%M:%SZ}"
        )
    if now < (begin := certificate.not_valid_before_utc):
        return _Finding(
            "CERTIFICATE_NOT_YET_VALID",
            f"the client certificate {file} holds from {begin:%Y-%m-%dT%H:%M:%SZ} only",
        )
    return _Finding(
        "CERTIFICATE_REJECTED", f"{where} ends the connection when it sees the client certificate {file}"
    )
