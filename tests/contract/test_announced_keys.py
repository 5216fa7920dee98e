"""A key that was announced and perhaps made, and then the worker died: nothing of it stays in the HSM."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

import pytest

from hsm import KeyAlgorithm
from vault import config
from vault.core.lifecycle import Lifecycle
from vault.model import AuditDraft, KeyPurpose, KeyState, Origin, Outcome
from vault.server.foundation import Foundation, foundation
from vault.store import keys

if TYPE_CHECKING:
    from tests.support.vault import VaultSite


@dataclasses.dataclass
class Later:
    """The vault's clock, ahead."""

    base: Foundation
    minutes: int

    def now(self) -> datetime.datetime:
        return self.base.clock.now() + datetime.timedelta(minutes=self.minutes)

    def monotonic(self) -> float:
        return self.base.clock.monotonic() + 60 * self.minutes


async def make(base: Foundation) -> int:
    """A tenant's key, made as the vault makes it, without a token's check."""
    draft = AuditDraft("acme", "test", "key.create_tenant", "acme/keys", Outcome.GRANTED, Origin())
    made = await base.keyring._make("acme", KeyPurpose.KEK, KeyAlgorithm.AES_256, draft, None)
    return made.version


@pytest.mark.parametrize("made", [True, False], ids=["after it was made", "before it was made"])
async def test_what_a_crash_leaves_of_a_key_is_destroyed_and_the_tenant_can_be_made(
    fresh_site: VaultSite, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    settings = config.load(fresh_site.config_file)
    prefix = f"{settings.hsm.deployment}/kek/"
    async with foundation(settings) as base:
        create = base.hsm.create

        async def crash(*arguments: object) -> bytes:
            if made:
                await create(*arguments)  # type: ignore[arg-type]
            raise RuntimeError("the worker dies here")

        with monkeypatch.context() as dying:
            dying.setattr(base.hsm, "create", crash)
            with pytest.raises(RuntimeError):
                await make(base)
        assert len(base.hsm.backend.list_keys(prefix)) == made

        async def clear(minutes: int) -> KeyState:
            clock = Later(base, minutes)
            parts = (base.database, base.hsm, base.log, base.keyring, None, None, clock)
            await Lifecycle(*parts).clear_announced()  # type: ignore[arg-type]
            async with base.database.read() as connection:
                return (await keys.list_keys(connection, "acme", KeyPurpose.KEK))[-1].state

        assert await clear(9) is KeyState.PENDING, "a call under way is left alone"
        assert len(base.hsm.backend.list_keys(prefix)) == made
        assert await clear(11) is KeyState.DESTROYED
        assert base.hsm.backend.list_keys(prefix) == []
        assert await make(base) == 2
        assert len(base.hsm.backend.list_keys(prefix)) == 1
        assert await clear(11) is KeyState.DESTROYED
        assert (await base.keyring.active("acme", KeyPurpose.KEK)).version == 2
