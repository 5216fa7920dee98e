"""Secrets that the configuration refers to as `vault:PATH#FIELD`: fetched from KV version 2 when a process starts.

The PIN is handed on in a file that exists in memory alone, as an HSM's library reads its PIN again whenever it
has to log in anew. A password is a Python string, as the database's driver wants one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from hsm import HsmError
from hsm.uri import UriError
from vault.errors import StartError

if TYPE_CHECKING:
    from vault.config import Config

REFERENCE = re.compile(r"vault:(?P<path>[A-Za-z0-9][A-Za-z0-9._/-]*)#(?P<field>[A-Za-z0-9._-]+)")
_PIN = re.compile(r"(?<=[?&]pin-source=)vault:[^&]*")


def hsm_uri(config: Config, uri: str) -> str:
    """An HSM's URI in which a PIN that is a reference has been fetched. Raises `StartError`."""
    return _PIN.sub(lambda match: f"fd:{_in_memory(_fetch(config, match[0], 'hsm'))}", uri)


def password(config: Config) -> str | None:
    """The database's password, if it is a reference. Raises `StartError`."""
    source = config.database.password_source
    if source is None:
        return None
    secret = _fetch(config, source, "database.password_source")
    try:
        return secret.decode()
    finally:
        secret[:] = bytes(len(secret))


def _fetch(config: Config, reference: str, key: str) -> bytearray:
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise StartError(f"{key}: a reference is vault:PATH#FIELD")
    if config.secrets is None:
        raise StartError(f"{key}: a reference needs [secrets] with the uri of a KV version 2 mount")
    from hsm.kv import KvReader  # noqa: PLC0415 - only where it is asked for

    try:
        with KvReader(config.secrets.uri, clients=1) as reader:
            found = reader.read(match["path"])
    except (HsmError, UriError) as error:
        raise StartError(f"secrets: {error}") from None
    fields = found.fields if found else {}
    secret = fields.pop(match["field"], None)
    for other in filter(None, fields.values()):
        other[:] = bytes(len(other))
    if not secret:
        raise StartError(f"{key}: there is no text at {reference}")
    return secret


def _in_memory(secret: bytearray) -> int:
    """A descriptor of a file in memory; it stays open for the life of the process."""
    descriptor = os.memfd_create("strongroom-secret", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, secret)
    finally:
        secret[:] = bytes(len(secret))
    return descriptor
