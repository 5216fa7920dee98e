"""The wiring of checkpoints: what signs, proves, anchors and archives them, server or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vault import config as configuration
from vault.core.anchors import (
    AnchorFailed,
    Anchors,
    DirectoryAnchor,
    FileAnchor,
    SyslogAnchor,
    Witness,
    ask,
)
from vault.core.archiving import ArchiveSettings, Archiving
from vault.core.checkpoint_keys import CheckpointKeys
from vault.core.checkpoints import Checkpoints
from vault.core.proofs import Paths
from vault.core.recovery import Recovery
from vault.server.tls import certificate_der
from vault.store import audit as store_audit

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.config import Audit as AuditSection
    from vault.config import Config
    from vault.core.anchors import Anchor, Held, Prove
    from vault.model import Checkpoint
    from vault.server.foundation import Foundation


class Checkpointing(NamedTuple):
    """What makes, signs, proves and anchors checkpoints."""

    keys: CheckpointKeys
    paths: Paths
    anchors: Anchors
    checkpoints: Checkpoints


def checkpointing(base: Foundation, config: Config) -> Checkpointing:
    """Everything for checkpoints, server or not. Nothing is known yet: call `checkpoints.start`."""
    database, clock = base.database, base.clock
    keys = CheckpointKeys(
        config.audit.origin,
        database,
        base.hsm,
        base.keyring,
        base.log,
        clock,
        post_quantum=config.audit.post_quantum_signature,
    )
    paths = Paths(database, keys)
    anchors = Anchors(
        _anchors(config.audit, paths.consistency, clock),
        lambda checkpoint, name, lines: store_audit.keep_cosignature(
            database, checkpoint.size, name, lines, clock.now()
        ),
    )
    return Checkpointing(
        keys, paths, anchors, Checkpoints(keys, anchors, recovery_of(config), database, base.log, clock)
    )


def archiving(base: Foundation, config: Config, parts: Checkpointing) -> Archiving | None:
    """What archives the log, if it is configured."""
    section = config.audit
    if section.archive_folder is None:
        return None
    return Archiving(
        ArchiveSettings(section.archive_folder, section.retention_months),
        parts.keys,
        parts.checkpoints,
        parts.anchors,
        base.database,
        base.log,
        base.clock,
    )


def recovery_of(config: Config) -> Recovery:
    """Who may accept a database that was set back. Raises `StartError`."""
    return Recovery(
        tuple(
            certificate_der(file, "approvals.recovery_certificates")
            for file in config.approvals.recovery_certificates
        ),
        config.approvals.recover_database,
    )


async def held_by_anchors(config: Config, clock: Clock) -> list[Held]:
    """What the configured anchors hold, for who only verifies."""

    async def prove(_size: int, _checkpoint: Checkpoint) -> list[bytes]:
        raise AnchorFailed("it is only read here")

    return (await ask(_anchors(config.audit, prove, clock))).held


def _anchors(section: AuditSection, prove: Prove, clock: Clock) -> list[Anchor]:
    """Every anchor that is configured."""
    anchors: list[Anchor] = [FileAnchor(section.anchor_file)] if section.anchor_file else []
    for one in section.anchors:
        match one:
            case configuration.DirectoryAnchor():
                anchors.append(DirectoryAnchor(one.path))
            case configuration.WitnessAnchor():
                anchors.append(Witness(one.url, one.verifier_key, section.origin, one.ca_file, prove))
            case configuration.SyslogAnchor():
                anchors.append(SyslogAnchor(one.host, one.port, one.ca_file, clock))
    return anchors
