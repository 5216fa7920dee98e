"""Every table that must be whole is held against what it is a table of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from vault.config import Config
from vault.crypto.scopes import ACTIONS
from vault.errors import Reason
from vault.server.methods import RULES
from vault.server.status import CODES
from vault.v1 import (
    approval_pb2,
    audit_pb2,
    credential_pb2,
    errors_pb2,
    handover_pb2,
    job_pb2,
    key_pb2,
    session_pb2,
    token_pb2,
)

ROOT = Path(__file__).parents[3]
PROTOS = (token_pb2, credential_pb2, session_pb2, handover_pb2, key_pb2, job_pb2, audit_pb2, approval_pb2)


def test_every_method_of_every_service_has_a_rule_and_no_rule_is_left_over() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for module in PROTOS
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(RULES) == methods


def test_the_field_that_goes_into_the_record_of_a_refusal_exists_and_is_a_name() -> None:
    requests = {
        f"/{service.full_name}/{method.name}": method.input_type
        for module in PROTOS
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    for method, rule in RULES.items():
        if rule.resource:
            field = requests[method].fields_by_name[rule.resource]
            assert field.type == field.TYPE_STRING or field.message_type.name == "CredentialSelector", method


def test_only_what_needs_no_token_by_design_is_open_to_a_certificate_alone() -> None:
    assert {method for method, rule in RULES.items() if not rule.needs_token} == {
        "/vault.v1.TokenService/Issue",
        "/vault.v1.TokenService/GetJwks",
        "/vault.v1.CredentialService/GetIngestKey",
    }


def test_every_reason_has_a_code_and_is_in_the_proto_with_that_code() -> None:
    assert set(CODES) == set(Reason)
    text = (ROOT / "protos/vault/v1/errors.proto").read_text()
    documented = re.findall(
        r"// \(([A-Z_]+)\)(?:(?!ERROR_REASON_).)*?ERROR_REASON_([A-Z_]+) = ", text, re.DOTALL
    )
    by_reason = {reason: code for code, reason in documented}
    assert {reason.value: CODES[reason].name for reason in Reason} == by_reason
    assert set(errors_pb2.ErrorReason.keys()) == {f"ERROR_REASON_{r.value}" for r in Reason} | {
        "ERROR_REASON_UNSPECIFIED"
    }


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_in_the_documentation_with_its_code(reason: Reason) -> None:
    rows = (ROOT / "docs/errors.md").read_text().splitlines()
    assert any(f"`{reason.value}`" in row and CODES[reason].name in row for row in rows)


def test_every_key_of_the_configuration_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    for section, field in Config.model_fields.items():
        sections = [
            part for part in (field.annotation, *get_args(field.annotation)) if hasattr(part, "model_fields")
        ]
        assert len(sections) == 1
        for key in sections[0].model_fields:
            assert f"`{section}.{key}`" in text, f"{section}.{key}"


def test_every_action_that_a_scope_can_name_is_in_the_policy_schema() -> None:
    schema = (ROOT / "vault/core/policy.cedarschema").read_text()
    actions = schema.partition("  action ")[2].partition("appliesTo")[0]
    assert set(re.findall(r'"([^"]+)"', actions)) == ACTIONS
