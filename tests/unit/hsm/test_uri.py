from __future__ import annotations

import pytest

from hsm.model import IvMode
from hsm.secretfile import SecretSource
from hsm.uri import UriError, parse_pkcs11, scheme_of

MODULE = "module-path=/lib/x.so"


def test_a_full_uri_is_read():
    uri = parse_pkcs11(
        f"pkcs11:token=My%20token;serial=ab12;model=m;manufacturer=x?{MODULE}&pin-source=file:/run/pin&x-iv-mode=hsm"
    )
    assert (uri.token, uri.serial, uri.model, uri.manufacturer) == ("My token", "ab12", "m", "x")
    assert uri.module_path == "/lib/x.so"
    assert uri.pin_source == SecretSource("file", "/run/pin")
    assert uri.iv_mode is IvMode.HSM


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("pkcs11:token=a", "module-path is missing"),
        ("pkcs11:token=a?module-path=x.so", "absolute"),
        (f"pkcs11:?{MODULE}", "no token"),
        (f"pkcs11:tokn=a?{MODULE}", "unknown attribute 'tokn'"),
        (f"pkcs11:token=a;slot-id=1?{MODULE}", "unknown attribute 'slot-id'"),
        (f"pkcs11:token=a;token=b?{MODULE}", "twice"),
        (f"pkcs11:token?{MODULE}", "no value"),
        (f"pkcs11:token=%ff?{MODULE}", "UTF-8"),
        (f"pkcs11:token=a?{MODULE}&pin-value=1234", "pin-value is refused"),
        (f"pkcs11:token=a?{MODULE}&pin-source=env:PIN", "pin-source"),
        (f"pkcs11:token=a?{MODULE}&pin-source=file:rel", "absolute"),
        (f"pkcs11:token=a?{MODULE}&x-iv-mode=zero", "x-iv-mode"),
        (f"pkcs11:token=a?{MODULE}&foo=bar", "unknown attribute 'foo'"),
        ("token=a", "URI"),
    ],
)
def test_what_is_wrong_is_refused_and_named(uri, says):
    with pytest.raises(UriError, match=says):
        parse_pkcs11(uri)


def test_a_pin_in_the_uri_is_not_repeated_in_the_error():
    with pytest.raises(UriError) as caught:
        parse_pkcs11(f"pkcs11:token=a?{MODULE}&pin-value=s3cret")
    assert "s3cret" not in str(caught.value)


def test_the_scheme_ignores_case():
    assert scheme_of("PKCS11:x") == "pkcs11"
