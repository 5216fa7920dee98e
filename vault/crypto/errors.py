"""What can go wrong in cryptography. No text ever holds a secret or what was being opened."""

from __future__ import annotations


class CryptoError(Exception):
    """The base of all errors that say something of what was being worked on."""


class FormatError(CryptoError):
    """Bytes are not of the form they should have: truncated, too long, of an unknown version."""


class IntegrityError(CryptoError):
    """Something does not verify: altered, swapped, rolled back, or sealed for another context."""


class BufferClosed(CryptoError):  # noqa: N818 - a state, not a failure
    """A locked buffer was used after it was wiped."""


class UnknownSuite(CryptoError):  # noqa: N818
    """A suite's number or name is not in the table."""


class LockedMemoryExhausted(Exception):  # noqa: N818
    """There is no more memory that may be locked. No `CryptoError`: nothing is wrong with what was being worked on."""
