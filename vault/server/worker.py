"""A worker process: hardened, then started, then served until SIGTERM.

Run by the supervisor as `python -m vault.server.worker CONFIG READY_FD [METRICS_FOLDER SLOT]`; writes one byte to
READY_FD when it listens. Exit codes: 0 stopped as told, 75 cannot start now, 78 cannot start (one line on stderr says
why).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from vault import metrics
from vault.crypto import memory
from vault.crypto.hardening import end_with_parent, harden_process
from vault.errors import EX_CONFIG, StartError, VaultError

_WITHOUT_METRICS = 2
# Before gRPC is imported: it leaves TLS 1.2 no cipher (see `tls.py`).
CIPHER_SUITES = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384"}


async def _serve(config_file: Path, ready_fd: int) -> None:
    from vault import config as configuration  # noqa: PLC0415
    from vault.server.app import App  # noqa: PLC0415
    from vault.server.foundation import foundation  # noqa: PLC0415

    config = configuration.load(config_file)
    if not memory.can_lock(config.sessions.locked_memory_bytes):
        raise StartError(
            "sessions.locked_memory_bytes: this process may not lock so much memory: raise RLIMIT_MEMLOCK (`ulimit "
            "-l`, LimitMEMLOCK= of a systemd unit), or lower it"
        )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with foundation(config) as base:
        app = App(config, base)
        try:
            await app.start()
            os.write(ready_fd, b"\n")
            os.close(ready_fd)
            await stopping.wait()
        finally:
            await app.stop()


def main(arguments: list[str]) -> int:
    """Run a worker; return its exit code."""
    from vault.server import logs  # noqa: PLC0415

    logs.configure()
    harden_process()
    end_with_parent(signal.SIGTERM)
    os.environ.update(CIPHER_SUITES)
    if len(arguments) > _WITHOUT_METRICS:
        metrics.take_slot(Path(arguments[2]), int(arguments[3]))
    try:
        import uvloop  # noqa: PLC0415

        uvloop.run(_serve(Path(arguments[0]), int(arguments[1])))
    except StartError as error:
        print(f"strongroom: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except VaultError as error:
        print(f"strongroom: {error.reason.value}: {error.message}", file=sys.stderr)  # noqa: T201
        return EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
