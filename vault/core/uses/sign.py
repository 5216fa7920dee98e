"""Signing with a private key that stays in the vault, or in the HSM. Four formats, each with a scope of its own.

None can be passed off as another: a JWS never holds the claims of a JWT, a client assertion holds nothing but what the
vault puts in it, and what RFC 9421 signs begins with a quotation mark, which no JWS does. Only `raw` signs whatever it
is given. The credential can hold a key to some of the formats (`formats`), whatever scopes a token has.

JWS: RFC 7515, RFC 7797; client assertions: RFC 7523 as FAPI 2.0 has it; HTTP message signatures: RFC 9421.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vault.core.uses.material import Done, message, unsuitable
from vault.crypto import kinds
from vault.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from vault.core.uses.material import Material, Surroundings, Told

    PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

ASSERTION_SECONDS = 60
_LEAST_RSA = 2048
_CHECKED_KEYS = 1024
_MAX_HEADER = 4096
_MAX_FIELDS = 32
# What says which key or algorithm a signature is checked with is the vault's to say.
_RESERVED = frozenset({"alg", "kid", "b64", "jwk", "jku", "x5u", "x5c", "x5t"})
_TOKEN_TYPE = re.compile(r"(?i)(?:application/)?(?:.*\+)?jwt")
# RFC 7519, 4.1, but for `iat`, which other documents have too. Not only `aud` with `exp`: there are servers that ask
# for neither, and request objects (RFC 9101) need not have an end.
_CLAIMS = frozenset({"iss", "sub", "aud", "exp", "nbf", "jti"})
_FEWEST_CLAIMS = 2
_OBJECT = re.compile(rb"[\xef\xbb\xbf\xfe\xff\0\s]*\{[\0\s]*\"")
_DERIVED = frozenset(
    {"@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"}
)
_HTTP_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HTTP_VALUE = re.compile(r"[ -~\t]{0,4096}")
_KID = re.compile(r"[!#-\[\]-~]{0,128}")
_METHOD = re.compile(r"[A-Z]{1,16}")
_LABEL = re.compile(r"[a-z*][a-z0-9_.*-]{0,31}")
_TAG = re.compile(r"[ !#-\[\]-~]{0,64}")
_URI = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(?:[/?][!-\"$-~]{0,4096})?")


class _InHsm(NamedTuple):
    """A private key that the HSM holds, by what the credential says of where it is found."""

    reference: str


class _Algorithm(NamedTuple):
    """How a key signs: its JOSE name, its name in RFC 9421's registry (empty: none)."""

    name: str
    http: str
    hash: hashes.HashAlgorithm | None = None
    half: int = 0


_ALGORITHMS = {
    "ES256": _Algorithm("ES256", "ecdsa-p256-sha256", hashes.SHA256(), 32),
    "ES384": _Algorithm("ES384", "ecdsa-p384-sha384", hashes.SHA384(), 48),
    "ES512": _Algorithm("ES512", "", hashes.SHA512(), 66),
    "EdDSA": _Algorithm("EdDSA", "ed25519"),
    "Ed25519": _Algorithm("Ed25519", "ed25519"),  # the same, by its newer name (RFC 9864)
    "PS256": _Algorithm("PS256", "", hashes.SHA256()),
    "PS384": _Algorithm("PS384", "", hashes.SHA384()),
    "PS512": _Algorithm("PS512", "rsa-pss-sha512", hashes.SHA512()),
}
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclasses.dataclass(frozen=True)
class SignJws:
    """Ask for a detached JWS. `header` is a JSON object with what is to stand in it beside `alg` and `kid`."""

    field_name: str
    payload: bytes
    header: str = ""
    unencoded: bool = False


@dataclasses.dataclass(frozen=True)
class ClientAssertion:
    """Ask for a `private_key_jwt` for an authorisation server."""

    field_name: str
    audience: str
    client_id: str = ""


@dataclasses.dataclass(frozen=True)
class SignHttp:
    """Ask for the signature of an HTTP request."""

    field_name: str
    method: str
    target_uri: str
    headers: Mapping[str, str]
    components: tuple[str, ...]
    body: bytes | None = None
    label: str = "sig1"
    tag: str = ""


@dataclasses.dataclass(frozen=True)
class SignRaw:
    """Ask for a signature of any message."""

    field_name: str
    message: bytes


class Signed(NamedTuple):
    """A signature, and what to send: the compact form, or headers."""

    algorithm: str
    kid: str
    signature: bytes = b""
    compact: str = ""
    headers: tuple[tuple[str, str], ...] = ()


async def jws(material: Material, request: SignJws, surroundings: Surroundings) -> Done:
    """Sign a payload that travels elsewhere (RFC 7515, appendix F; `unencoded`: RFC 7797)."""
    key, algorithm, kid = _key(material, request.field_name, "jws", surroundings)
    payload = message("payload", request.payload, least=1)
    # Whoever does not know `b64` decodes what was not encoded.
    if _holds_claims(payload) or (request.unencoded and _holds_claims(_decoded(payload))):
        raise invalid_field(
            "payload", "must not be the claims of a JWT: that is what a client assertion is for"
        )
    header = _header(request.header, algorithm, kid, unencoded=request.unencoded)
    protected = _b64(_json(header))
    signed = protected.encode() + b"." + (payload if request.unencoded else _b64(payload).encode())
    signature = await _sign(surroundings, key, algorithm, signed)
    return _done(
        request.field_name, "jws", Signed(algorithm.name, kid, signature, f"{protected}..{_b64(signature)}")
    )


async def client_assertion(material: Material, request: ClientAssertion, surroundings: Surroundings) -> Done:
    """Sign a client assertion: sixty seconds long, for one audience, with an id of its own."""
    key, algorithm, kid = _key(material, request.field_name, "client_assertion", surroundings)
    own = material.public_text("client_id")
    client_id = own or request.client_id
    if not client_id or len(client_id) > 256 or (own and request.client_id not in ("", own)):  # noqa: PLR2004
        raise invalid_field("client_id", "is required, unless the credential holds it: then it is that one")
    if not _URI.fullmatch(request.audience):
        raise invalid_field("audience", "must be the server's issuer, a URI")
    now = int(surroundings.now().timestamp())
    header = {"alg": algorithm.name, "typ": "JWT", **({"kid": kid} if kid else {})}
    claims = {
        "iss": client_id, "sub": client_id, "aud": request.audience, "iat": now, "nbf": now,
        "exp": now + ASSERTION_SECONDS, "jti": secrets.token_urlsafe(16),
    }  # fmt: skip
    signed = f"{_b64(_json(header))}.{_b64(_json(claims))}"
    signature = await _sign(surroundings, key, algorithm, signed.encode())
    result = Signed(algorithm.name, kid, signature, f"{signed}.{_b64(signature)}")
    return _done(request.field_name, "client_assertion", result, audience=request.audience)


async def http(material: Material, request: SignHttp, surroundings: Surroundings) -> Done:
    """Sign an HTTP request: the headers `signature-input`, `signature`, and for a body `content-digest`."""
    key, algorithm, kid = _key(material, request.field_name, "http", surroundings)
    if not algorithm.http and not algorithm.name.startswith("PS"):
        raise unsuitable("RFC 9421 has no algorithm for this key")
    if algorithm.name.startswith("PS"):
        algorithm = _ALGORITHMS["PS512"]
    created = int(surroundings.now().timestamp())
    made: list[tuple[str, str]] = []
    headers = _http_headers(request.headers)
    if request.body is not None:
        digest = base64.b64encode(hashlib.sha256(message("body", request.body)).digest()).decode()
        headers["content-digest"] = f"sha-256=:{digest}:"
        made.append(("content-digest", headers["content-digest"]))
    base, parameters = signature_base(request, headers, created, kid)
    signature = await _sign(surroundings, key, algorithm, base)
    encoded = base64.b64encode(signature).decode()
    made.append(("signature-input", f"{request.label}={parameters}"))
    made.append(("signature", f"{request.label}=:{encoded}:"))
    result = Signed(algorithm.http, kid, signature, headers=tuple(made))
    return _done(request.field_name, "http", result, components=tuple(request.components))


async def raw(material: Material, request: SignRaw, surroundings: Surroundings) -> Done:
    """Sign any message. ECDSA signatures are in DER, as X9.62 and certificates have them."""
    key, algorithm, kid = _key(material, request.field_name, "raw", surroundings)
    data = message("message", request.message, least=1)
    signature = await _sign(surroundings, key, algorithm, data, der=True)
    return _done(request.field_name, "raw", Signed(algorithm.name, kid, signature))


def signature_base(
    request: SignHttp, headers: Mapping[str, str], created: int, kid: str
) -> tuple[bytes, str]:
    """What RFC 9421, 2.5 signs, and the signature's parameters."""
    if not _METHOD.fullmatch(request.method):
        raise invalid_field("method", "must be an HTTP method in capitals")
    if not _LABEL.fullmatch(request.label) or not _TAG.fullmatch(request.tag):
        raise invalid_field(
            "label", "must be a key of a structured field, and tag plain ASCII without quotes"
        )
    components = request.components
    if not 0 < len(components) <= _MAX_FIELDS or len(set(components)) != len(components):
        raise invalid_field("components", f"1 to {_MAX_FIELDS}, each at most once")
    uri = _split(request.target_uri)
    target = (uri.path or "/") + (f"?{uri.query}" if uri.query else "")
    derived = {
        "@method": request.method,
        "@target-uri": request.target_uri,
        "@authority": _authority(uri.scheme, uri.netloc),
        "@scheme": uri.scheme,
        "@request-target": target,
        "@path": uri.path or "/",
        "@query": f"?{uri.query}",
    }
    lines = []
    for name in components:
        value = derived.get(name) if name in _DERIVED else headers.get(name)
        if value is None:
            raise invalid_field(
                "components", "each must be a header that was given, or a derived one of RFC 9421, 2.2"
            )
        lines.append(f'"{name}": {value}')
    listed = " ".join(f'"{name}"' for name in components)
    parameters = f"({listed});created={created}"
    if kid:
        parameters += f';keyid="{kid}"'
    if request.tag:
        parameters += f';tag="{request.tag}"'
    lines.append(f'"@signature-params": {parameters}')
    return "\n".join(lines).encode("ascii"), parameters


def _split(target_uri: str) -> SplitResult:
    try:
        if _URI.fullmatch(target_uri):
            return urlsplit(target_uri)
    except ValueError:
        pass  # brackets, and no address of IPv6 between them
    raise invalid_field("target_uri", "must be an http or https URI without a fragment")


def _authority(scheme: str, netloc: str) -> str:
    default = ":443" if scheme == "https" else ":80"
    return netloc.lower().removesuffix(default)


def _http_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if len(headers) > _MAX_FIELDS:
        raise invalid_field("headers", f"at most {_MAX_FIELDS}")
    made = {name.lower(): value.strip(" \t") for name, value in headers.items()}
    if len(made) != len(headers):
        raise invalid_field("headers", "each at most once")
    if not all(_HTTP_NAME.fullmatch(name) and _HTTP_VALUE.fullmatch(value) for name, value in made.items()):
        raise invalid_field("headers", "names and values of HTTP, on one line each")
    return made


def _header(text: str, algorithm: _Algorithm, kid: str, *, unencoded: bool) -> dict[str, Any]:
    if len(text) > _MAX_HEADER:
        raise invalid_field("header", f"at most {_MAX_HEADER} characters")
    try:
        extra = json.loads(text or "{}", object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise invalid_field("header", "must be a JSON object, each member once") from None
    if not isinstance(extra, dict):
        raise invalid_field("header", "must be a JSON object")
    critical = extra.pop("crit", [])
    if _RESERVED & set(extra):
        raise invalid_field("header", f"must not hold {', '.join(sorted(_RESERVED))}")
    if _TOKEN_TYPE.fullmatch(str(extra.get("typ", ""))):
        raise invalid_field("header", "typ must not be that of a token")
    if not isinstance(critical, list) or not all(
        isinstance(name, str) and name in extra for name in critical
    ):
        raise invalid_field("header", "crit must name members of the header")
    header: dict[str, Any] = {"alg": algorithm.name, **({"kid": kid} if kid else {}), **extra}
    if unencoded:
        header["b64"] = False
        critical = [*critical, "b64"]
    if critical:
        header["crit"] = critical
    return header


def _holds_claims(payload: bytes) -> bool:
    """Whether somebody could read the claims of a JWT in this.

    An object that cannot be read here may be read elsewhere: one that is nested deeper, or holds what is no UTF-8. And
    there are readers that take names of any case.
    """
    try:
        document = json.loads(payload, parse_int=str)
    except (ValueError, RecursionError):
        return _OBJECT.match(payload) is not None
    return (
        isinstance(document, dict) and len({name.casefold() for name in document} & _CLAIMS) >= _FEWEST_CLAIMS
    )


def _decoded(payload: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(payload + b"==")
    except ValueError:
        return b""


def _key(
    material: Material, field_name: str, form: str, surroundings: Surroundings
) -> tuple[PrivateKey | _InHsm, _Algorithm, str]:
    formats = material.public_text("formats")
    if formats and form not in formats.split(" "):
        raise unsuitable("the credential's key is not for this format")
    view = material.field(field_name, kinds.SIGN)
    if material.kind == kinds.HSM_SIGNING_KEY:
        algorithm = _ALGORITHMS[material.public_text("algorithm")]
        return _InHsm(str(view, "ascii")), algorithm, material.public_text("kid")
    # OpenSSL takes 50 ms and more to check the primes of an RSA key, so each key is checked once.
    digest = hashlib.sha256(view).digest()
    try:
        # OpenSSL wipes what it frees of a key; the process overwrites everything else that is freed.
        key = load_pem_private_key(
            view, None, unsafe_skip_rsa_key_validation=digest in surroundings.checked_keys
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise unsuitable("the field is not an unencrypted private key in PEM") from None
    if len(surroundings.checked_keys) >= _CHECKED_KEYS:
        surroundings.checked_keys.clear()
    surroundings.checked_keys.add(digest)
    algorithm = _algorithm(key, material.public_text("algorithm"))
    kid = material.public_text("kid")
    if not _KID.fullmatch(kid):
        raise unsuitable("kid must be printable ASCII without quotes, spaces or backslashes")
    return key, algorithm, kid  # type: ignore[return-value]  # _algorithm checked the type


def _algorithm(key: object, wanted: str) -> _Algorithm:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        possible: tuple[str, ...] = (_CURVES.get(key.curve.name, ""),)
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        possible = ("EdDSA", "Ed25519")
    elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA:
        possible = ("PS256", "PS384", "PS512")
    else:
        possible = ()
    chosen = wanted or (possible[0] if possible else "")
    if chosen not in possible or chosen not in _ALGORITHMS:
        raise unsuitable(
            "the key must be P-256, P-384, P-521, Ed25519 or RSA from 2048 bits, and fit its algorithm"
        )
    return _ALGORITHMS[chosen]


async def _sign(
    surroundings: Surroundings,
    key: PrivateKey | _InHsm,
    algorithm: _Algorithm,
    data: bytes,
    *,
    der: bool = False,
) -> bytes:
    if isinstance(key, _InHsm):
        return await _sign_in_hsm(surroundings, key, algorithm, data, der=der)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    assert algorithm.hash is not None
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(algorithm.hash), algorithm.hash.digest_size)
        return key.sign(data, pss, algorithm.hash)
    signature = key.sign(data, ec.ECDSA(algorithm.hash))
    if der:
        return signature
    r, s = decode_dss_signature(signature)
    return r.to_bytes(algorithm.half, "big") + s.to_bytes(algorithm.half, "big")


async def _sign_in_hsm(
    surroundings: Surroundings, key: _InHsm, algorithm: _Algorithm, data: bytes, *, der: bool
) -> bytes:
    if surroundings.sign is None:
        raise RuntimeError("these surroundings have no HSM")
    signature = await surroundings.sign(key.reference, algorithm.name, data)
    if not der or not algorithm.half:
        return signature
    halves = signature[: algorithm.half], signature[algorithm.half :]
    return encode_dss_signature(*(int.from_bytes(half, "big") for half in halves))


def _done(field_name: str, form: str, signed: Signed, **more: Told) -> Done:
    return Done(signed, (field_name,), {"format": form, "algorithm": signed.algorithm, **more})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member is named twice")
    return made


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
