"""Backends by URI: `pkcs11:` as RFC 7512 has it, `transit:` in the same spirit.

    pkcs11:serial=9f3c2b1a;token=vault?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin
    transit://vault.example:8200/transit?auth=token&token-source=credential:vault-token

What is not known is refused: a misspelt attribute would otherwise select another token than was meant.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urlsplit

from hsm.model import IvMode, WrapScheme
from hsm.secretfile import SecretSource, SecretSourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATH: Final = frozenset({"token", "serial", "manufacturer", "model"})
_TRANSIT: Final = frozenset(
    {
        *("auth", "auth-mount", "token-source", "role", "role-id", "secret-id-source", "jwt-source"),
        *("client-cert", "client-key", "ca-file", "namespace", "timeout", "plaintext-http"),
    }
)
_QUERY: Final = frozenset(
    {"module-path", "pin-source", "x-iv-mode", "x-wrap-scheme", "x-init-string", "x-isolation"}
)


class UriError(ValueError):
    """The URI does not name a backend. The text says which part of it is wrong."""


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """Which token, in which module, and where its PIN comes from.

    The token is the only one that matches every attribute given (`serial` is best: labels are not
    unique). `iv_mode` (`x-iv-mode`) and `wrap_scheme` (`x-wrap-scheme`) override what the backend would
    choose by trying; `init_string` (`x-init-string`) is passed to the module in `pReserved`, which some
    modules want. `isolated` (`x-isolation=process`) asks for the module to live in a process of its own.
    """

    module_path: str
    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    pin_source: SecretSource | None = None
    iv_mode: IvMode | None = None
    wrap_scheme: WrapScheme | None = None
    init_string: str | None = None
    isolated: bool = False


class TransitAuth(enum.StrEnum):
    """How to log in to the server."""

    TOKEN = "token"  # noqa: S105 - the name of a method
    APPROLE = "approle"
    KUBERNETES = "kubernetes"
    CERT = "cert"


@dataclass(frozen=True, slots=True)
class TransitUri:
    """Which server and mount (of Transit, or of KV), and how to log in.

    `auth=token` reads `token-source`; `approle` takes `role-id` and `secret-id-source`; `kubernetes` takes
    `role` and `jwt-source` (the pod's own token by default); `cert` takes `client-cert` and `client-key`; the
    certificate needs a common name, as the server knows it by that. `timeout` is in seconds.
    `plaintext-http=yes` is for tests on one machine.
    """

    address: str
    mount: str
    auth: TransitAuth
    auth_mount: str
    source: SecretSource | None
    role: str
    client_cert: str | None
    client_key: str | None
    ca_file: str | None
    namespace: str | None
    timeout: float


def scheme_of(uri: str) -> str:
    """The scheme, lower case. Raises `UriError`."""
    scheme, colon, _ = uri.partition(":")
    if not colon:
        raise UriError("an HSM is named by a URI, such as pkcs11:... or transit:...")
    return scheme.lower()


def parse_pkcs11(uri: str) -> Pkcs11Uri:
    """Read an RFC 7512 URI. Raises `UriError`.

    `module-path` must be absolute, as a relative one would search the library path; `pin-value` is
    refused, as a URI is written down in too many places.
    """
    if scheme_of(uri) != "pkcs11":
        raise UriError("not a pkcs11: URI")
    path, _, query = uri.partition(":")[2].partition("?")
    attributes = _attributes(path.split(";"), _PATH)
    options = _attributes(query.split("&"), _QUERY)
    module_path = options.get("module-path")
    if module_path is None:
        raise UriError("module-path is missing")
    if not PurePosixPath(module_path).is_absolute():
        raise UriError("module-path must be absolute")
    if not attributes:
        raise UriError("no token is named: give serial, or token")
    try:
        source = SecretSource.parse(options["pin-source"]) if "pin-source" in options else None
    except SecretSourceError as error:
        raise UriError(f"pin-source: {error}") from None
    try:
        iv_mode = IvMode(options["x-iv-mode"]) if "x-iv-mode" in options else None
    except ValueError:
        raise UriError("x-iv-mode is host, hsm or appended") from None
    isolation = options.get("x-isolation", "none")
    if isolation not in ("none", "process"):
        raise UriError("x-isolation is none or process")
    wrap_scheme = options.get("x-wrap-scheme")
    if wrap_scheme not in (None, WrapScheme.AES_GCM, WrapScheme.AES_KWP):
        raise UriError("x-wrap-scheme is aes-gcm or aes-kwp")
    return Pkcs11Uri(
        module_path=module_path,
        token=attributes.get("token"),
        serial=attributes.get("serial"),
        manufacturer=attributes.get("manufacturer"),
        model=attributes.get("model"),
        pin_source=source,
        iv_mode=iv_mode,
        wrap_scheme=WrapScheme(wrap_scheme) if wrap_scheme else None,
        init_string=options.get("x-init-string"),
        isolated=isolation == "process",
    )


def parse_transit(uri: str) -> TransitUri:
    """Read `transit://host:port/mount?auth=...`. Raises `UriError`."""
    return _parse_server(uri, "transit", "transit")


def parse_kv(uri: str) -> TransitUri:
    """Read `kv://host:port/mount?auth=...`: a KV version 2 mount, with Transit's options. Raises `UriError`."""
    return _parse_server(uri, "kv", "secret")


def _parse_server(uri: str, scheme: str, mount: str) -> TransitUri:
    parts = urlsplit(uri)
    if parts.scheme.lower() != scheme or not parts.hostname or parts.username or parts.fragment:
        raise UriError(f"such a URI is {scheme}://host:port/mount?auth=...")
    options = _attributes(parts.query.split("&"), _TRANSIT)
    plain = options.get("plaintext-http", "no")
    if plain not in ("yes", "no"):
        raise UriError("plaintext-http is yes or no")
    try:
        auth = TransitAuth(options.get("auth", "token"))
        timeout = float(options.get("timeout", "5"))
    except ValueError:
        raise UriError("auth is token, approle, kubernetes or cert; timeout is in seconds") from None
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise UriError(f"timeout is at most {_LONGEST_TIMEOUT:.0f} seconds")
    needs, source_name, default = _LOGINS[auth]
    for name in needs:
        if name not in options and name != default:
            raise UriError(f"auth={auth} needs {name}")
    source = options.get(source_name, _POD_TOKEN if source_name == "jwt-source" else None)
    try:
        parsed = SecretSource.parse(source) if source else None
    except SecretSourceError as error:
        raise UriError(f"{source_name}: {error}") from None
    return TransitUri(
        address=f"{'http' if plain == 'yes' else 'https'}://{parts.netloc}",
        mount=parts.path.strip("/") or mount,
        auth=auth,
        auth_mount=options.get("auth-mount", str(auth)),
        source=parsed,
        role=options.get("role-id" if auth is TransitAuth.APPROLE else "role", ""),
        client_cert=options.get("client-cert"),
        client_key=options.get("client-key"),
        ca_file=options.get("ca-file"),
        namespace=options.get("namespace"),
        timeout=timeout,
    )


_LONGEST_TIMEOUT: Final = 60.0
_POD_TOKEN: Final = "file:/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a place
# What each way to log in needs, which of it is the secret, and what of it has a default.
_LOGINS: Final = {
    TransitAuth.TOKEN: (("token-source",), "token-source", ""),
    TransitAuth.APPROLE: (("role-id", "secret-id-source"), "secret-id-source", ""),
    TransitAuth.KUBERNETES: (("role", "jwt-source"), "jwt-source", "jwt-source"),
    TransitAuth.CERT: (("client-cert", "client-key"), "", ""),
}


def _attributes(parts: Iterable[str], known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        if not part:
            continue
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise UriError("pin-value is refused; put the PIN in a file and name it by pin-source")
        if name not in known:
            raise UriError(f"unknown attribute {name[:40]!r}")
        if not equals or not value:
            raise UriError(f"{name} has no value")
        if name in found:
            raise UriError(f"{name} is given twice")
        try:
            found[name] = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            raise UriError(f"{name} is not UTF-8") from None
    return found
