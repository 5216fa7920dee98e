"""OpenTelemetry logs: OTLP over HTTP in protobuf. A batch counts as delivered when the collector says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
    ResourceLogs,
    ScopeLogs,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from vault.clock import micros
from vault.core.records import plain
from vault.core.sinks import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_SECONDS = 5.0
_MEMBERS = (
    "id", "tenant", "user_id", "action_type", "resource", "outcome", "reason", "ip_address", "device_id", "request_id",
    "session_id",
)  # fmt: skip


class Otlp:
    """Posts records to one collector."""

    def __init__(self, url: str, ca_file: str | None, token: str | None) -> None:
        self._url = url
        self._session = requests.Session()
        # Neither proxies nor credentials of the environment: only what the configuration says.
        self._session.trust_env = False
        self._session.verify = ca_file or True
        self._session.headers["content-type"] = "application/x-protobuf"
        if token is not None:
            self._session.headers["authorization"] = f"Bearer {token}"

    def deliver(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Post the records, and return when the collector accepted every one."""
        body = export_request(rows).SerializeToString()
        try:
            response = self._session.post(
                self._url, data=body, timeout=_TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            raise SinkError(f"the collector does not answer ({type(error).__name__})") from None
        if response.status_code != requests.codes.ok:
            raise SinkError(f"the collector answers {response.status_code}")
        try:
            rejected = ExportLogsServiceResponse.FromString(
                response.content
            ).partial_success.rejected_log_records
        except DecodeError:
            raise SinkError("the collector's answer is not OTLP") from None
        if rejected:
            raise SinkError(f"the collector rejects {rejected} records")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def export_request(rows: Sequence[Mapping[str, Any]]) -> ExportLogsServiceRequest:
    """The records as one request."""
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=Resource(attributes=[_attribute("service.name", "strongroom")]),
                scope_logs=[
                    ScopeLogs(
                        scope=InstrumentationScope(name="strongroom.audit"), log_records=map(_record, rows)
                    )
                ],
            )
        ]
    )


def _record(row: Mapping[str, Any]) -> LogRecord:
    granted = row["outcome"] == "granted"
    moment = micros(row["created_at"]) * 1000
    return LogRecord(
        time_unix_nano=moment,
        observed_time_unix_nano=moment,
        severity_number=SEVERITY_NUMBER_INFO if granted else SEVERITY_NUMBER_WARN,
        severity_text="INFO" if granted else "WARN",
        event_name=row["action_type"],
        body=AnyValue(string_value=json.dumps(plain(row))),
        attributes=[
            KeyValue(key="strongroom.sequence", value=AnyValue(int_value=row["sequence"])),
            *(_attribute(f"strongroom.{name}", row[name]) for name in _MEMBERS if row[name]),
        ],
    )


def _attribute(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))
