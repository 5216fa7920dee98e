from __future__ import annotations

import pickle

import pytest

from hsm import errors
from hsm.errors import HsmError
from hsm.model import KeyAlgorithm, KeyPurpose, KeyRef, SignatureAlgorithm
from hsm.usage import UsageCounter


@pytest.mark.parametrize("label", ["", "x" * 41, "schlüssel", "tab\t", "nul\0"])
def test_labels_that_some_hsm_would_not_take_are_refused(label):
    with pytest.raises(ValueError, match="label"):
        KeyRef(label, bytes(16))


@pytest.mark.parametrize("object_id", [b"", bytes(15), bytes(17), bytearray(16), "x" * 16])
def test_ids_are_sixteen_bytes(object_id):
    with pytest.raises(ValueError, match="id"):
        KeyRef("label", object_id)


def test_every_algorithm_has_one_purpose():
    assert {algorithm.purpose for algorithm in KeyAlgorithm} == set(KeyPurpose)
    assert {algorithm.key_algorithm.purpose for algorithm in SignatureAlgorithm} == {KeyPurpose.SIGNING}


FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HsmError)]


@pytest.mark.parametrize("kind", FAMILY)
def test_errors_say_what_and_whether_to_retry_and_survive_pickling(kind):
    error = kind("wrap", "the text", code_name="CKR_X")
    assert str(error) == "wrap: the text (CKR_X)"
    assert isinstance(kind.retry_safe, bool)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.op, again.message, again.code_name) == (kind, "wrap", "the text", "CKR_X")


def test_only_passing_trouble_may_be_retried():
    assert {kind for kind in FAMILY if kind.retry_safe} == {errors.HsmUnavailable, errors.HsmBusy}


def test_a_worn_out_key_is_refused_before_the_limit():
    counter, ref = UsageCounter(warn_at=2, refuse_at=4), KeyRef("k", bytes(16))
    for _ in range(3):
        counter.spend(ref)
    with pytest.raises(errors.HsmPolicyViolation):
        counter.spend(ref)
    assert counter.snapshot() == {ref: 3}
    counter.note(ref, 1)
    assert counter.snapshot() == {ref: 3}
    counter.forget(ref)
    assert counter.snapshot() == {}
    with pytest.raises(ValueError, match="negative"):
        counter.note(ref, -1)


def test_wraps_that_are_written_down_are_counted_no_longer():
    counter, ref = UsageCounter(), KeyRef("k", bytes(16))
    for _ in range(3):
        counter.spend(ref)
    counter.settle(ref, 2)
    assert counter.snapshot() == {ref: 1}
    counter.settle(ref, 1)
    counter.settle(ref, 1)
    assert counter.snapshot() == {}, "what is kept does not grow with the number of keys"
