"""Whose rows the work at hand may see and write: what PostgreSQL's row-level security is told (`row_security.py`).

A call begins with nobody's rows, and with the tenant of its caller's verified token once that is known, whatever names
the request holds. So a check that the code above forgot finds nothing of anyone else. What the vault does of itself, or
for an operator of the vault beyond the operator's own tenant, says so by name: `ALL_TENANTS`, `widen`.

The declaration belongs to the task, and to those that it starts.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING

from vault.model import SYSTEM_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Reach = frozenset[str]
"""Tenants, or `ALL_TENANTS`."""

NOBODY: Reach = frozenset()
ALL_TENANTS: Reach = frozenset("*")

_declared: contextvars.ContextVar[Reach] = contextvars.ContextVar("reach", default=NOBODY)


def of(*tenants: str) -> Reach:
    """The rows of these tenants."""
    return frozenset(tenants)


def current() -> Reach:
    """What this task has declared."""
    return _declared.get()


def declare(reach: Reach) -> None:
    """Declare for the rest of this task, in the place of what was declared before."""
    _declared.set(reach)


def widen(tenant: str) -> None:
    """Beside what is declared, the rows of one more tenant for the rest of this task.

    Only behind a check that the caller may act beyond its own tenant.
    """
    _declared.set(_declared.get() | {tenant})


def with_system() -> Reach:
    """Beside what is declared, the vault's own rows: a wrapped key's root is one, and every call needs such keys."""
    return _declared.get() | {SYSTEM_TENANT}


@contextlib.contextmanager
def declared(reach: Reach) -> Iterator[None]:
    """Declare for a block."""
    token = _declared.set(reach)
    try:
        yield
    finally:
        _declared.reset(token)


def union(reaches: Iterable[Reach]) -> Reach:
    """What work for several callers at once declares. Each may still be given only what lies in its own reach."""
    return NOBODY.union(*reaches)


def covers(reach: Reach, tenant: str) -> bool:
    """Whether a tenant's rows lie in a reach."""
    return tenant in reach or "*" in reach


def as_array(reach: Reach) -> str:
    """A reach as the text of a PostgreSQL array; empty if it is nobody's."""
    quoted = (tenant.replace("\\", "\\\\").replace('"', '\\"') for tenant in sorted(reach))
    return "{" + ",".join(f'"{tenant}"' for tenant in quoted) + "}" if reach else ""
