"""An import at work: each thing read, mapped, and put."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vault.cli.import_mapping import MappingError
from vault.client.errors import StrongroomError
from vault.crypto import bundle, memory
from vault.crypto.encoding import encode
from vault.crypto.errors import CryptoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vault.cli.import_mapping import Rule
    from vault.cli.import_sources import Item
    from vault.client import Client


@dataclass(frozen=True)
class Line:
    """What became of one thing. `status`: imported, would-import, exists, skipped, gone, unmapped or failed."""

    path: str
    name: str
    status: str
    reason: str = ""
    fields: tuple[str, ...] = ()


class Run:
    """One run of an import. `one` may be called by several threads."""

    def __init__(self, vault: Client, source: str, rules: Sequence[Rule], dry_run: bool) -> None:
        self._vault = vault
        self._source = source
        self._rules = rules
        self._dry_run = dry_run
        self._claimed: dict[str, object] = {}

    def one(self, read: Callable[[], Item]) -> list[Line]:
        """Read an item and import what the rules make of it."""
        item = read()
        try:
            if item.fields is None:
                return [Line(item.path, "", "gone", "deleted at the source")]
            fitting = [
                (rule, found) for rule in self._rules if (found := rule.captures(item.path)) is not None
            ]
            if not fitting:
                return [Line(item.path, "", "unmapped", "no rule of the mapping fits")]
            return [self._apply(item, item.fields, rule, rule.target(found)) for rule, found in fitting]
        finally:
            item.close()

    def _apply(
        self, item: Item, source_fields: Mapping[str, bytearray | None], rule: Rule, name: str
    ) -> Line:
        if rule.skip:
            return Line(item.path, "", "skipped")
        # One operation of the interpreter, so the first of two threads wins.
        claim = object()
        if self._claimed.setdefault(name, claim) is not claim:
            return Line(item.path, name, "failed", "something else became this name already")
        try:
            fields = rule.select(source_fields)
            status = self._look(name, fields) if self._dry_run else self._put(item, rule, name, fields)
        except (StrongroomError, MappingError, CryptoError) as error:
            return Line(item.path, name, "failed", str(error))
        return Line(item.path, name, status, "", tuple(sorted(fields)))

    def _look(self, name: str, fields: dict[str, bytearray]) -> str:
        bundle.pack_into(fields, memory.allocate).close()
        try:
            self._vault.get(name)
        except StrongroomError as error:
            if error.reason != "CREDENTIAL_NOT_FOUND":
                raise
            return "would-import"
        return "exists"

    def _put(self, item: Item, rule: Rule, name: str, fields: dict[str, bytearray]) -> str:
        sent = request_id(self._source, item.path, item.version, name)
        try:
            self._vault.put(name, fields, kind=rule.kind, labels=rule.labels, etag="new", request_id=sent)
        except StrongroomError as error:
            # The first: by this very import, before it was interrupted. The second: by whomever.
            if error.reason not in ("REQUEST_ID_REUSED", "ETAG_MISMATCH"):
                raise
            return "exists"
        return "imported"


def request_id(source: str, path: str, version: str, name: str) -> str:
    """The id by which the vault tells an import that is run again: 43 characters."""
    digest = hashlib.sha256(encode("strongroom/import/v1", source, path, version, name)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
