"""`strongroom backup` and `strongroom restore`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from vault.cli.output import Format, Output, show_dict
from vault.cli.server import ConfigFile
from vault.cli.verification import EXIT_NOT_VALID, Keys, read_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault.config import Config
    from vault.core.backup import Manifest
    from vault.core.restore import Judgement
    from vault.model import AuditDraft

_STDIO = Path("-")


def backup(
    to: Annotated[Path, typer.Argument(help="The file to write, which must not exist; - for stdout.")],
    *,
    config: ConfigFile,
    output: Output = Format.TABLE,
) -> None:
    """Write the database as it is at one moment, encrypted and signed, to a file. The vault goes on meanwhile."""
    with _written(to) as file:
        manifest = asyncio.run(_backup(config, file))
    if to != _STDIO:
        show_dict(output, _shown(manifest))


def restore(
    file: Annotated[Path, typer.Argument(help="The backup; - for stdin.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", envvar="STRONGROOM_CONFIG", help="The server's configuration: HSM, database."
        ),
    ] = None,
    verify_only: Annotated[
        bool,
        typer.Option("--verify-only", help="Restore nothing. With --key alone the HSM is not needed either."),
    ] = False,
    key: Keys = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Open every credential version, not only a sample.")
    ] = False,
    subjects_from: Annotated[
        Path | None,
        typer.Option(help="A newer backup, for the keys of data subjects if somebody was erased since."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Restore a backup into an empty database, or only verify it. Exit code 5 if it does not verify."""
    from vault.crypto.errors import CryptoError  # noqa: PLC0415

    keys = read_keys(key)
    if config is None and not (verify_only and keys):
        raise typer.BadParameter("give --config, or --verify-only with --key")
    try:
        with _opened(file) as stream:
            if config is None:
                result = _check(stream, keys)
            else:
                result = asyncio.run(
                    _restore(
                        config, stream, keys, subjects_from, verify_only=verify_only, everything=everything
                    )
                )
    except CryptoError as error:
        show_dict(output, {"valid": False, "findings": [str(error)]})
        raise typer.Exit(EXIT_NOT_VALID) from None
    show_dict(output, result)
    if not result["valid"]:
        raise typer.Exit(EXIT_NOT_VALID)


async def _backup(config_file: Path, file: IO[bytes]) -> Manifest:
    from vault import config as configuration  # noqa: PLC0415 - gRPC and the HSM's library are slow to import
    from vault.core import backup as core  # noqa: PLC0415
    from vault.server.checkpointing import checkpointing  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    config = configuration.load(config_file)
    async with foundation(config) as base:
        checkpoints = checkpointing(base, config).checkpoints
        await checkpoints.start()
        await checkpoints.sign()
        manifest = await core.create(
            base.database, base.hsm, base.keyring, checkpoints.attest, file, base.clock.now()
        )
        await base.log.record(_record("backup.create", manifest))
        return manifest


def _check(file: IO[bytes], keys: list[str]) -> dict[str, Any]:
    from vault.core.backup import check  # noqa: PLC0415

    return {"valid": True, "verified": "structure", **_shown(check(file, keys))}


async def _restore(
    config_file: Path,
    file: IO[bytes],
    keys: list[str],
    newer: Path | None,
    *,
    verify_only: bool,
    everything: bool,
) -> dict[str, Any]:
    from vault import config as configuration  # noqa: PLC0415

    config = configuration.load(config_file)
    if not verify_only:
        return await _restore_into(config, file, keys, newer, everything=everything, keep=True)
    # What lies there for a while is what a database holds: nothing in the clear.
    with tempfile.TemporaryDirectory(prefix="strongroom-verify-") as folder:
        database = config.database.model_copy(
            update={"url": f"sqlite:///{folder}/verify.db", "password_file": None, "owner_url": None}
        )
        scratch = config.model_copy(update={"database": database})
        return await _restore_into(scratch, file, keys, newer, everything=everything, keep=False)


async def _restore_into(
    config: Config, file: IO[bytes], keys: list[str], newer: Path | None, *, everything: bool, keep: bool
) -> dict[str, Any]:
    from vault.core.batch import Load  # noqa: PLC0415
    from vault.core.envelopes import Envelopes  # noqa: PLC0415
    from vault.core.restore import SAMPLE, judge, load, load_subjects, read_subjects  # noqa: PLC0415
    from vault.core.subjects import Subjects  # noqa: PLC0415
    from vault.metrics import Metrics  # noqa: PLC0415
    from vault.server.foundation import foundation, open_hsm, open_owned_database, server_role  # noqa: PLC0415

    origin = config.audit.origin
    with tempfile.TemporaryFile() as spool:
        database = open_owned_database(config)
        try:
            hsm = await asyncio.to_thread(open_hsm, config, Load(), Metrics())
            try:
                if newer is not None:
                    with newer.open("rb") as stream:
                        await read_subjects(hsm, stream, origin, keys, spool)
                manifest = await load(database, hsm, file, origin, keys, server_role(config))
            finally:
                await asyncio.to_thread(hsm.close)
        finally:
            await database.close()
        async with foundation(config) as base:
            await load_subjects(base.log, spool)
            judgement = await judge(
                base.database,
                base.hsm,
                base.keyring,
                Envelopes(base.hsm, base.keyring, Subjects(base.database, base.hsm, base.log, base.keyring)),
                origin,
                base.clock.now(),
                most=None if everything else SAMPLE,
            )
            if keep:
                await base.log.record(_record("backup.restore", manifest))
    return {
        "valid": judgement.good,
        "verified": "content" if not keep else "content, and restored",
        **_shown(manifest),
        **_found(judgement),
    }


def _record(action: str, manifest: Manifest) -> AuditDraft:
    """The record that a backup was made or restored, by whoever can read the server's configuration."""
    from vault.model import SYSTEM_TENANT, AuditDraft, Origin, Outcome  # noqa: PLC0415
    from vault.store.rows import canonical_json  # noqa: PLC0415

    state = canonical_json({"digest": manifest.digest, "log_size": manifest.log_size})
    who = f"strongroom {action.partition('.')[2]}"
    return AuditDraft(SYSTEM_TENANT, who, action, "", Outcome.GRANTED, Origin(), after_state=state)


def _shown(manifest: Manifest) -> dict[str, Any]:
    return {
        "create_time": manifest.create_time,
        "schema": manifest.schema,
        "digest": manifest.digest,
        "rows": manifest.rows,
        "log_size": manifest.log_size,
        "log_root": manifest.log_root,
    }


def _found(judgement: Judgement) -> dict[str, Any]:
    return {
        "records_verified": judgement.report.records,
        "checkpoints_verified": judgement.report.checkpoints,
        "versions_opened": judgement.opened,
        "versions_not_opened": judgement.unopened,
        "findings": judgement.report.findings,
    }


@contextlib.contextmanager
def _written(to: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read; gone again if what writes it fails."""
    if to == _STDIO:
        yield sys.stdout.buffer
        return
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        to.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if file == _STDIO:
        yield sys.stdin.buffer
        return
    with file.open("rb") as stream:
        yield stream
