"""`strongroom audit begin-anchors`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vault.cli.output import Format, Output, show_dict
from vault.cli.server import ConfigFile
from vault.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path


def begin(*, config: ConfigFile, output: Output = Format.TABLE) -> None:
    """Say that the anchors which hold no checkpoint are new, and have them take the newest one."""
    show_dict(output, asyncio.run(_begin(config)))


async def _begin(config_file: Path) -> dict[str, Any]:
    from vault import config as configuration  # noqa: PLC0415 - gRPC and the HSM's library are slow to import
    from vault.model import SYSTEM_TENANT, AuditDraft, Origin, Outcome  # noqa: PLC0415
    from vault.server.checkpointing import checkpointing  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415
    from vault.store.rows import canonical_json  # noqa: PLC0415

    config = configuration.load(config_file)
    async with foundation(config) as base:
        parts = checkpointing(base, config)
        await parts.checkpoints.start(new_anchors=True)
        new = [anchor.name for anchor in (await parts.anchors.ask()).silent]
        if not new:
            raise StartError("audit begin-anchors: every anchor that can be asked holds a checkpoint already")
        await base.log.record(
            AuditDraft(
                SYSTEM_TENANT,
                "strongroom audit begin-anchors",
                "audit.begin_anchors",
                "",
                Outcome.GRANTED,
                Origin(),
                after_state=canonical_json({"anchors": new}),
            )
        )
        checkpoint = await parts.checkpoints.sign()
        await parts.anchors.close()
        for name in new:
            if parts.anchors.health[name].size != checkpoint.size:
                raise StartError(f"audit begin-anchors: {name}: {parts.anchors.health[name].reason}")
    return {"begun": new, "log_size": checkpoint.size}
