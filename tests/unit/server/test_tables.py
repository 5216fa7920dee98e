"""Every table that must be whole is held against what it is a table of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from vault.config import Config
from vault.crypto.scopes import ACTIONS
from vault.errors import Reason
from vault.server import redaction
from vault.server.methods import RULES, UNAUDITED
from vault.server.status import CODES
from vault.v1 import (
    approval_pb2,
    audit_pb2,
    credential_pb2,
    erasure_pb2,
    errors_pb2,
    handover_pb2,
    job_pb2,
    key_pb2,
    policy_pb2,
    session_pb2,
    threat_pb2,
    token_pb2,
    webhook_pb2,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

ROOT = Path(__file__).parents[3]
PROTOS = (
    token_pb2,
    credential_pb2,
    session_pb2,
    handover_pb2,
    key_pb2,
    job_pb2,
    audit_pb2,
    approval_pb2,
    policy_pb2,
    erasure_pb2,
    threat_pb2,
    webhook_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in PROTOS
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_method_of_every_service_has_a_rule_and_no_rule_is_left_over() -> None:
    assert set(RULES) == set(METHODS)


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


def _messages(message: Descriptor, found: dict[str, Descriptor]) -> None:
    """A message and those that it is made of, of this package."""
    if message.name not in found and message.full_name.startswith("vault.v1."):
        found[message.name] = message
        for field in message.fields:
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                _messages(field.message_type, found)


def _requests() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    for method in METHODS.values():
        _messages(method.input_type, found)
    return found


def test_every_field_of_every_request_is_either_recorded_or_withheld() -> None:
    """A field that is added to a proto must be decided on in `server/redaction.py`."""
    requests = _requests()
    assert set(redaction.MESSAGES) == set(requests)
    for name, fields in redaction.MESSAGES.items():
        listed = [*fields.recorded, *fields.withheld]
        assert sorted(listed) == sorted(field.name for field in requests[name].fields), name


def test_no_bytes_and_nothing_that_authenticates_may_be_recorded() -> None:
    secret = {
        "token",
        "sealed",
        "signature",
        "mac",
        "challenge",
        "etag",
        "page_token",
        "headers",
        "body",
        "message",
    }
    for name, message in _requests().items():
        for field in message.fields:
            if field.type == field.TYPE_BYTES or field.name in secret:
                assert not redaction.may_record(name, field.name), f"{name}.{field.name}"


def test_no_request_says_where_the_vault_loads_code_or_writes_its_log() -> None:
    """Modules, files and sinks are the configuration's. The path of `http_call` is one of a connector's routes."""
    of_the_host = re.compile(r"(^|_)(path|file|folder|directory|module|library|sink|dsn)s?($|_)")
    found = {
        f"{name}.{field.name}"
        for name, message in _requests().items()
        for field in message.fields
        if of_the_host.search(field.name)
    }
    assert found == {"HttpCallOperation.path"}


def test_what_has_no_row_is_withheld() -> None:
    assert not redaction.may_record("CredentialServicePutRequest", "a_field_of_tomorrow")
    assert not redaction.may_record("ARequestOfTomorrow", "name")


def test_what_a_refusal_records_is_on_the_list() -> None:
    for method, rule in RULES.items():
        if rule.resource:
            assert redaction.may_record(METHODS[method].input_type.name, rule.resource), method


def test_the_services_that_leave_no_record_are_these_and_are_published() -> None:
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == UNAUDITED
    published = (ROOT / "docs/threat-model.md").read_text()
    for service in UNAUDITED:
        assert f"`{service}`" in published
