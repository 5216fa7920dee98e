"""Reading a KV version 2 secrets engine of HashiCorp Vault or OpenBao, by the log-in that Transit uses.

    kv://vault.example:8200/secret?auth=token&token-source=file:/run/token

What the server answers passes through Python strings, which cannot be wiped; what is given to the caller can.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from hvac.exceptions import InvalidPath, VaultError

from hsm.transit_login import Connection, unavailable
from hsm.uri import parse_kv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class KvSecret:
    """The current version of a secret. What is not text there is JSON here; `null`, which is no value, is None."""

    version: int
    fields: dict[str, bytearray | None] = field(repr=False)


class KvReader:
    """A logged-in reader of one mount. Raises `UriError`, `HsmError`. Thread-safe."""

    def __init__(self, uri: str, *, clients: int = 8) -> None:
        parsed = parse_kv(uri)
        self.source = f"{parsed.address}/{parsed.mount}"
        self._mount = parsed.mount
        self._connection = Connection(parsed, clients=clients, wait_seconds=60)

    def paths(self, prefix: str = "") -> Iterator[str]:
        """The path of every secret under a folder, in order."""
        folders = [prefix.strip("/")]
        while folders:
            folder = folders.pop()
            found = self._get("list", f"metadata/{folder}" if folder else "metadata") or {}
            below = []
            for key in sorted(found.get("keys", [])):
                path = f"{folder}/{key}".strip("/")
                if key.endswith("/"):
                    below.append(path)
                else:
                    yield path
            folders.extend(reversed(below))

    def read(self, path: str) -> KvSecret | None:
        """A secret's current version; None if it was deleted or never there. Wipe the fields."""
        found = self._get("get", f"data/{path}")
        if not found or not isinstance(found.get("data"), dict):
            return None
        return KvSecret(
            version=int(found.get("metadata", {}).get("version", 0)),
            fields={str(name): _bytes_of(value) for name, value in found["data"].items()},
        )

    def close(self) -> None:
        """Drop the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, method: str, path: str) -> dict[str, Any] | None:
        try:
            return self._connection.request("read_kv", method, f"{self._mount}/{path}")
        except InvalidPath:
            return None
        except VaultError as error:
            raise unavailable("read_kv", error) from None


def _bytes_of(value: object) -> bytearray | None:
    if value is None:
        return None
    return bytearray((value if isinstance(value, str) else json.dumps(value)).encode())
