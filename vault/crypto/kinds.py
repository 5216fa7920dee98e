"""The kinds of credentials: which fields each has, what form they have, and what each may be used for.

A field's uses keep a secret to its purpose: a webhook secret verifies, and signs nothing. `generic` has any fields, for
any use that a token has the scope for. Whatever the kind, some things may never be stored (PCI DSS 4.0.1, 3.3.1): a
card's verification code, PIN or PIN block, and the data of its stripe or chip.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vault.crypto import certificates
from vault.crypto.errors import CryptoError, FormatError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

GENERIC = "generic"
UNTYPED = (GENERIC, "imported")

VERIFY_WEBHOOK = "verify_webhook"
ANSWER_CHALLENGE = "answer_challenge"
HMAC = "hmac"
TOTP = "totp"
SIGN = "sign"
HTTP_CALL = "http_call"
OAUTH_REFRESH = "oauth_refresh"
SIGN_WEBHOOK = "sign_webhook"


class KindError(CryptoError):
    """The fields are not those of the kind. `field` names the one that is wrong, `rule` what it must be."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class ForbiddenError(KindError):
    """A field holds what may never be stored."""


class Field(NamedTuple):
    """A field of a kind."""

    uses: frozenset[str] = frozenset()
    form: re.Pattern[bytes] = re.compile(rb"(?s).{1,65536}")
    rule: str = "must not be empty"
    secret: bool = True
    """Whether a provider's answer that shows it is withheld."""


class Kind(NamedTuple):
    """A kind: its fields, and sets of fields of which each needs at least one."""

    fields: Mapping[str, Field]
    needs: tuple[tuple[str, ...], ...]


def _secret(*uses: str) -> Field:
    return Field(frozenset(uses))


def _public(*uses: str) -> Field:
    return Field(
        frozenset(uses), re.compile(rb"[ -~\r\n\t]{1,65536}"), "must be printable ASCII", secret=False
    )


def _choice(*values: str) -> Field:
    form = re.compile(b"|".join(re.escape(value.encode()) for value in values))
    return Field(frozenset(), form, f"must be one of {', '.join(values)}", secret=False)


_NO_CONTROLS = re.compile(rb"[!-~]{1,4096}")
_HEADER_RULE = "must be 1 to 4096 printable ASCII characters without spaces"
_WEBHOOK = _secret(VERIFY_WEBHOOK)
_API_SECRET = Field(frozenset({HTTP_CALL}), _NO_CONTROLS, _HEADER_RULE)
_API_NAME = Field(frozenset({HTTP_CALL}), _NO_CONTROLS, _HEADER_RULE, secret=False)
_HEX_KEY = Field(frozenset({VERIFY_WEBHOOK}), re.compile(rb"[0-9A-Fa-f]{64}"), "must be 64 digits of hex")
_SIGNING_SECRET = Field(
    frozenset({SIGN_WEBHOOK}),
    re.compile(rb"whsec_[A-Za-z0-9+/]{32,88}={0,2}"),
    "must be whsec_ and 24 to 64 bytes in base64",
)
_PEM_KEY = re.compile(
    rb"(?s)\s*-----BEGIN (?:EC |RSA )?PRIVATE KEY-----.*-----END (?:EC |RSA )?PRIVATE KEY-----\s*"
)
_PRIVATE_KEY = Field(frozenset({SIGN}), _PEM_KEY, "must be an unencrypted private key in PEM")
_TLS_KEY = Field(frozenset({HTTP_CALL}), _PEM_KEY, "must be an unencrypted private key in PEM")
_CERTIFICATE = Field(
    frozenset({HTTP_CALL, SIGN}),
    re.compile(rb"(?s)\s*-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\s*"),
    "must be a certificate in PEM, with those that vouch for it behind",
    secret=False,
)
_TOTP = {
    "totp_seed": Field(frozenset({TOTP}), re.compile(rb"[A-Za-z2-7 =-]{16,256}"), "must be base32"),
    "totp_digits": _choice("6", "7", "8"),
    "totp_period": _choice("15", "30", "60"),
    "totp_algorithm": _choice("SHA1", "SHA256", "SHA512"),
}
ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512")
FORMATS = ("jws", "client_assertion", "http", "raw")
_SIGNING = {
    "private_key": _PRIVATE_KEY,
    "algorithm": _choice(*ALGORITHMS),
    "kid": Field(
        frozenset(),
        re.compile(rb"[!#-\[\]-~]{1,128}"),
        "must be printable ASCII without quotes or spaces",
        secret=False,
    ),
    "formats": Field(
        frozenset(),
        re.compile(rb"(?:jws|client_assertion|http|raw)(?: (?:jws|client_assertion|http|raw))*"),
        f"must be some of {', '.join(FORMATS)}, with spaces between",
        secret=False,
    ),
}

HSM_SIGNING_KEY = "hsm_signing_key"
"""The kind whose private key is in the HSM. The vault makes it; its field `private_key` says where the key is found."""

KINDS: dict[str, Kind] = {
    "plaid_app": Kind(
        {
            "client_id": _API_NAME,
            "secret": _API_SECRET,
            "webhook_keys": _public(VERIFY_WEBHOOK),
        },
        (("client_id",), ("secret",)),
    ),
    "plaid_item": Kind(
        {
            "access_token": _API_SECRET,
            "item_id": _API_NAME,
            "client_id": _API_NAME,
            "secret": _API_SECRET,
            "webhook_keys": _public(VERIFY_WEBHOOK),
        },
        (("access_token",),),
    ),
    "stripe_account": Kind(
        {
            "api_key": _API_SECRET,
            "account_id": _API_NAME,
            "webhook_secret": _WEBHOOK,
            "previous_webhook_secret": _WEBHOOK,
        },
        (("api_key", "webhook_secret"),),
    ),
    "braintree_merchant": Kind(
        {
            "merchant_id": _API_NAME,
            "public_key": Field(
                frozenset({HTTP_CALL, VERIFY_WEBHOOK, ANSWER_CHALLENGE}),
                _NO_CONTROLS,
                _HEADER_RULE,
                secret=False,
            ),
            "private_key": Field(
                frozenset({HTTP_CALL, VERIFY_WEBHOOK, ANSWER_CHALLENGE}), _NO_CONTROLS, _HEADER_RULE
            ),
            "previous_public_key": Field(
                frozenset({VERIFY_WEBHOOK}), _NO_CONTROLS, _HEADER_RULE, secret=False
            ),
            "previous_private_key": Field(frozenset({VERIFY_WEBHOOK}), _NO_CONTROLS, _HEADER_RULE),
        },
        (("public_key",), ("private_key",)),
    ),
    "adyen_merchant": Kind(
        {
            "api_key": _API_SECRET,
            "merchant_account": _API_NAME,
            "hmac_key": _HEX_KEY,
            "previous_hmac_key": _HEX_KEY,
        },
        (("api_key", "hmac_key"),),
    ),
    "gocardless_merchant": Kind(
        {
            "access_token": _API_SECRET,
            "webhook_secret": _WEBHOOK,
            "previous_webhook_secret": _WEBHOOK,
        },
        (("access_token", "webhook_secret"),),
    ),
    "bank_login": Kind(
        {
            "username": Field(frozenset({HTTP_CALL}), secret=False),
            "password": _secret(HTTP_CALL),
            "pin": _secret(HTTP_CALL),
            **_TOTP,
        },
        (("username", "password"),),
    ),
    "oauth_client": Kind(
        {
            "client_id": Field(
                frozenset({HTTP_CALL, OAUTH_REFRESH}), _NO_CONTROLS, _HEADER_RULE, secret=False
            ),
            "client_secret": Field(frozenset({OAUTH_REFRESH, HTTP_CALL}), _NO_CONTROLS, _HEADER_RULE),
            **_SIGNING,
        },
        (("client_id",),),
    ),
    "oauth_grant": Kind(
        {
            # RFC 6749, A.12 and A.17, but that no header holds an access token with spaces.
            "refresh_token": Field(
                frozenset({OAUTH_REFRESH}),
                re.compile(rb"[ -~]{1,16384}"),
                "must be 1 to 16384 printable ASCII characters",
            ),
            "access_token": Field(
                frozenset({HTTP_CALL}),
                re.compile(rb"[!-~]{1,16384}"),
                "must be 1 to 16384 printable ASCII characters without spaces",
            ),
            "token_type": _public(),
            "scope": _public(),
            "expires_at": Field(
                frozenset(), re.compile(rb"[0-9]{1,12}"), "must be seconds since 1970 UTC", secret=False
            ),
        },
        (("refresh_token", "access_token"),),
    ),
    "webhook_secret": Kind(
        {"webhook_secret": _WEBHOOK, "previous_webhook_secret": _WEBHOOK}, (("webhook_secret",),)
    ),
    "webhook_endpoint": Kind(
        {"signing_secret": _SIGNING_SECRET, "previous_signing_secret": _SIGNING_SECRET},
        (("signing_secret",),),
    ),
    "api_key": Kind(
        {
            "api_key": Field(frozenset({HTTP_CALL, HMAC})),
            "api_secret": Field(frozenset({HTTP_CALL, HMAC})),
            "key_id": _API_NAME,
        },
        (("api_key", "api_secret"),),
    ),
    "tls_client": Kind(
        {"private_key": _TLS_KEY, "certificate": _CERTIFICATE}, (("private_key",), ("certificate",))
    ),
    "signing_key": Kind({**_SIGNING, "certificate": _CERTIFICATE}, (("private_key",),)),
    HSM_SIGNING_KEY: Kind(
        {
            "private_key": Field(
                frozenset({SIGN}),
                re.compile(rb"\{[ -~]{1,500}\}"),
                "is where the HSM's key is found",
                secret=False,
            ),
            "algorithm": _choice("ES256", "EdDSA"),
            "kid": _SIGNING["kid"],
            "formats": _SIGNING["formats"],
        },
        (("private_key",), ("algorithm",)),
    ),
}

_FORBIDDEN = re.compile(
    r"cvv|cvc|(?:^|card_?)(?:cvn|csc|cvd|cav|cid|pvv)_?[0-9]?(?:_?(?:code|value|number))?$(?<!^cid)"
    r"|(?:^|card_?)(?:security|verification|validation)_?(?:code|value)_?[0-9]?$|card_?verification_?number"
    r"|pin_?block|encrypted_?pin|card_?pin(?:$|_)|pin_?verification_?value"
    r"|^(?:full_?)?track$|(?:^|_)track_?[123](?:$|_)|track_?[123]?_?data|track_?[123]?_?equivalent"
    r"|mag(?:netic)?_?stripe|(?:^|_)(?:chip|emv|swipe)_?data"
)
# Looked for first: without the one there is nothing within, without the other no track, and most secrets have neither.
_SAID, _LONG_NUMBER = re.compile(rb"[:=>][\\\"'\s]*[0-9a-fA-F]"), re.compile(rb"[0-9]{12}")
# A name of the same and its digits, within a field: in JSON, also within JSON, a form, XML or a line of text.
_WITHIN = re.compile(
    rb"(?i)(?<![a-z0-9])(?:card[ _-]?)?"
    rb"(?:(?:[di]?cvv|cvc|cvn|csc|cvd|cav2)[ _-]?[0-9]?(?:[ _-]?(?:code|value|number))?"
    rb"|(?:security|verification|validation)[ _-]?(?:code|value))"
    rb"[\\\"']*\s*[:=>]\s*[\\\"']*[0-9]{3,4}(?![0-9a-z])"
    rb"|(?:pin[ _-]?block|pin[ _-]?data)[\\\"']*\s*[:=>]\s*[\\\"']*[0-9a-f]{16}(?![0-9a-z])"
)
# ISO/IEC 7813: track 1 is `%B` number `^` name `^` expiry...; track 2 is `;` number `=` expiry... Readers leave out the
# sentinels, and a chip's equivalent (EMV tag 57) writes a D for the sign: then the number's check digit must be right.
_TRACKS = re.compile(rb"[0-9]{12,19}\^[^^\r\n]{2,45}\^[0-9]{4}|;[0-9]{12,19}=[0-9]{4}")
_BARE_TRACKS = re.compile(
    rb"(?<![0-9])([0-9]{12,19})=[0-9]{7}|(?<![0-9A-Za-z])([0-9]{12,19})D[0-9]{7,25}F?(?![0-9A-Za-z])"
)


def check(kind: str, fields: Mapping[str, bytes | bytearray | memoryview]) -> None:
    """Raise `KindError` unless these are the fields of the kind; `ForbiddenError` for what may never be stored."""
    check_storable(fields)
    if kind in UNTYPED:
        return
    schema = KINDS.get(kind)
    if schema is None:
        raise KindError("kind", f"must be one of {', '.join((*UNTYPED, *KINDS))}")
    for name, value in fields.items():
        rule = schema.fields.get(name)
        if rule is None:
            raise KindError(name, f"is no field of this kind: it has {', '.join(schema.fields)}")
        if not rule.form.fullmatch(value):
            raise KindError(name, rule.rule)
        if rule is _CERTIFICATE:
            _expire_time(name, value)
    for names in schema.needs:
        if not any(name in fields for name in names):
            raise KindError(
                names[0], "is required" if len(names) == 1 else f"one of {', '.join(names)} is required"
            )


def check_storable(fields: Mapping[str, bytes | bytearray | memoryview]) -> None:
    """Raise `ForbiddenError` for what may never be stored, whatever it is stored in."""
    for name, value in fields.items():
        if _FORBIDDEN.search(name):
            raise ForbiddenError(name, "may never be stored (PCI DSS 3.3.1)")
        if _SAID.search(value) and _WITHIN.search(value):
            raise ForbiddenError(
                name,
                "holds a card's verification code or PIN block, which may never be stored (PCI DSS 3.3.1)",
            )
        if _LONG_NUMBER.search(value) and (
            _TRACKS.search(value) or any(map(_is_number, _BARE_TRACKS.finditer(value)))
        ):
            raise ForbiddenError(name, "holds a card's track data, which may never be stored (PCI DSS 3.3.1)")


def _is_number(found: re.Match[bytes]) -> bool:
    """Whether the digits of a match are a card's number: by its check digit (ISO/IEC 7812-1, annex B).

    Read where they lie: a copy of them would stay.
    """
    at, end = found.span(found.lastindex or 0)
    total = 0
    for place in range(at, end):
        digit = found.string[place] - ord("0")
        if (end - place) % 2 == 0:
            digit = 2 * digit - 9 * (digit > 4)  # noqa: PLR2004 - two digits become their sum
        total += digit
    return total % 10 == 0


def fits(kind: str, field: str, value: bytes | memoryview) -> bool:
    """Whether this could be stored as that field of a kind that has it."""
    return KINDS[kind].fields[field].form.fullmatch(value) is not None


def allows(kind: str, field: str, use: str) -> bool:
    """Whether a field of this kind is for this use. Of a kind without a schema, every one is."""
    schema = KINDS.get(kind)
    return schema is None or (field in schema.fields and use in schema.fields[field].uses)


def expire_time(kind: str, fields: Mapping[str, bytes | bytearray | memoryview]) -> datetime.datetime | None:
    """When the first certificate among the fields ends, UTC; None if the kind has none, or none is there.

    Raises `KindError`, as `check` does, for what cannot be read.
    """
    schema = KINDS.get(kind)
    known = schema.fields if schema else {}
    ends = [_expire_time(name, value) for name, value in fields.items() if known.get(name) is _CERTIFICATE]
    return min(ends, default=None)


def _expire_time(name: str, value: bytes | bytearray | memoryview) -> datetime.datetime:
    try:
        return certificates.expire_time(value)
    except FormatError as error:
        raise KindError(name, str(error)) from None


def is_secret(kind: str, field: str) -> bool:
    """Whether a field must not show in a provider's answer."""
    schema = KINDS.get(kind)
    return schema is None or field not in schema.fields or schema.fields[field].secret
