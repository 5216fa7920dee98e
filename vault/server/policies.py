"""`vault.v1.PolicyService`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vault.core import policies, requests
from vault.core.policy import Circumstances
from vault.errors import invalid_field
from vault.server import wire
from vault.v1 import policy_pb2 as pb

if TYPE_CHECKING:
    import datetime

    from vault.clock import Clock
    from vault.core.policies import Policies
    from vault.core.policy import Rule
    from vault.model import Caller, StoredPolicy
    from vault.server.pages import Pages

_MAX_APPROVALS = 16
_DEFAULT_SECONDS = 3600
_MAX_SECONDS = 86_400


class PolicyService:
    """Serves the policy."""

    def __init__(self, policies_: Policies, pages: Pages, clock: Clock) -> None:
        self._policies = policies_
        self._pages = pages
        self._clock = clock

    async def get(self, request: pb.PolicyServiceGetRequest, caller: Caller) -> pb.PolicyServiceGetResponse:
        """See the proto."""
        found = await self._policies.get(caller, request.version)
        return pb.PolicyServiceGetResponse(policy=await self._wire(found))

    async def list(
        self, request: pb.PolicyServiceListRequest, caller: Caller
    ) -> pb.PolicyServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("policy.list",)
        before = int(self._pages.position(caller, query, request.page_token) or requests.MAX_VERSION)
        found = await self._policies.list_policies(caller, before=before, limit=size + 1)
        page = found[:size]
        more = len(found) > size
        return pb.PolicyServiceListResponse(
            policies=[await self._wire(dataclasses.replace(item, text="")) for item in page],
            next_page_token=self._pages.token(caller, query, str(page[-1].version)) if more else "",
        )

    async def validate(
        self, request: pb.PolicyServiceValidateRequest, caller: Caller
    ) -> pb.PolicyServiceValidateResponse:
        """See the proto."""
        problems, text = await self._policies.validate(caller, request.text)
        return pb.PolicyServiceValidateResponse(problems=problems, text=text)

    async def apply(
        self, request: pb.PolicyServiceApplyRequest, caller: Caller
    ) -> pb.PolicyServiceApplyResponse:
        """See the proto."""
        applied = await self._policies.apply(
            caller,
            request.text,
            requests.version(request.base_version),
            request.comment,
            request.approval_id,
            request.request_id,
        )
        return pb.PolicyServiceApplyResponse(policy=await self._wire(dataclasses.replace(applied, text="")))

    async def explain(
        self, request: pb.PolicyServiceExplainRequest, caller: Caller
    ) -> pb.PolicyServiceExplainResponse:
        """See the proto."""
        circumstances = _circumstances(request.circumstances, self._clock.now())
        in_force, judged = await self._policies.explain(
            caller, request.identity, request.scope, circumstances
        )
        return pb.PolicyServiceExplainResponse(
            allowed=judged.allowed,
            rules=[await self._rule(caller, rule) for rule in judged.rules],
            failed=judged.failed,
            version=in_force.version,
        )

    async def list_reachers(
        self, request: pb.PolicyServiceListReachersRequest, caller: Caller
    ) -> pb.PolicyServiceListReachersResponse:
        """See the proto."""
        circumstances = _circumstances(request.circumstances, self._clock.now())
        found, opened = await self._policies.reachers(
            caller, request.name, tuple(request.identities), circumstances
        )
        return pb.PolicyServiceListReachersResponse(
            reachers=[
                pb.Reacher(identity=item.identity, actions=item.actions, rules=item.rules) for item in found
            ],
            open_rules=[await self._rule(caller, rule) for rule in opened],
        )

    async def _rule(self, caller: Caller, rule: Rule) -> pb.PolicyRule:
        text = await self._policies.written(rule) if policies.sees_rules(caller) else ""
        return pb.PolicyRule(name=rule.name, permits=rule.permits, text=text)

    async def _wire(self, value: StoredPolicy) -> pb.Policy:
        in_force = await self._policies.in_force()
        return pb.Policy(
            version=value.version,
            text=value.text,
            sha256=value.digest.hex(),
            comment=value.comment,
            created_by=value.created_by,
            create_time=wire.timestamp(value.create_time) if value.version else None,
            in_force=value.version == in_force.version,
        )


def _circumstances(sent: pb.PolicyCircumstances, now: datetime.datetime) -> Circumstances:
    seconds = _DEFAULT_SECONDS
    if sent.HasField("ttl"):
        seconds = int(wire.span("circumstances", sent.ttl).total_seconds())
    if not 1 <= seconds <= _MAX_SECONDS or sent.approvals > _MAX_APPROVALS:
        raise invalid_field("circumstances", "ttl 1 to 86400 seconds, approvals at most 16")
    return Circumstances(
        requests.printable("circumstances", sent.purpose),
        seconds,
        requests.printable("circumstances", sent.device_id),
        requests.printable("circumstances", sent.ip_address),
        wire.moment("circumstances", sent.time) if sent.HasField("time") else now,
        sent.approvals,
    )
