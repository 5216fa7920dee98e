"""The sinks of the audit log: files, syslog, OpenTelemetry. Each takes rows and nothing else of the vault."""
