"""The policy that decides at issue."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from vault.client.operations.access import collect
from vault.v1 import policy_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps


def get_policy(access: Access, version: int) -> Steps[policy_pb2.Policy]:
    """A version of the policy; 0 is what is in force."""
    response = yield from access.authorised(
        "/vault.v1.PolicyService/Get",
        policy_pb2.PolicyServiceGetRequest(version=version),
        policy_pb2.PolicyServiceGetResponse,
    )
    return response.policy


def list_policies(access: Access) -> Steps[list[policy_pb2.Policy]]:
    """The stored versions of the policy, newest first, without their text."""
    request = policy_pb2.PolicyServiceListRequest()
    return collect(
        access, "/vault.v1.PolicyService/List", request, policy_pb2.PolicyServiceListResponse, "policies"
    )


def validate_policy(access: Access, text: str) -> Steps[policy_pb2.PolicyServiceValidateResponse]:
    """What is wrong with a policy, and how it would be stored."""
    return access.authorised(
        "/vault.v1.PolicyService/Validate",
        policy_pb2.PolicyServiceValidateRequest(text=text),
        policy_pb2.PolicyServiceValidateResponse,
    )


def apply_policy(
    access: Access, text: str, base_version: int, comment: str, approval_id: str
) -> Steps[policy_pb2.Policy]:
    """Put a policy in force."""
    response = yield from access.authorised(
        "/vault.v1.PolicyService/Apply",
        policy_pb2.PolicyServiceApplyRequest(
            text=text,
            base_version=base_version,
            comment=comment,
            approval_id=approval_id,
            request_id=random.token_urlsafe(16),
        ),
        policy_pb2.PolicyServiceApplyResponse,
    )
    return response.policy


def explain_policy(
    access: Access, identity: str, scope: str, circumstances: policy_pb2.PolicyCircumstances | None
) -> Steps[policy_pb2.PolicyServiceExplainResponse]:
    """Whether an identity would be granted a scope, and which rules say so."""
    return access.authorised(
        "/vault.v1.PolicyService/Explain",
        policy_pb2.PolicyServiceExplainRequest(identity=identity, scope=scope, circumstances=circumstances),
        policy_pb2.PolicyServiceExplainResponse,
    )


def list_reachers(
    access: Access, name: str, identities: Sequence[str], circumstances: policy_pb2.PolicyCircumstances | None
) -> Steps[policy_pb2.PolicyServiceListReachersResponse]:
    """Who can reach a credential."""
    return access.authorised(
        "/vault.v1.PolicyService/ListReachers",
        policy_pb2.PolicyServiceListReachersRequest(
            name=name, identities=identities, circumstances=circumstances
        ),
        policy_pb2.PolicyServiceListReachersResponse,
    )
