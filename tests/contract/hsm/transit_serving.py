"""What speaks Transit, for tests of which both the double and the real one must be right."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tests.contract.hsm.transit_double import Double
from tests.support.transit_server import TransitServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme


@contextlib.contextmanager
def serving(kind: str, folder: Path, client_ca: trustme.CA) -> Iterator[Double | TransitServer]:
    """The `double`, or a `real` OpenBao or Vault, over TLS; both take certificates of that CA as a log-in."""
    if kind == "double":
        server: Double | TransitServer = Double(client_ca, folder / "ca.pem")
    else:
        server = TransitServer(folder, client_ca.cert_pem.bytes().decode())
    try:
        yield server
    finally:
        server.close()


def secret_file(folder: Path, text: str) -> str:
    """A new file that only its owner reads, as the source of a secret."""
    path = folder / f"secret-{os.urandom(4).hex()}"
    path.write_text(text)
    path.chmod(0o400)
    return f"file:{path}"
