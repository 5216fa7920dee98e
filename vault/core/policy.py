"""Policy: who may be issued which scopes. Written in Cedar, decided when a token is issued, deny by default.

A set of policies that does not parse, does not fit the schema, or is empty is refused when it is loaded: a
vault without a policy issues no token.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cedarpy

from vault.errors import Reason, StartError, VaultError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence
    from pathlib import Path

    from vault.crypto.scopes import Scope

_SCHEMA = resources.files("vault.core").joinpath("policy.cedarschema").read_text()


@dataclass(frozen=True)
class Circumstances:
    """What a policy may look at beside identity and scope."""

    purpose: str
    ttl_seconds: int
    device: str
    ip_address: str
    time: datetime.datetime


class Policy:
    """A set of Cedar policies, parsed and validated once."""

    def __init__(self, text: str) -> None:
        self.version = hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            result = cedarpy.validate_policies(text, _SCHEMA)
            problems = [str(error) for error in result.errors]
        except ValueError as error:
            problems = [str(error)]
        if problems:
            raise StartError(f"policy: {problems[0]}")
        self._policies = cedarpy.PolicySet.from_str(text)
        if len(self._policies) == 0:
            raise StartError("policy: no policy in the files of policy.files; empty would deny everything")

    def refuse_ungranted(self, identity: str, scopes: Sequence[Scope], circumstances: Circumstances) -> None:
        """Raise `POLICY_DENIED` unless every scope is granted. No scopes at all is a refusal too."""
        if not scopes:
            raise VaultError(Reason.POLICY_DENIED, "no scope was asked for")
        results = cedarpy.is_authorized_batch(
            [_request(identity, scope, circumstances) for scope in scopes],
            self._policies,
            _entities(identity, scopes),
        )
        for scope, result in zip(scopes, results, strict=True):
            # A policy that fails while it is evaluated might have been one that forbids.
            if not result.allowed or result.diagnostics.errors:
                raise VaultError(
                    Reason.POLICY_DENIED, "no policy grants this identity this scope", scope=str(scope)
                )


def load(files: Sequence[Path]) -> Policy:
    """Read policies from files. Raises `StartError`."""
    texts = []
    for file in files:
        try:
            texts.append(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"policy.files: cannot read {file}: {type(error).__name__}") from None
    return Policy("\n".join(texts))


def _request(identity: str, scope: Scope, circumstances: Circumstances) -> dict[str, Any]:
    context: dict[str, Any] = {
        "purpose": circumstances.purpose,
        "ttl_seconds": circumstances.ttl_seconds,
        "device": circumstances.device,
        "time": {
            "__extn": {"fn": "datetime", "arg": circumstances.time.strftime("%Y-%m-%dT%H:%M:%SZ")},
        },
    }
    try:
        address = ipaddress.ip_address(circumstances.ip_address)
    except ValueError:
        pass
    else:
        context["ip"] = {"__extn": {"fn": "ip", "arg": str(address)}}
    return {
        "principal": {"type": "Strongroom::Identity", "id": identity},
        "action": {"type": "Strongroom::Action", "id": scope.action},
        "resource": {"type": "Strongroom::Resource", "id": scope.resource},
        "context": context,
    }


def _entities(identity: str, scopes: Sequence[Scope]) -> str:
    parts = urlsplit(identity) if identity.startswith("spiffe://") else None
    who = {
        "uid": {"type": "Strongroom::Identity", "id": identity},
        "attrs": {
            "id": identity,
            "trust_domain": parts.netloc if parts else "",
            "path": parts.path.removeprefix("/") if parts else identity,
        },
        "parents": [],
    }
    what = {
        scope.resource: {
            "uid": {"type": "Strongroom::Resource", "id": scope.resource},
            "attrs": {
                "pattern": scope.resource,
                "tenant": scope.resource.partition("/")[0],
                "path": scope.resource.partition("/")[2],
            },
            "parents": [],
        }
        for scope in scopes
    }
    return json.dumps([who, *what.values()])
