"""From the configuration to sinks."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from vault.config import FileSink, SyslogSink, read_secret_file
from vault.core.records import ocsf, plain
from vault.core.sinks import Outlet
from vault.errors import StartError
from vault.sinks.file import File
from vault.sinks.otlp import Otlp
from vault.sinks.syslog import Syslog, context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.config import Sink as SinkConfig
    from vault.core.sinks import Sink

_FORMS = {"record": plain, "ocsf": ocsf}


def outlets(configured: Sequence[SinkConfig]) -> list[Outlet]:
    """The sinks of the configuration. Nothing is connected yet. Raises `StartError`."""
    return [Outlet(sink.name, sink.delivery == "required", _open(sink)) for sink in configured]


def _open(sink: SinkConfig) -> Sink:
    if isinstance(sink, FileSink):
        return File(sink.file, sink.max_bytes, sink.keep, _FORMS[sink.format])
    if isinstance(sink, SyslogSink):
        key = str(sink.private_key_file) if sink.private_key_file else None
        certificate = str(sink.certificate_file) if sink.certificate_file else None
        try:
            tls = context(str(sink.ca_file), certificate, key)
        except (OSError, ssl.SSLError):
            raise StartError(f"audit.sinks: {sink.name}: its TLS files cannot be used") from None
        return Syslog(sink.host, sink.port, tls, _FORMS[sink.format])
    token = read_secret_file(sink.token_file, f"audit.sinks: {sink.name}") if sink.token_file else None
    if sink.ca_file is not None and not sink.ca_file.is_file():
        raise StartError(f"audit.sinks: {sink.name}: cannot read its ca_file")
    return Otlp(sink.url, str(sink.ca_file) if sink.ca_file else None, token)
