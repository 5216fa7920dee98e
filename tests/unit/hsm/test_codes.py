from __future__ import annotations

import pkcs11.exceptions
import pytest
from pkcs11.exceptions import PKCS11Error

from hsm import errors
from hsm.errors import HsmError
from hsm.pkcs11.codes import (
    CODES,
    MESSAGES,
    CryptokiError,
    Remedy,
    as_failure,
    as_hsm_error,
    orderly,
    to_error,
)

CLASSES = [
    kind
    for kind in vars(pkcs11.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, PKCS11Error) and kind is not PKCS11Error
]
WITHOUT_CODE = {"MultipleObjectsReturned", "NoSuchKey", "MultipleTokensReturned", "NoSuchToken"}


@pytest.mark.parametrize("rv", sorted(CODES))
def test_every_code_becomes_an_error_with_a_text(rv):
    error = to_error("op", CryptokiError(rv))
    assert error.message == MESSAGES[type(error)]
    assert error.code_name.startswith("CKR_")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_exception_of_the_binding_has_a_code(kind):
    if kind.__name__ in WITHOUT_CODE:
        assert isinstance(as_hsm_error("op", kind()), HsmError)
        return
    assert as_failure("op", kind()).rv in CODES


@pytest.mark.parametrize(
    ("text", "rv"),
    [
        ("Unmapped error code 0x68", 0x68),
        ("Unmapped error code 0x80000201", 0x80000201),
        ("Buffer was too small. Should never see this.", 0x150),
        ("Initialisation error (not initialized). Should never see this.", 0x190),
        ("Initialisation error (already initialized). Should never see this.", 0x191),
        ("User type invalid. Should never see this.", 0x103),
    ],
)
def test_codes_in_texts_are_found(text, rv):
    assert as_failure("op", PKCS11Error(text)).rv == rv


def test_an_unknown_exception_is_unavailability_and_its_text_is_dropped():
    with pytest.raises(errors.HsmUnavailable) as caught:
        as_failure("op", PKCS11Error("who knows what"))
    assert "who knows" not in str(caught.value)


def test_vendors_codes_are_unavailability_to_be_healed():
    code = CryptokiError(0x80000001).code
    assert (code.name, code.error, code.remedy) == ("CKR_0x80000001", errors.HsmUnavailable, Remedy.CONNECT)


def test_pin_errors_have_no_remedy():
    for code in CODES.values():
        if code.error is errors.HsmAuthFailed:
            assert code.remedy is Remedy.NONE


def test_only_the_callers_own_errors_keep_a_session():
    assert orderly(CryptokiError(0x68))
    assert not orderly(CryptokiError(0x05))
    assert not orderly(MemoryError())
    assert orderly(errors.HsmIntegrityError("op", ""))
