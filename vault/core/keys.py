"""Keys: made in the HSM, known here by label and id; tenants and their key-encryption keys.

A key is made in two steps, so that a crash leaves something to find and never something ambiguous: its
row is announced (`pending`, with the object id it will have) before the HSM makes it, and made `active`
in the transaction that its audit record is in.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from hsm import KeyAlgorithm
from vault.core import audit, requests
from vault.core.key_making import Making, label_of, summary
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    SYSTEM_TENANT,
    AuditDraft,
    Key,
    KeyHome,
    KeyPurpose,
    KeyState,
    Origin,
    Outcome,
    Placement,
)
from vault.store import credentials, jobs, keys
from vault.store.ledger import Commit, Unit
from vault.store.reach import ALL_TENANTS, declared, widen, with_system
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Sequence

    from hsm import KeyInfo
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.model import AuditRecord, Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

_REWRAP_AT_ONCE = 50
_REMEMBERED = 1024  # keys, with all of their versions
REWRAP_ROOT = "key.rewrap_root"
_TRIES = 6
_PAUSE_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class KeyDescription:
    """A key version, what the HSM says of it, and how much depends on it."""

    key: Key
    info: KeyInfo
    credential_versions: int


@dataclasses.dataclass(frozen=True)
class Homes:
    """Where a new key shall lie. What is not said is as with the version before, or as the configuration says."""

    placement: Placement | None = None
    backends: tuple[str, ...] = ()
    """The HSMs by name, or `first` and `second`; two of them for a mirrored key."""

    def __str__(self) -> str:
        return f"{self.placement or ''}:{','.join(self.backends)}"


class _Versions(NamedTuple):
    """What is known of a key: its version for new things, and every version that can be used."""

    active: Key | None
    all: dict[int, Key]


class Keyring:
    """Knows the keys. Those used last are remembered, until the log tells of a change."""

    def __init__(
        self,
        database: Database,
        hsm: Hsm,
        log: AuditLog,
        deployment: str,
        placement: Placement = Placement.TOKEN,
    ) -> None:
        self._placement = placement
        self._database = database
        self._hsm = hsm
        self._log = log
        self._deployment = deployment
        self._known: OrderedDict[tuple[str, KeyPurpose], _Versions] = OrderedDict()
        self._changes = 0
        self._ensuring = asyncio.Lock()

    def forget(self, record: AuditRecord) -> None:
        """Take note of a change in the log: what is remembered of that tenant's keys is out of date."""
        if record.action == REWRAP_ROOT:
            self._known.clear()
            self._changes += 1
        elif record.action.startswith("key.") or record.action == "tenant.erase":
            self.forget_tenant(record.resource.partition("/")[0])

    def forget_tenant(self, tenant: str) -> None:
        """Look a tenant's keys up again at the next use."""
        self._changes += 1
        for purpose in KeyPurpose:
            self._known.pop((tenant, purpose), None)

    async def active(self, tenant: str, purpose: KeyPurpose) -> Key:
        """The version that is in use for new things. Raises `TENANT_NOT_FOUND`."""
        known = self._recall(tenant, purpose)
        if known is None or known.active is None:
            known = await self._learn(tenant, purpose)
        if known.active is None:
            raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
        return known.active

    async def version(self, tenant: str, purpose: KeyPurpose, version: int) -> Key:
        """One version. Raises `KEY_NOT_FOUND`."""
        known = self._recall(tenant, purpose)
        if known is None or version not in known.all:
            known = await self._learn(tenant, purpose)
        if version not in known.all:
            raise VaultError(Reason.KEY_NOT_FOUND, "no such key version")
        return known.all[version]

    async def versions(self, tenant: str, purpose: KeyPurpose) -> list[Key]:
        """Every version that can still be used, newest first."""
        known = await self._learn(tenant, purpose)
        return sorted(known.all.values(), key=lambda key: -key.version)

    async def create_system_keys(self, actor: str) -> list[Key]:
        """Make the vault's own keys, those that are missing. Returns those that it made."""
        made = []
        for purpose, algorithm in await self._missing_system_keys():
            draft = AuditDraft(SYSTEM_TENANT, actor, "key.create", "", Outcome.GRANTED, Origin())
            made.append(await self._make(SYSTEM_TENANT, purpose, algorithm, draft, None))
        return made

    async def missing_system_keys(self) -> list[str]:
        """The labels of the vault's own keys that `create_system_keys` would make."""
        draft = AuditDraft(SYSTEM_TENANT, "", "key.create", "", Outcome.GRANTED, Origin())
        return [
            (await self._plan(SYSTEM_TENANT, purpose, algorithm, draft, None)).label
            for purpose, algorithm in await self._missing_system_keys()
        ]

    async def _missing_system_keys(self) -> list[tuple[KeyPurpose, KeyAlgorithm]]:
        signs = self._hsm.backend.capabilities().signatures
        checkpoint = KeyAlgorithm.ED25519 if "EdDSA" in signs else KeyAlgorithm.EC_P256
        wanted = (
            (KeyPurpose.TOKEN, KeyAlgorithm.EC_P256),
            (KeyPurpose.CHECKPOINT, checkpoint),
            (KeyPurpose.INGEST, KeyAlgorithm.AES_256),
            (KeyPurpose.PAGE, KeyAlgorithm.HMAC_SHA256),
            (KeyPurpose.SUBJECT_INDEX, KeyAlgorithm.HMAC_SHA256),
            (KeyPurpose.BACKUP, KeyAlgorithm.AES_256),
            *(
                [(KeyPurpose.ROOT, KeyAlgorithm.AES_256_ROOT)]
                if self._hsm.backend.capabilities().wrapped_keys
                else []
            ),
        )
        return [
            (purpose, algorithm)
            for purpose, algorithm in wanted
            if (await self._learn(SYSTEM_TENANT, purpose)).active is None
        ]

    async def create_tenant(
        self,
        caller: Caller,
        tenant: str,
        request_id: str,
        homes: Homes = Homes(),
        *,
        validate_only: bool = False,
    ) -> Key:
        """Make a tenant and its first key-encryption key. Raises `TENANT_EXISTS`, `HSM_UNAVAILABLE`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "tenant.create", f"{SYSTEM_TENANT}/tenants/{tenant}")
        widen(tenant)
        repeat = requests.repeat(caller, "key.create_tenant", request_id, tenant, str(homes))
        draft = audit.granted(caller, "key.create_tenant", f"{tenant}/keys")
        if validate_only:
            return await self._imagine(tenant, KeyPurpose.KEK, KeyAlgorithm.AES_256, draft, homes)
        return await self._make(tenant, KeyPurpose.KEK, KeyAlgorithm.AES_256, draft, repeat, homes)

    async def rotate(
        self,
        caller: Caller,
        tenant: str,
        request_id: str,
        purpose: KeyPurpose = KeyPurpose.KEK,
        *,
        homes: Homes = Homes(),
        validate_only: bool = False,
    ) -> Key:
        """Make a new version of a key and put it to use. Raises `TENANT_NOT_FOUND`, `KEY_CHANGED`."""
        requests.require(caller, "key.rotate", f"{tenant}/keys")
        repeat = requests.repeat(caller, "key.rotate", request_id, tenant, purpose.value, str(homes))
        draft = audit.granted(caller, "key.rotate", f"{tenant}/keys")
        active = await self.active(tenant, purpose)
        algorithm = KeyAlgorithm(active.algorithm)
        if validate_only:
            return await self._imagine(tenant, purpose, algorithm, draft, homes)
        return await self._make(tenant, purpose, algorithm, draft, repeat, homes)

    async def renew(self, tenant: str, purpose: KeyPurpose, draft: AuditDraft, *, instead_of: int = 0) -> Key:
        """Make a new version for whom the draft names, in the place of the active one, or of this version only.

        Raises `KEY_CHANGED` if that is not active any more.
        """
        await self._learn(tenant, purpose)
        active = await self.active(tenant, purpose)
        if instead_of and active.version != instead_of:
            raise VaultError(Reason.KEY_CHANGED, "the key was rotated already")
        return await self._make(tenant, purpose, KeyAlgorithm(active.algorithm), draft, None)

    async def ensure_subject_key(self, tenant: str, draft: AuditDraft) -> Key:
        """The key that wraps the keys of a tenant's data subjects, made if there is none. `draft` says who asks."""
        making = draft._replace(action="key.create", resource=f"{tenant}/subject")
        for attempt in range(_TRIES):
            if (key := (await self._learn(tenant, KeyPurpose.SUBJECT)).active) is not None:
                return key
            async with self._ensuring:
                if (key := (await self._learn(tenant, KeyPurpose.SUBJECT)).active) is not None:
                    return key
                try:
                    return await self._make(tenant, KeyPurpose.SUBJECT, KeyAlgorithm.AES_256, making, None)
                except (VaultError, RuntimeError) as error:
                    if isinstance(error, VaultError) and error.reason is not Reason.KEY_CHANGED:
                        raise
            # Another worker is making it at this moment.
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        raise VaultError(Reason.KEY_CHANGED, "another worker is making this key; try again")

    async def replace_subject_key(self, tenant: str, draft: AuditDraft) -> Key:
        """A new version of the key that wraps the keys of a tenant's data subjects. Raises `KEY_CHANGED`."""
        return await self._make(tenant, KeyPurpose.SUBJECT, KeyAlgorithm.AES_256, draft, None)

    async def list_keys(self, caller: Caller, tenant: str, *, before: int, limit: int) -> list[Key]:
        """A tenant's key versions, newest first. Raises `TENANT_NOT_FOUND`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        async with self._database.read(with_system()) as connection:
            found = await keys.list_keys(connection, tenant, KeyPurpose.KEK, before=before, limit=limit)
        if not found and before >= requests.MAX_VERSION:
            raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
        return found

    async def describe(self, caller: Caller, tenant: str, version: int) -> KeyDescription:
        """One key version (0: the active one). Raises `TENANT_NOT_FOUND`, `KEY_NOT_FOUND`, `HSM_UNAVAILABLE`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        active = await self.active(tenant, KeyPurpose.KEK)
        key = await self.version(tenant, KeyPurpose.KEK, version) if version else active
        async with self._database.read() as connection:
            count = await credentials.count_by_kek(connection, tenant, key.version)
        return KeyDescription(key, await self._hsm.key_info(key), count)

    async def list_uses(
        self, caller: Caller, tenant: str, version: int, *, after: tuple[str, int], limit: int
    ) -> list[tuple[str, int]]:
        """What a version of a tenant's key wraps, by name, behind `after`. Raises `KEY_NOT_FOUND`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        await self.active(tenant, KeyPurpose.KEK)
        await self.version(tenant, KeyPurpose.KEK, requests.version(version))
        async with self._database.read() as connection:
            found = await jobs.list_uses(connection, tenant, version, after=after, limit=limit)
        await self._log.record(audit.granted(caller, "key.list_uses", f"{tenant}/keys"))
        return found

    def _recall(self, tenant: str, purpose: KeyPurpose) -> _Versions | None:
        known = self._known.get((tenant, purpose))
        if known is not None:
            self._known.move_to_end((tenant, purpose))
        return known

    async def _learn(self, tenant: str, purpose: KeyPurpose) -> _Versions:
        before = self._changes
        async with self._database.read(with_system()) as connection:
            found = await keys.list_keys(connection, tenant, purpose)
        known = _Versions(
            next((key for key in found if key.state is KeyState.ACTIVE), None),
            {key.version: key for key in found if key.state is not KeyState.PENDING},
        )
        # Not what is not there, as the names that one can ask for are without number; and not what may have changed
        # while it was read.
        if known.all and self._changes == before:
            self._known[tenant, purpose] = known
            self._known.move_to_end((tenant, purpose))
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    async def _imagine(
        self, tenant: str, purpose: KeyPurpose, algorithm: KeyAlgorithm, draft: AuditDraft, wish: Homes
    ) -> Key:
        """The next version of a key as it would be made; nothing but the question is recorded."""
        imagined: Key = await self._log.commit(
            (await self._plan(tenant, purpose, algorithm, draft, None, wish)).imagine()
        )
        return imagined

    async def _make(
        self,
        tenant: str,
        purpose: KeyPurpose,
        algorithm: KeyAlgorithm,
        draft: AuditDraft,
        repeat: requests.Repeat | None,
        wish: Homes = Homes(),
    ) -> Key:
        new = await self._plan(tenant, purpose, algorithm, draft, repeat, wish)
        # 1. Intent: the row, with the object id that the HSM's object will have.
        announced: Key | str = await self._log.commit(new.announce())
        if isinstance(announced, str):
            return await self.version(tenant, purpose, int(announced))
        # 2. Effect.
        made = [
            dataclasses.replace(home, wrapped=await self._hsm.create(announced, home))
            for home in announced.homes or (KeyHome(new.backend),)
        ]
        if new.homes:
            announced = dataclasses.replace(announced, homes=tuple(made))
        # 3. Outcome: from here on new writes use it.
        active: Key = await self._log.commit(new.activate(announced))
        self._known.pop((tenant, purpose), None)
        return active

    async def _plan(
        self,
        tenant: str,
        purpose: KeyPurpose,
        algorithm: KeyAlgorithm,
        draft: AuditDraft,
        repeat: requests.Repeat | None,
        wish: Homes = Homes(),
    ) -> Making:
        """What it takes to make the next version of a key. Raises `FIELD_INVALID` if it cannot lie where it shall."""
        async with self._database.read(with_system()) as connection:
            existing = await keys.list_keys(connection, tenant, purpose)
        version = existing[0].version + 1 if existing else 1
        previous = next((key for key in existing if key.state is KeyState.ACTIVE), None)
        backend, homes = await self._homes(purpose, wish, previous)
        return Making(
            tenant=tenant,
            purpose=purpose,
            algorithm=algorithm,
            version=version,
            label=label_of(self._deployment, purpose, tenant, version),
            backend=backend,
            homes=homes,
            previous=previous,
            draft=draft._replace(resource=draft.resource or f"{tenant}/{purpose}"),
            repeat=repeat,
        )

    async def _homes(
        self, purpose: KeyPurpose, wish: Homes, previous: Key | None
    ) -> tuple[str, tuple[KeyHome, ...]]:
        """The HSM that a new key is first looked for in, and its homes if it needs more than that."""
        customers = purpose in (KeyPurpose.KEK, KeyPurpose.SUBJECT)
        placement = wish.placement or (previous.placement if previous else None)
        if placement is None:
            # A subjects' key is replaced at every erasure, which is good for something only if it is destroyed.
            placement = self._placement if purpose is KeyPurpose.KEK else Placement.TOKEN
        first = self._hsm.backend.name
        if wish.backends:
            names = tuple(self._backend_named(name) for name in wish.backends)
        elif purpose is KeyPurpose.ROOT:
            names = tuple(self._hsm.names)
        else:
            names = previous.backends if previous and customers else (first,)
        if len(set(names)) != len(names) or len(names) > len(self._hsm.names):
            raise invalid_field("homes.backends", "names one HSM, or two different ones")
        if placement is Placement.TOKEN:
            return names[0], tuple(KeyHome(name) for name in names) if len(names) > 1 else ()
        root = await self._root()
        if not set(names) <= set(root.backends):
            raise invalid_field(
                "homes", "the root key does not lie in that HSM: run `strongroom keys rotate-root`"
            )
        return names[0], tuple(KeyHome(name, root.version, b"", root.label, root.object_id) for name in names)

    def _backend_named(self, name: str) -> str:
        known = {"first": self._hsm.backend.name, "second": self._hsm.second or ""}
        found = known.get(name, name)
        if found not in self._hsm.names:
            raise invalid_field("homes.backends", "is not an HSM of this vault that is there")
        return found

    async def _root(self) -> Key:
        try:
            return await self.active(SYSTEM_TENANT, KeyPurpose.ROOT)
        except VaultError as error:
            if error.reason is Reason.TENANT_NOT_FOUND:
                raise invalid_field(
                    "homes.placement", "needs a root key: run `strongroom keys init`"
                ) from None
            raise

    # -- the root key ----------------------------------------------------------------------------------

    async def rotate_root(self, actor: str) -> Key:
        """Make a new version of the key that others are wrapped under; `rewrap_to_root` moves them to it."""
        draft = AuditDraft(SYSTEM_TENANT, actor, "key.rotate_root", "", Outcome.GRANTED, Origin())
        return await self._make(SYSTEM_TENANT, KeyPurpose.ROOT, KeyAlgorithm.AES_256_ROOT, draft, None)

    async def describe_root_rotation(self, *, resume: bool) -> tuple[int, int]:
        """The root version that a rotation would end with, and how many keys it would wrap anew."""
        draft = AuditDraft(SYSTEM_TENANT, "", "key.rotate_root", "", Outcome.GRANTED, Origin())
        version = (
            (await self._root()).version
            if resume
            else (
                await self._plan(SYSTEM_TENANT, KeyPurpose.ROOT, KeyAlgorithm.AES_256_ROOT, draft, None)
            ).version
        )
        async with self._database.read() as connection:
            return version, await keys.count_homes_not_under(connection, version)

    async def rewrap_to_root(self, actor: str) -> AsyncIterator[int]:
        """Wrap every wrapped key under the newest root; yields how many have been done.

        Ended early, it goes on where it was when it is called again.
        """
        root = await self._root()
        done = 0
        while True:
            async with self._database.read() as connection:
                found = await keys.homes_not_under(connection, root.version, limit=_REWRAP_AT_ONCE)
                moving = [
                    next(key for key in await keys.list_keys(connection, *name[:2]) if key.version == name[2])
                    for name in found
                ]
            if not moving:
                return
            moved = [await self._under(key, root) for key in moving]
            await self._log.commit(_rewrap_unit(actor, root, moving, moved))
            done += len(moved)
            yield done

    async def shred(self, key: Key, actor: str) -> None:
        """Forget a key that lies in the database, and then make it useless in backups too."""
        rows = keys.home_rows(key)
        names = [Write("key_homes", row).row_key for row in rows]
        draft = AuditDraft(key.tenant, actor, "key.shred", f"{key.tenant}/keys", Outcome.GRANTED, Origin())
        emptied = tuple(Write("key_homes", {**row, "wrapped": b""}) for row in rows)
        await self._log.commit(
            Unit(
                tuple(names),
                lambda _rows, _now: Commit((draft._replace(before_state=summary(key)),), emptied),
            )
        )
        await self.renew_root(actor)
        await self._hsm.forget_keys()

    async def renew_root(self, actor: str) -> None:
        """A new root for every wrapped key, and the end of the older ones: what only backups still have is gone."""
        with declared(ALL_TENANTS):
            root = await self.rotate_root(actor)
            async for _ in self.rewrap_to_root(actor):
                pass
            async with self._database.read() as connection:
                versions = await keys.list_keys(connection, SYSTEM_TENANT, KeyPurpose.ROOT)
            for old in versions:
                if old.version < root.version and old.state is not KeyState.DESTROYED:
                    await self._hsm.destroy(old)
                    await self._log.commit(_destroyed_root(actor, old))
        self.forget_tenant(SYSTEM_TENANT)

    async def _under(self, key: Key, root: Key) -> Key:
        homes = []
        for home in key.homes:
            new = dataclasses.replace(
                home, root_version=root.version, root_label=root.label, root_object_id=root.object_id
            )
            if home.wrapped:
                new = dataclasses.replace(new, wrapped=await self._hsm.rewrap_key(key, home, new))
            homes.append(new)
        return dataclasses.replace(key, homes=tuple(homes))


def _destroyed_root(actor: str, root: Key) -> Unit:
    name = RowKey("keys", (root.tenant, root.purpose.value, root.version))
    draft = AuditDraft(SYSTEM_TENANT, actor, "key.destroy", "system/root", Outcome.GRANTED, Origin())

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        row = rows.get("keys", *name.key)
        assert row is not None
        record = draft._replace(before_state=summary(root))
        return Commit((record,), (Write("keys", {**row, "state": KeyState.DESTROYED.value}),))

    return Unit((name,), decide)


def _rewrap_unit(actor: str, root: Key, before: Sequence[Key], after: Sequence[Key]) -> Unit:
    """The unit that puts keys under a new root, those that nobody changed meanwhile."""
    olds = [row for key in before for row in keys.home_rows(key)]
    news = [row for key in after for row in keys.home_rows(key)]
    names = [Write("key_homes", row).row_key for row in olds]

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        writes = tuple(
            Write("key_homes", new)
            for name, old, new in zip(names, olds, news, strict=True)
            if rows.get("key_homes", *name.key) == old
        )
        state = canonical_json({"root_version": root.version, "keys": len(writes)})
        draft = AuditDraft(SYSTEM_TENANT, actor, REWRAP_ROOT, "system/root", Outcome.GRANTED, Origin())
        return Commit((draft._replace(after_state=state),), writes)

    return Unit(tuple(names), decide)
