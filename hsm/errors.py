"""The one family of errors that every backend raises.

A caller needs three things of an HSM error: what was being done (`op`), whether the same call may be
made again (`retry_safe`), and the vendor's own word for it (`code_name`, for logs and alerts). No text
ever holds a PIN, a key or plaintext.
"""

# The names say what happened to whom: a suffix on each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from typing import ClassVar


class HsmError(Exception):
    """An operation on the HSM failed.

    `op` is the method of `HsmBackend` that failed; `code_name` is what the HSM itself called the
    failure (`CKR_DEVICE_ERROR`, `HTTP 503`), empty where the failure is ours. `retry_safe` says whether
    the same call with the same arguments may be made again without harm and with hope.
    """

    retry_safe: ClassVar[bool] = False

    def __init__(self, op: str, message: str, *, code_name: str = "") -> None:
        super().__init__(op, message, code_name)
        self.op = op
        self.message = message
        self.code_name = code_name

    def __str__(self) -> str:
        code = f" ({self.code_name})" if self.code_name else ""
        return f"{self.op}: {self.message}{code}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross a process boundary when the vendor's library is isolated; a keyword-only argument
        # does not survive pickling by itself.
        return (_rebuild, (type(self), self.op, self.message, self.code_name))


def _rebuild(kind: type[HsmError], op: str, message: str, code_name: str) -> HsmError:
    return kind(op, message, code_name=code_name)


class HsmUnavailable(HsmError):
    """The HSM, its library or the way to it does not work now."""

    retry_safe = True


class HsmBusy(HsmError):
    """Every session is in use, or the HSM has no room for one more; nothing was done."""

    retry_safe = True


class HsmAuthFailed(HsmError):
    """The PIN or token was refused. Never retried: a few wrong PINs lock or wipe a real HSM."""


class KeyNotFound(HsmError):
    """No key has that label and id."""


class KeyAmbiguous(HsmError):
    """More than one object answers to that label or id, so none is used."""


class KeyNotPermitted(HsmError):
    """The key exists, but its state or attributes, or the HSM's rules, forbid this use."""


class HsmIntegrityError(HsmError):
    """The blob or its context is not what was wrapped: damaged, swapped, or of another key."""


class HsmUnsupported(HsmError):
    """The HSM cannot do that, or refused the parameters that this library fixes."""


class HsmPolicyViolation(HsmError):
    """A key is not what policy demands: extractable, not made in the HSM, or used up."""
