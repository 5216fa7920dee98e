"""The way out: which addresses, which connectors, and whether an answer shows a secret."""

from __future__ import annotations

import base64
import html
import itertools
import json
import quopri
import socket
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vault.core.egress import connectors
from vault.core.egress.addresses import AddressRefusedError, is_public, resolve
from vault.core.egress.leaks import leaks
from vault.errors import StartError, VaultError


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
     "100.64.0.1", "169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192",
     "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
     "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
     "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1",
     "2001::1", "2001:db8::1", "fd00:ec2::254", "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1",
     "3fff::1", "5f00::1", "200:1::1", "301::1", "400::1", "1::1", "4000::1", "3ffe::1", "64:ff9c::1", "100:0:0:1::1",
     "2001:0:4136:e378::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:808:808",
     "2606:4700::1%eth0", "localhost", "", "0x7f.1", "2130706433"],
)  # fmt: skip
def test_an_address_that_is_not_a_public_one_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "54.187.174.169", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "2606:4700::1:5efe:1"],
)
def test_a_public_address_is_taken(address: str) -> None:
    assert is_public(address)


def test_one_bad_address_among_good_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*addresses: str) -> None:
        answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: answers)

    found("8.8.8.8", "8.8.4.4")
    assert resolve("api.example", 443, loopback=False) == "8.8.8.8"
    for addresses in (("8.8.8.8", "10.0.0.1"), ("169.254.169.254",), ()):
        found(*addresses)
        with pytest.raises(AddressRefusedError):
            resolve("api.example", 443, loopback=False)
    found("8.8.8.8")
    with pytest.raises(AddressRefusedError):
        resolve("localhost", 443, loopback=True)


SPELLINGS = {
    "as it is": lambda s: s,
    "percent": lambda s: "".join(f"%{b:02x}" for b in s).encode(),
    "partly percent": lambda s: quote(s, safe="").encode(),
    "a form": lambda s: quote_plus(s).encode(),
    "percent, but for plus": lambda s: quote(s, safe="+").encode(),
    "percent twice": lambda s: quote("".join(f"%{b:02X}" for b in s)).encode(),
    "JSON escapes": lambda s: "".join(f"\\u{b:04x}" for b in s).encode(),
    "JSON in JSON": lambda s: json.dumps(json.dumps(s.decode("latin-1"))).encode(),
    "HTML": lambda s: html.escape(s.decode("latin-1")).encode("latin-1"),
    "HTML numbers": lambda s: "".join(f"&#{b};" for b in s).encode(),
    "hex": lambda s: s.hex().encode(),
    "HEX": lambda s: s.hex().upper().encode(),
    "UTF-16": lambda s: s.decode("latin-1").encode("utf-16-be"),
    **{f"base64 at {n}": lambda s, n=n: base64.b64encode(b"x" * n + s + b"yz") for n in range(3)},
    **{f"base64url at {n}": lambda s, n=n: base64.urlsafe_b64encode(b"x" * n + s) for n in range(3)},
    "base64 in lines": lambda s: base64.encodebytes(b"user:" + s * 4),
    "base64, percent": lambda s: quote(base64.b64encode(s)).encode(),
    **{f"base32 at {n}": lambda s, n=n: base64.b32encode(b"x" * n + s + b"yz") for n in range(5)},
    "base32, small": lambda s: base64.b32encode(s).lower(),
    "quoted-printable": lambda s: quopri.encodestring(s * 3, quotetabs=True),
    "escaped hex": lambda s: "".join(f"\\x{b:02x}" for b in s).encode(),
    "escaped octal": lambda s: "".join(f"\\{b:03o}" for b in s).encode(),
    "escaped code points": lambda s: "".join(f"\\u{{{b:x}}}" for b in s).encode(),
    "percent code points": lambda s: "".join(f"%u{b:04X}" for b in s).encode(),
    "hex, byte by byte": lambda s: s.hex(":").encode(),
    "hex, as a list": lambda s: ", ".join(f"0x{b:02x}" for b in s).encode(),
    "a list of numbers": lambda s: json.dumps(list(s)).encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(
    st.text(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/=.~<>&\"'% ",
        min_size=12,
        max_size=60,
    )
)
@example("correct horse battery")
def test_a_secret_is_found_in_every_spelling(spelling: str, text: str) -> None:
    secret = text.encode()
    answer = b'{"echo": "' + SPELLINGS[spelling](secret) + b'"}'
    assert leaks(answer, [b"another-secret-0123456789", secret])


TWICE = {name: SPELLINGS[name] for name in (
    "as it is", "percent", "JSON escapes", "HTML numbers", "hex", "HEX", "UTF-16", "base64 at 0", "base64 at 1",
    "base64url at 2", "base64 in lines",
)}  # fmt: skip


@pytest.mark.parametrize(
    ("outer", "inner"),
    # HTML cannot say NUL.
    [pair for pair in itertools.product(TWICE, TWICE) if pair != ("HTML numbers", "UTF-16")],
)
@given(
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/=", min_size=12, max_size=40)
)
@settings(max_examples=10)
def test_a_secret_is_found_in_one_spelling_within_another(outer: str, inner: str, text: str) -> None:
    secret = text.encode()
    answer = b'{"echo": "' + TWICE[outer](TWICE[inner](secret)) + b'"}'
    assert leaks(answer, [secret])


@pytest.mark.parametrize("secret", ["pässwört-für-die-bank", "\U0001f511-key-of-the-bank", "пароль-от-банка"])
def test_a_secret_beyond_ascii_is_found_too(secret: str) -> None:
    for answer in (
        secret.encode(),
        json.dumps(secret).encode(),
        json.dumps(json.dumps(secret)).encode(),
        quote(secret).encode(),
        secret.encode("utf-16"),
        "".join(f"&#{ord(letter)};" for letter in secret).encode(),
        base64.b64encode(b"x" + secret.encode() + b"y"),
        base64.b64encode(json.dumps(secret).encode()),
    ):
        assert leaks(b'{"echo": "' + answer + b'"}', [secret.encode()]), answer
    assert leaks("pässwört-für-die-bank".encode("latin-1"), ["pässwört-für-die-bank".encode()])


@given(st.binary(max_size=300))
def test_an_answer_without_the_secret_is_not_withheld(answer: bytes) -> None:
    assert not leaks(answer, [b"sk_test_0123456789abcdef"])


GOOD = """
kinds = ["stripe_account"]
hosts = ["api.example.com"]
[inject.key]
place = "bearer"
field = "api_key"
[[routes]]
methods = ["GET"]
paths = ["/v1/*", "/v2/items/**"]
inject = ["key"]
"""


def test_a_route_fits_by_whole_segments() -> None:
    connector = connectors.parse(GOOD, "good", Path())
    for path in ("/v1/a", "/v2/items/a", "/v2/items/a/b"):
        connector.route("GET", path)
    for path in (
        "/v1", "/v1/", "/v1/a/b", "/v2/items", "/v2/items/", "/v1/..", "/v2/items/../x", "/v2/items/./x", "/v1/%61",
        "/v1/a;b", "/v1/a?b", "//v1/a", "v1/a", "/v1/a\n", "/v1/\u00e9", "", "/v2/items//a",
    ):  # fmt: skip
        with pytest.raises(VaultError):
            connector.route("GET", path)
    with pytest.raises(VaultError):
        connector.route("POST", "/v1/a")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kinds =", "colour = 1\nkinds ="),
        ("stripe_account", "teapot"),
        ("api.example.com", "10.0.0.1"),
        ("api.example.com", "localhost"),
        ("api.example.com", "API.example.com"),
        ("api.example.com", "api.example.com/x"),
        ('inject = ["key"]', 'inject = ["other"]'),
        (
            'inject = ["key"]',
            'inject = ["key"]\ncapture = { into = "version", fields = { api_key = "/a" }, provider_id = "account_id" }',
        ),
        ('place = "bearer"', 'place = "path"'),
        ('place = "bearer"', 'place = "header"'),
        ('place = "bearer"', 'place = "header"\nname = "Host"'),
        ('place = "bearer"', 'place = "header"\nname = "Content-Length"'),
        ('place = "bearer"', 'place = "json"\nname = "x"'),
        ("/v1/*", "/v1/%2e"),
        ("/v1/*", "/**/x"),
        ("[inject.key]", 'headers = ["transfer-encoding"]\n[inject.key]'),
        ("[inject.key]", '[development]\nloopback = true\nport = 1\nca_file = "x"\n[inject.key]'),
    ],
)
def test_a_connector_that_is_wrong_stops_the_start_and_says_where(old: str, new: str) -> None:
    with pytest.raises(StartError) as caught:
        connectors.parse(GOOD.replace(old, new), "bad.toml", Path())
    assert "bad.toml" in str(caught.value)


def test_the_shipped_connectors_are_whole_and_none_is_for_development() -> None:
    shipped = connectors.load(None)._connectors
    assert {name.partition("-")[0] for name in shipped} == {
        "plaid",
        "stripe",
        "braintree",
        "adyen",
        "gocardless",
    }
    assert not any(connector.development for connector in shipped.values())
