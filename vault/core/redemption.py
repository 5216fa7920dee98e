"""Tokens that are good for a number of sessions: each is counted in the ledger, in the transaction of its record.

So of many at once, on any number of workers, as many are let in as there are sessions left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core.revocations import MAX_TOKEN_LIFE, SKEW
from vault.errors import Reason, VaultError
from vault.store.rows import RowKey, Write

if TYPE_CHECKING:
    import datetime

    from vault.model import Token
    from vault.store.ledger import Rows


def reads(token: Token) -> tuple[RowKey, ...]:
    """The rows to look at before a session: its own, and those of the tokens it comes from, where there is a limit."""
    return tuple(RowKey("token_uses", (token.tenant, token_id)) for token_id in token.session_limits)


def count(rows: Rows, token: Token, now: datetime.datetime) -> tuple[Write, ...]:
    """What to write for one session more. Raises `TOKEN_USED_UP`."""
    writes = []
    for token_id, most in token.session_limits.items():
        row = rows.get("token_uses", token.tenant, token_id)
        opened = row["sessions"] if row else 0
        if opened >= most:
            raise VaultError(Reason.TOKEN_USED_UP, "the token opened as many sessions as it was good for")
        new = {
            "tenant": token.tenant,
            "token_id": token_id,
            "sessions": opened + 1,
            "forget_time": now + MAX_TOKEN_LIFE + SKEW,
        }
        writes.append(Write("token_uses", new))
    return tuple(writes)
