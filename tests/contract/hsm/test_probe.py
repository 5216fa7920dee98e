"""The probe on a module that is fit, on one that is not, and on what is no HSM at all."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from hsm import open_backend
from hsm.drift import WEIGHTS, as_record, drift, record_of
from hsm.model import Capabilities, IvMode, SignatureAlgorithm, WrapScheme
from hsm.probe import probe

_SOFTOKN = [
    *Path("/usr/lib").glob("*/libsoftokn3.so"),
    *Path("/usr/lib").glob("*/nss/libsoftokn3.so"),
    *Path("/usr/lib64").glob("libsoftokn3.so"),
]
_MAKE_NSS_TOKEN = """
import sys
from hsm.pkcs11 import module
made = module.acquire(sys.argv[1], reserved=sys.argv[2].encode())
token = next(token for token in made.tokens() if "Certificate DB" in token.label)
session = token.open(rw=True, so_pin="")
session.init_pin("12345678")
"""


def test_softhsm_is_fit(token_uri):
    report = probe(token_uri)
    assert report.verdict == "fit", report.table()
    assert list(report.carries) == ["wrap", "ES256", "EdDSA", "HS256"]
    assert report.parts["token"]["key wrap"]["AES_KEY_WRAP_PAD by C_WrapKey"] == "RFC 5649"
    assert report.parts["token"]["gcm"] == ["host"]
    assert report.parts["token"]["gcm length query"] == "answered"
    assert report.parts["token"]["bad tag"] == "CKR_GENERAL_ERROR"
    assert report.parts["token"]["key"]["retired"] == "enforced"
    assert report.parts["fork"]["child"] == "is refused"
    assert report.parts["threads"]["rounds"] > 100
    assert json.loads(report.json())["verdict"] == "fit"
    assert "verdict" in report.table()
    with open_backend(token_uri) as backend:
        assert backend.list_keys("strongroom-probe") == []


@pytest.mark.skipif(not _SOFTOKN, reason="NSS (libnss3) is not installed")
def test_softokn_lets_its_keys_be_stolen(tmp_path):
    init = f"configdir='sql:{tmp_path}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    subprocess.run([sys.executable, "-c", _MAKE_NSS_TOKEN, str(_SOFTOKN[0]), init], check=True)
    pin = tmp_path / "pin"
    pin.write_text("12345678")
    pin.chmod(0o400)
    report = probe(
        f"pkcs11:token=NSS%20Certificate%20DB?module-path={quote(str(_SOFTOKN[0]))}"
        f"&pin-source=file:{pin}&x-init-string={quote(init)}"
    )
    assert report.verdict == "unfit"
    assert any(
        "can be stolen" in reason and "wrap it by AES_KEY_WRAP" in reason for reason in report.reasons
    ), report.table()
    assert report.parts["token"]["key wrap"]["AES_KEY_WRAP_PAD by C_WrapKey"] == "PKCS#7"
    # So for most programs it has no GCM.
    assert report.parts["token"]["gcm length query"] == "CKR_BUFFER_TOO_SMALL"
    assert "EdDSA" not in report.carries


def test_a_module_that_crashes_is_a_finding(token_uri, tmp_path):
    source, library = tmp_path / "crash.c", tmp_path / "crash.so"
    source.write_text("unsigned long C_GetFunctionList(void *list) { *(int *)1 = 0; return 0; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    report = probe(f"pkcs11:token=x?module-path={library}")
    assert report.verdict == "unfit"
    assert list(report.reasons) == ["opening: crashed by SIGSEGV"]


def test_a_wrong_pin_is_tried_once_in_all(token_uri, tmp_path):
    pin = tmp_path / "pin"
    pin.write_text("0000")
    pin.chmod(0o400)
    report = probe(token_uri.split("&pin-source")[0] + f"&pin-source=file:{pin}")
    assert report.verdict == "unfit"
    assert report.parts == {}
    assert "PIN" in report.reasons[0]


BASE = Capabilities(
    wrap=WrapScheme.AES_GCM,
    iv_mode=IvMode.HOST,
    signatures=frozenset(SignatureAlgorithm),
    mac=True,
    random=True,
    max_sessions=8,
    model="m",
    firmware="1.0",
)


@pytest.mark.parametrize(
    ("change", "grave", "slight"),
    [
        ({}, (), ()),
        ({"max_sessions": 2, "notes": ("n",)}, (), ()),
        ({"wrap": WrapScheme.AES_KWP}, ("wrap: was aes-gcm, is aes-kwp",), ()),
        ({"iv_mode": IvMode.HSM}, ("iv_mode: was host, is hsm",), ()),
        ({"iv_mode": None}, ("iv_mode: was host, is unknown",), ()),
        ({"signatures": frozenset({SignatureAlgorithm.ES256})}, ("EdDSA: no longer works",), ()),
        ({"mac": False}, ("mac: no longer works",), ()),
        ({"wrapped_keys": True}, (), ("wrapped_keys: works now",)),
        ({"model": "n"}, ("model: was m, is n",), ()),
        ({"firmware": "2.0"}, (), ("firmware: was 1.0, is 2.0",)),
        ({"mac": False, "firmware": "2.0"}, ("mac: no longer works",), ("firmware: was 1.0, is 2.0",)),
    ],
)
def test_an_hsm_that_is_no_longer_what_it_was_is_noticed(change, grave, slight):
    recorded = json.loads(json.dumps(as_record(BASE)))
    assert drift(recorded, as_record(dataclasses.replace(BASE, **change))) == (grave, slight)


def test_another_token_is_noticed_by_its_serial():
    recorded = {"name": "pkcs11:1", **as_record(BASE)}
    assert drift(recorded, {**recorded, "name": "pkcs11:2"}).grave == ("name: was pkcs11:1, is pkcs11:2",)


def test_what_is_more_than_was_recorded_is_worth_a_word_only():
    recorded = as_record(dataclasses.replace(BASE, signatures=frozenset(), mac=False))
    assert drift(recorded, as_record(BASE)) == (
        (),
        ("ES256: works now", "EdDSA: works now", "mac: works now"),
    )


def test_every_part_of_a_record_has_its_weight(token_uri):
    with open_backend(token_uri) as backend:
        record = record_of(backend)
    assert set(record) == set(WEIGHTS)
    assert record["name"].startswith("pkcs11:")
    assert record["firmware"]
