"""One key version in the making: it is announced, and then put to use, each in a unit of the log."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from typing import TYPE_CHECKING

from vault.core import audit, requests
from vault.errors import Reason, VaultError
from vault.model import Key, KeyHome, KeyPurpose, KeyState
from vault.store import keys
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime

    from hsm import KeyAlgorithm
    from vault.model import AuditDraft
    from vault.store.ledger import Rows

_LABEL_NAME = 20


@dataclasses.dataclass(frozen=True)
class Making:
    """The two units that make a key version."""

    tenant: str
    purpose: KeyPurpose
    algorithm: KeyAlgorithm
    version: int
    label: str
    backend: str
    homes: tuple[KeyHome, ...]
    previous: Key | None
    draft: AuditDraft
    repeat: requests.Repeat | None

    def announce(self) -> Unit:
        """The unit that announces the key; its result is the key, or the version of an earlier answer."""
        key = RowKey("keys", (self.tenant, self.purpose.value, self.version))
        object_id = secrets.token_bytes(16)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if self.repeat and (earlier := self.repeat.earlier(rows)) is not None:
                return Commit((audit.repeated(self.draft),), (), earlier)
            self._check_tenant(rows)
            if rows.get("keys", *key.key) is not None:
                raise VaultError(Reason.KEY_CHANGED, "another administrator is changing this key")
            announced = self._pending(object_id, now)
            draft = self.draft._replace(action="key.announce", after_state=summary(announced))
            return Commit((draft,), (Write("keys", keys.key_row(announced)),), announced)

        reads = (key, RowKey("tenants", (self.tenant,)), *(self.repeat.reads if self.repeat else ()))
        return Unit(reads, decide)

    def imagine(self) -> Unit:
        """The unit that only checks, and records that somebody asked; its result is the key as it would be."""

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            self._check_tenant(rows)
            imagined = self._pending(b"", now)
            said = canonical_json({**json.loads(summary(imagined)), "validate_only": True})
            return Commit((self.draft._replace(after_state=said),), (), imagined)

        return Unit((RowKey("tenants", (self.tenant,)),), decide)

    def activate(self, announced: Key) -> Unit:
        """The unit that puts the key to use; its result is the key."""
        own = RowKey("keys", (self.tenant, self.purpose.value, self.version))
        before = (
            [RowKey("keys", (self.tenant, self.purpose.value, self.previous.version))]
            if self.previous
            else []
        )

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            writes: list[Write] = []
            if self.previous:
                old = rows.get("keys", *before[0].key)
                if old is None or old["state"] != KeyState.ACTIVE.value:
                    raise VaultError(Reason.KEY_CHANGED, "another administrator changed this key")
                # First, so that at no moment two versions are active.
                writes.append(Write("keys", {**old, "state": KeyState.DECRYPT_ONLY.value}))
            active = dataclasses.replace(announced, state=KeyState.ACTIVE)
            writes.append(Write("keys", keys.key_row(active)))
            writes.extend(Write("key_homes", row) for row in keys.home_rows(active))
            if self.purpose is KeyPurpose.KEK:
                tenant = rows.get("tenants", self.tenant)
                writes.append(Write("tenants", self._tenant_row(tenant, now)))
            if self.repeat:
                writes.extend(self.repeat.remember(str(self.version), now))
            draft = self.draft._replace(
                before_state=summary(self.previous) if self.previous else "",
                after_state=summary(active),
            )
            return Commit((draft,), tuple(writes), active)

        reads = (own, *before, RowKey("tenants", (self.tenant,)), *(self.repeat.reads if self.repeat else ()))
        return Unit(reads, decide)

    def _pending(self, object_id: bytes, now: datetime.datetime) -> Key:
        return Key(
            tenant=self.tenant,
            purpose=self.purpose,
            version=self.version,
            state=KeyState.PENDING,
            algorithm=self.algorithm.value,
            backend=self.backend,
            label=self.label,
            object_id=object_id,
            create_time=now,
            created_by=self.draft.identity,
            homes=self.homes,
        )

    def _check_tenant(self, rows: Rows) -> None:
        if self.purpose is not KeyPurpose.KEK:
            return
        tenant = rows.get("tenants", self.tenant)
        exists = tenant is not None
        if self.draft.action == "key.create_tenant":
            if exists:
                raise VaultError(Reason.TENANT_EXISTS, "a tenant of this name exists")
        elif tenant is None or not tenant["kek_version"]:  # version 0: the tenant was deleted
            raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")

    def _tenant_row(self, row: dict[str, object] | None, now: datetime.datetime) -> dict[str, object]:
        if row is not None:
            return {**row, "kek_version": self.version}
        return {
            "tenant": self.tenant,
            "kek_version": self.version,
            "create_time": now,
            "created_by": self.draft.identity,
        }


def summary(key: Key) -> str:
    """A key version as records tell it."""
    return canonical_json(
        {
            "purpose": key.purpose.value,
            "version": key.version,
            "state": key.state.value,
            "label": key.label,
            "backends": list(key.backends),
            "placement": key.placement.value,
        }
    )


def label_of(deployment: str, purpose: KeyPurpose, tenant: str, version: int) -> str:
    """A key's label in the HSM: `<deployment>/<purpose>/<tenant>/v<N>`, at most 40 characters, which every HSM takes.

    A long tenant name is cut and told apart by the beginning of its SHA-256.
    """
    name = tenant
    if len(name) > _LABEL_NAME:
        name = f"{tenant[: _LABEL_NAME - 9]}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"
    return f"{deployment}/{purpose.value}/{name}/v{version}"
