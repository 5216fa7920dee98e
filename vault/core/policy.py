"""Policy: who may be issued which scopes. Written in Cedar, decided when a token is issued, deny by default.

A set of policies that does not parse, does not fit the schema, or is empty is never put in force: a vault without
a policy issues no token.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import cedarpy

from vault.errors import Reason, StartError, VaultError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vault.crypto.scopes import Scope

IDENTITY = "Strongroom::Identity"
MAX_TEXT = 131_072
_SCHEMA = resources.files("vault.core").joinpath("policy.cedarschema").read_text()


@dataclass(frozen=True)
class Circumstances:
    """What a policy may look at beside identity and scope."""

    purpose: str
    ttl_seconds: int
    device: str
    ip_address: str
    time: datetime.datetime
    approvals: int = 0
    """How many people have signed for this token to be issued."""


@dataclass(frozen=True)
class Rule:
    """One policy of the set."""

    name: str
    """Its `@id`, or `policy<N>` by its place if it has none."""
    permits: bool
    text: str
    identities: frozenset[str]
    """The identities that it names."""
    actions: frozenset[str]
    """The actions that its head is for; empty for all."""
    open: bool
    """Whether its head leaves open who asks."""


class Judgement(NamedTuple):
    """What a set of policies says of one scope."""

    allowed: bool
    rules: tuple[Rule, ...]
    """What decided: the rules that permit, or those that forbid; none if nothing permits."""
    failed: bool
    """Whether a rule failed while it was evaluated. Then nothing is allowed: it might have been one that forbids."""


def problems(text: str) -> list[str]:
    """What is wrong with a set of policies; nothing if it can be put in force."""
    if len(text) > MAX_TEXT:
        return [f"longer than {MAX_TEXT} characters"]
    try:
        result = cedarpy.validate_policies(text, _SCHEMA)
        found = [str(error) for error in result.errors]
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        return [str(error)]
    if not parsed["staticPolicies"]:
        found.append("there is no policy in it; empty would deny everything")
    if parsed["templates"]:
        found.append("templates are not used here: write each policy out")
    names = [_name(key, body) for key, body in parsed["staticPolicies"].items()]
    found.extend(
        f"two policies have the @id {name!r}" for name in sorted(set(names)) if names.count(name) > 1
    )
    return found


class Policy:
    """A set of Cedar policies, parsed and validated once. Raises `StartError` for one that is not valid."""

    def __init__(self, text: str) -> None:
        if found := problems(text):
            raise StartError(f"policy: {found[0]}")
        self.text = text
        self.digest = hashlib.sha256(text.encode()).digest()
        self._policies = cedarpy.PolicySet.from_str(text)
        parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        self._rules = {key: _rule(key, body) for key, body in parsed.items()}
        # All that a decision follows from is in the question, the second included: the same question has the same
        # answer, and in a busy second it is asked again and again.
        self._judged = functools.lru_cache(maxsize=1024)(self._judge)

    @property
    def version(self) -> str:
        """The beginning of the SHA-256 of its text, in hex."""
        return self.digest.hex()[:16]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every policy of the set, in order."""
        return tuple(self._rules.values())

    def judge(
        self, identity: str, scopes: Sequence[Scope], circumstances: Circumstances
    ) -> tuple[Judgement, ...]:
        """Whether this identity would be granted each of these scopes, and by which rules."""
        return self._judged(identity, tuple(scopes), circumstances)

    def _judge(
        self, identity: str, scopes: tuple[Scope, ...], circumstances: Circumstances
    ) -> tuple[Judgement, ...]:
        results = cedarpy.is_authorized_batch(
            [_request(identity, scope, circumstances) for scope in scopes],
            self._policies,
            _entities(identity, scopes),
        )
        return tuple(
            Judgement(
                allowed=result.allowed and not result.diagnostics.errors,
                rules=tuple(self._rules[key] for key in sorted(result.diagnostics.reasons)),
                failed=bool(result.diagnostics.errors),
            )
            for result in results
        )

    def refuse_ungranted(self, identity: str, scopes: Sequence[Scope], circumstances: Circumstances) -> None:
        """Raise `POLICY_DENIED` unless every scope is granted. No scopes at all is a refusal too."""
        if not scopes:
            raise VaultError(Reason.POLICY_DENIED, "no scope was asked for")
        for scope, judged in zip(scopes, self.judge(identity, scopes, circumstances), strict=True):
            if not judged.allowed:
                raise VaultError(
                    Reason.POLICY_DENIED, "no policy grants this identity this scope", scope=str(scope)
                )


def read(files: Sequence[Path]) -> str:
    """The text of policies in files, as one set. Raises `StartError`."""
    texts = []
    for file in files:
        try:
            texts.append(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise StartError(f"policy.files: cannot read {file}: {reason}") from None
    return "\n".join(texts)


def load(files: Sequence[Path]) -> Policy:
    """Read policies from files. Raises `StartError`."""
    return Policy(read(files))


def _request(identity: str, scope: Scope, circumstances: Circumstances) -> dict[str, Any]:
    context: dict[str, Any] = {
        "purpose": circumstances.purpose,
        "ttl_seconds": circumstances.ttl_seconds,
        "device": circumstances.device,
        "approvals": circumstances.approvals,
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
        "principal": {"type": IDENTITY, "id": identity},
        "action": {"type": "Strongroom::Action", "id": scope.action},
        "resource": {"type": "Strongroom::Resource", "id": scope.resource},
        "context": context,
    }


# Whoever takes tokens takes the same again and again; to parse them is a third of a decision.
@functools.lru_cache(maxsize=256)
def _entities(identity: str, scopes: tuple[Scope, ...]) -> cedarpy.Entities:
    parts = urlsplit(identity) if identity.startswith("spiffe://") else None
    who = {
        "uid": {"type": IDENTITY, "id": identity},
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
    return cedarpy.Entities.from_json_str(json.dumps([who, *what.values()]))


def _name(key: str, body: dict[str, Any]) -> str:
    return str(body.get("annotations", {}).get("id") or key)


def _rule(key: str, body: dict[str, Any]) -> Rule:
    head = body["action"]
    entities = head.get("entities", [head["entity"]] if "entity" in head else [])
    alone = {"staticPolicies": {key: body}, "templates": {}, "templateLinks": []}
    return Rule(
        name=_name(key, body),
        permits=body["effect"] == "permit",
        text=cedarpy.policies_from_json_str(json.dumps(alone)).strip(),
        identities=frozenset(_identities(body)),
        actions=frozenset(entity["id"] for entity in entities),
        open=body["principal"]["op"] not in ("==", "in"),
    )


def _identities(node: Any) -> Iterator[str]:
    """Every identity that is named anywhere in a policy."""
    if isinstance(node, dict):
        if node.get("type") == IDENTITY and isinstance(node.get("id"), str):
            yield node["id"]
        for value in node.values():
            yield from _identities(value)
    elif isinstance(node, list):
        for value in node:
            yield from _identities(value)
