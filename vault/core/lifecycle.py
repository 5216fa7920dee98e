"""The life of a key version after it was active: retired, quarantined, restored, destroyed.

What holds: only a version that is not active changes here; only one that nothing depends on is retired or destroyed,
the latter by order of one who has the approval of others, after a delay, by the vault itself. Nothing new ever comes
under a version that is not active, so what was empty stays empty.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from typing import TYPE_CHECKING, NamedTuple

from hsm import HsmError, KeyNotFound
from hsm import KeyState as HsmKeyState
from vault.core import approvals as approving
from vault.core import audit, requests
from vault.core.hsm import ref
from vault.core.jobs import Order
from vault.crypto.approvals import Operation
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    AuditDraft,
    JobKind,
    Key,
    KeyDestruction,
    KeyPurpose,
    KeyState,
    Origin,
    Outcome,
    Placement,
)
from vault.store import keys as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm, OneHsm
    from vault.core.jobs import Jobs
    from vault.core.keys import Keyring
    from vault.model import Caller, JobProgress
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.keys")

ACTOR = "strongroom"
RETIRE, QUARANTINE, RESTORE, DESTROY = "key.retire", "key.quarantine", "key.restore", "key.destroy"
DELAY = datetime.timedelta(days=7)
MAX_DELAY = datetime.timedelta(days=90)
ANNOUNCED = datetime.timedelta(minutes=10)
"""How long a key may be announced and not in use: far longer than making it takes."""
_AT_ONCE = 100
_EMPTYING = (KeyState.DECRYPT_ONLY, KeyState.QUARANTINED, KeyState.SEALED_OFF)


class _Step(NamedTuple):
    """From which states a version may go to which."""

    action: str
    allowed: tuple[KeyState, ...]
    to: KeyState


class Quarantined(NamedTuple):
    """A version in quarantine, and the job that empties it."""

    key: Key
    job: JobProgress


class Lifecycle:
    """Takes versions of tenants' keys out of use, and carries out their destruction."""

    def __init__(
        self,
        database: Database,
        hsm: Hsm,
        log_: AuditLog,
        keyring: Keyring,
        jobs: Jobs,
        approvals: Approvals,
        clock: Clock,
    ) -> None:
        self._database = database
        self._hsm = hsm
        self._log = log_
        self._keyring = keyring
        self._jobs = jobs
        self._approvals = approvals
        self._clock = clock

    async def retire(self, caller: Caller, tenant: str, version: int, *, validate_only: bool) -> Key:
        """Take a version out of use that nothing depends on. For the errors see `KeyService.Retire`."""
        key = await self._admit(caller, RETIRE, tenant, version)
        await self._refuse_in_use(key)
        step = _Step(RETIRE, (*_EMPTYING, KeyState.RETIRED), KeyState.RETIRED)
        retired = await self._step(
            _draft(caller, step.action, tenant), key, step, validate_only=validate_only
        )
        if not validate_only:
            await self._switch(retired, HsmKeyState.DISABLED)
        return retired

    async def quarantine(
        self, caller: Caller, tenant: str, version: int, *, refuse_reads: bool, validate_only: bool
    ) -> Quarantined:
        """Put a version into quarantine and empty it. For the errors see `KeyService.Quarantine`."""
        key = await self._admit(caller, RETIRE, tenant, version)
        draft = _draft(caller, QUARANTINE, tenant)
        to = KeyState.SEALED_OFF if refuse_reads else KeyState.QUARANTINED
        order = Order(tenant, JobKind.REENCRYPT, source_version=version, urgent=True)
        if validate_only:
            allowed = (KeyState.ACTIVE, *_EMPTYING)
            key = await self._step(draft, key, _Step(QUARANTINE, allowed, to), validate_only=True)
            return Quarantined(key, await self._begin(draft, order, validate_only=True))
        if key.state is KeyState.ACTIVE:
            rotating = draft._replace(action="key.rotate")
            await self._keyring.renew(tenant, KeyPurpose.KEK, rotating)
        key = await self._step(draft, key, _Step(QUARANTINE, _EMPTYING, to), validate_only=False)
        starting = draft._replace(action="job.start")
        return Quarantined(key, await self._begin(starting, order, validate_only=False))

    async def _begin(self, draft: AuditDraft, order: Order, *, validate_only: bool) -> JobProgress:
        """The job that empties a version; the one that does so already if there is one."""
        try:
            return await self._jobs.begin(draft, order, None, validate_only)
        except VaultError as error:
            if error.reason is not Reason.JOB_RUNNING:
                raise
            return await self._jobs.progress(order.tenant, error.metadata["job_id"])

    async def restore(self, caller: Caller, tenant: str, version: int, *, validate_only: bool) -> Key:
        """Take one step back. For the errors see `KeyService.Restore`."""
        key = await self._admit(caller, RETIRE, tenant, version)
        if key.state is KeyState.RETIRED:
            step = _Step(RESTORE, (KeyState.RETIRED,), KeyState.DECRYPT_ONLY)
            if not validate_only:
                # First in the HSM: the vault must not rely on what does not open yet.
                for one in self._hsm.holders(key):
                    await one.call(one.backend.set_key_state, ref(key), HsmKeyState.DECRYPT_ONLY)
        else:
            step = _Step(RESTORE, (KeyState.DESTROY_SCHEDULED,), KeyState.RETIRED)
        return await self._step(_draft(caller, RESTORE, tenant), key, step, validate_only=validate_only)

    async def destroy(
        self,
        caller: Caller,
        tenant: str,
        version: int,
        delay: datetime.timedelta | None,
        approval_id: str,
        *,
        validate_only: bool,
    ) -> tuple[Key, datetime.datetime]:
        """Schedule a version for destruction. For the errors see `KeyService.Destroy`."""
        key = await self._admit(caller, approving.DESTROY_KEY, tenant, version)
        delay = DELAY if delay is None else delay
        if not datetime.timedelta(0) <= delay <= MAX_DELAY:
            raise invalid_field("delay", f"0 to {MAX_DELAY.days} days")
        await self._refuse_in_use(key)
        operation = Operation(approving.DESTROY_KEY, f"{tenant}/keys", {"version": str(version)})
        draft = _draft(caller, "key.schedule_destruction", tenant)
        own = _row_key(key)
        ending = RowKey("key_destructions", own.key)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get(own.table, *own.key)
            current = store.key_from(row) if row else key
            _refuse_unless(current, (*_EMPTYING, KeyState.RETIRED))
            moment = now + delay
            after = dataclasses.replace(current, state=KeyState.DESTROY_SCHEDULED)
            if validate_only:
                return Commit((_validated(draft, current, after),), (), (after, moment))
            used = self._approvals.consume(rows, caller, operation, approval_id, now)
            order = KeyDestruction(
                tenant, key.purpose, version, moment, caller.identity, approval_id, order_time=now
            )
            record = _changed(draft, current, after, destroy_time=moment.isoformat(), approval=approval_id)
            writes = (
                Write("keys", store.key_row(after)),
                Write("key_destructions", store.destruction_row(order)),
                *used,
            )
            return Commit((record,), writes, (after, moment))

        doomed: tuple[Key, datetime.datetime] = await self._log.commit(
            Unit((own, ending, *self._approvals.reads(approval_id)), decide)
        )
        self._keyring.forget_tenant(tenant)
        if not validate_only:
            await self._switch(key, HsmKeyState.DISABLED)
        return doomed

    async def carry_out(self) -> None:
        """Destroy what is due. Safe on every worker at once: the HSM destroys once, and the log says who was told."""
        async with self._database.read() as connection:
            due = await store.list_destructions(connection, due=self._clock.now())
        for order in due:
            try:
                await self._destroy(order)
            except VaultError as error:
                log.warning("a key was not destroyed", extra={"reason": error.reason.value})

    async def clear_announced(self) -> None:
        """Destroy what a crash left between the two steps of making a tenant's key: announced, and never in use.

        Nobody knows in which HSM it was made, if in any, so it is looked for in all.
        """
        if self._hsm.has_second and self._hsm.second is None:
            return
        before = self._clock.now() - ANNOUNCED
        async with self._database.read() as connection:
            found = await store.announced(
                connection, before, purposes=(KeyPurpose.KEK, KeyPurpose.SUBJECT), limit=_AT_ONCE
            )
        for key in found:
            for name in self._hsm.names:
                one = self._hsm.one(name)
                await one.call(_erase, one, key)
            await self._log.commit(_clear_unit(key))

    async def _destroy(self, order: KeyDestruction) -> None:
        key = await self._keyring.version(order.tenant, order.purpose, order.version)
        await self._refuse_in_use(key)
        draft = AuditDraft(
            order.tenant, ACTOR, DESTROY, f"{order.tenant}/keys", Outcome.GRANTED, Origin(),
        )  # fmt: skip
        # Intent: from here on nobody can take it back.
        try:
            await self._log.commit(
                _end_unit(draft._replace(action="key.destroying"), order, KeyState.DESTROY_SCHEDULED)
            )
        except VaultError as error:
            if error.reason is Reason.KEY_STATE_UNSUITABLE:
                return
            raise
        for one in self._hsm.holders(key):
            await one.call(_erase, one, key)
        if key.placement is Placement.WRAPPED:
            await self._keyring.shred(key, draft.identity)
        await self._log.commit(_end_unit(draft, order, KeyState.DESTROYED))

    async def _admit(self, caller: Caller, action: str, tenant: str, version: int) -> Key:
        requests.customer_tenant(tenant)
        requests.require(caller, action, f"{tenant}/keys")
        if version < 1:
            raise invalid_field("version", "is required, from 1")
        self._keyring.forget_tenant(tenant)
        await self._keyring.active(tenant, KeyPurpose.KEK)
        return await self._keyring.version(tenant, KeyPurpose.KEK, requests.version(version))

    async def _refuse_in_use(self, key: Key) -> None:
        _refuse_unless(key, tuple(state for state in KeyState if state is not KeyState.ACTIVE))
        async with self._database.read() as connection:
            count = await store.dependants(connection, key.tenant, key.version)
        if count:
            raise VaultError(
                Reason.KEY_IN_USE, f"{count} still depend on it; rewrap first", credential_versions=str(count)
            )

    async def _step(self, draft: AuditDraft, key: Key, step: _Step, *, validate_only: bool) -> Key:
        own = _row_key(key)
        ending = RowKey("key_destructions", own.key)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get(own.table, *own.key)
            before = store.key_from(row) if row else key
            _refuse_unless(before, step.allowed)
            after = dataclasses.replace(before, state=step.to)
            if validate_only:
                return Commit((_validated(draft, before, after),), (), after)
            writes = [Write("keys", store.key_row(after))]
            order = rows.get(ending.table, *ending.key)
            if order is not None and order["destroy_time"] is not None:
                if order["destroy_time"] <= now:
                    raise _unsuitable(before)
                writes.append(Write("key_destructions", {**order, "destroy_time": None}))
            return Commit((_changed(draft, before, after),), tuple(writes), after)

        changed: Key = await self._log.commit(Unit((own, ending), decide))
        self._keyring.forget_tenant(key.tenant)
        return changed

    async def _switch(self, key: Key, state: HsmKeyState) -> None:
        """Have the HSM enforce what the vault decided. Where it cannot, the vault's own decision stands alone."""

        def set_state(one: OneHsm) -> None:
            try:
                one.backend.set_key_state(ref(key), state)
            except HsmError as error:
                log.warning(
                    "the HSM does not switch off a key",
                    extra={"error": type(error).__name__, "label": key.label},
                )

        for one in self._hsm.holders(key):
            await one.call(set_state, one)


def _end_unit(draft: AuditDraft, order: KeyDestruction, to: KeyState) -> Unit:
    """The two units of a destruction: the intent leaves the row as it is, the outcome ends it."""
    own = RowKey("keys", (order.tenant, order.purpose.value, order.version))
    ending = RowKey("key_destructions", own.key)

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row, found = rows.get(own.table, *own.key), rows.get(ending.table, *ending.key)
        if row is None or found is None or found["destroy_time"] is None or found["destroy_time"] > now:
            raise VaultError(Reason.KEY_STATE_UNSUITABLE, "the destruction was taken back, or is done")
        before = store.key_from(row)
        _refuse_unless(before, (KeyState.DESTROY_SCHEDULED,))
        if to is not KeyState.DESTROYED:
            return Commit((draft._replace(before_state=_state(before)),))
        after = dataclasses.replace(before, state=to)
        writes = (
            Write("keys", store.key_row(after)),
            Write("key_destructions", {**found, "destroy_time": None}),
        )
        return Commit((_changed(draft, before, after, ordered_by=order.ordered_by),), writes)

    return Unit((own, ending), decide)


def _clear_unit(key: Key) -> Unit:
    """The unit that ends a key that was only announced."""
    own = _row_key(key)
    draft = AuditDraft(key.tenant, ACTOR, "key.clear", f"{key.tenant}/keys", Outcome.GRANTED, Origin())

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        row = rows.get(own.table, *own.key)
        before = store.key_from(row) if row else key
        after = dataclasses.replace(before, state=KeyState.DESTROYED)
        if before.state is not KeyState.PENDING:  # another worker was first
            return Commit((draft._replace(before_state=_state(before)),))
        return Commit((_changed(draft, before, after),), (Write("keys", store.key_row(after)),))

    return Unit((own,), decide)


def _row_key(key: Key) -> RowKey:
    return RowKey("keys", (key.tenant, key.purpose.value, key.version))


def _draft(caller: Caller, action: str, tenant: str) -> AuditDraft:
    return audit.granted(caller, action, f"{tenant}/keys")


def _refuse_unless(key: Key, allowed: Sequence[KeyState]) -> None:
    if key.state not in allowed:
        raise _unsuitable(key)


def _unsuitable(key: Key) -> VaultError:
    return VaultError(
        Reason.KEY_STATE_UNSUITABLE,
        f"a version that is {key.state.value} cannot do that",
        state=key.state.value,
    )


def _state(key: Key, **more: str) -> str:
    return canonical_json({"version": key.version, "state": key.state.value, **more})


def _changed(draft: AuditDraft, before: Key, after: Key, **more: str) -> AuditDraft:
    return draft._replace(before_state=_state(before), after_state=_state(after, **more))


def _validated(draft: AuditDraft, before: Key, after: Key) -> AuditDraft:
    state = canonical_json({"validate_only": True, "version": after.version, "state": after.state.value})
    return draft._replace(before_state=_state(before), after_state=state)


def _erase(one: OneHsm, key: Key) -> None:
    try:
        one.backend.destroy_key(ref(key), confirm=key.label)
    except KeyNotFound:
        log.info("a key was destroyed already", extra={"label": key.label})
