"""The configuration: one TOML file, read once, strict, frozen. `docs/configuration.md` says the same for people.

An unknown key is an error. Secrets are never values here: a file is named, and read where it is needed.
Algorithms are not configuration.
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vault.errors import StartError
from vault.model import Placement

Seconds = Annotated[float, Field(gt=0)]
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT = r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*"
# A SPIFFE ID or a DNS name in which a whole segment, or a DNS name's first label, may be `*`.
_PERSONAL = (
    rf"^(?:spiffe://{_LABEL}(?:\.{_LABEL})*(?:/(?:\*|{_SEGMENT}))+|(?:\*|{_LABEL})\.{_LABEL}(?:\.{_LABEL})*)$"
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Server(_Section):
    """`[server]`: where to listen."""

    listen: str = Field(default="127.0.0.1:7443", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\[\]]+):[0-9]{1,5}$")
    workers: int = Field(default=1, ge=1, le=64)
    max_concurrent_calls: int = Field(default=512, ge=1)
    drain_seconds: Seconds = 10.0
    reflection: bool = False


class Tls(_Section):
    """`[tls]`: PEM files. The private key must be an elliptic-curve one."""

    certificate_file: Path
    private_key_file: Path
    client_ca_file: Path
    client_crl_file: Path | None = None
    crl_grace_seconds: int = Field(default=0, ge=0, le=30 * 86_400)


class Identity(_Section):
    """`[identity]`: whose certificates are accepted, and which of them are people's (`core/people.py`)."""

    trust_domains: tuple[str, ...] = Field(min_length=1)
    personal: tuple[Annotated[str, Field(max_length=255, pattern=_PERSONAL)], ...] = ()

    @model_validator(mode="after")
    def _of_a_trust_domain(self) -> Identity:
        for pattern in self.personal:
            if pattern.startswith("spiffe://") and pattern.split("/")[2] not in self.trust_domains:
                raise ValueError("a pattern of personal names a trust domain that is not accepted")
        return self


class Hsm(_Section):
    """`[hsm]`: the HSM, by RFC 7512 URI; the PIN by `pin-source` in it."""

    uri: str
    sessions: int = Field(default=8, ge=1, le=1024)
    wait_seconds: Seconds = 5.0
    hang_seconds: Seconds = 10.0
    cached_keys: int = Field(default=256, ge=1, le=65_536)
    key_placement: Placement = Placement.TOKEN
    max_credential_keys_per_tenant: int = Field(default=64, ge=1)
    deployment: str = Field(default="sr", pattern=r"^[a-z0-9]{1,6}$")
    softhsm_config_file: Path | None = None


class SecondHsm(_Section):
    """`[second_hsm]`: another HSM, for tenants that are mirrored in it or moved to it."""

    uri: str
    sessions: int = Field(default=8, ge=1, le=1024)
    wait_seconds: Seconds = 5.0
    hang_seconds: Seconds = 10.0
    cached_keys: int = Field(default=256, ge=1, le=65_536)


class Secrets(_Section):
    """`[secrets]`: a KV version 2 mount that `vault:PATH#FIELD` refers to, as a `kv://` URI with its log-in."""

    uri: str


class Database(_Section):
    """`[database]`: `postgresql://user@host/name` or `sqlite:///path`; the password by file or by reference."""

    url: str
    password_file: Path | None = None
    password_source: str | None = Field(default=None, pattern=r"^vault:")
    owner_url: str | None = Field(default=None, pattern=r"^postgresql://")
    owner_password_file: Path | None = None
    pool_size: int = Field(default=8, ge=2, le=256)
    danger_any_role: bool = False

    @model_validator(mode="after")
    def _one_password(self) -> Database:
        if self.password_file and self.password_source:
            raise ValueError("password_file and password_source are two ways for one password")
        return self


class Tokens(_Section):
    """`[tokens]`: lives in seconds. 24 hours is the most, whatever is written here."""

    issuer: str = Field(default="strongroom", pattern=r"^[ -~]{1,128}$")
    audience: str = Field(default="strongroom", pattern=r"^[ -~]{1,128}$")
    default_life_seconds: int = Field(default=3600, ge=1, le=86_400)
    max_life_seconds: int = Field(default=86_400, ge=1, le=86_400)

    @model_validator(mode="after")
    def _ordered(self) -> Tokens:
        if self.default_life_seconds > self.max_life_seconds:
            raise ValueError("default_life_seconds must not exceed max_life_seconds")
        return self


class Policy(_Section):
    """`[policy]`: Cedar files, in force until a policy is stored."""

    files: tuple[Path, ...] = Field(min_length=1)
    ignore_stored: bool = False


Approvers = Annotated[int, Field(ge=1, le=16)]


class Approvals(_Section):
    """`[approvals]`: how many people beside the one who asks. None has a default: 0 or nothing is an error."""

    life_seconds: int = Field(default=86_400, ge=60, le=604_800)
    destroy_key: Approvers
    delete_tenant: Approvers
    change_policy: Approvers
    recover_database: Approvers
    recovery_certificates: tuple[Path, ...] = ()
    break_glass: Approvers
    issue_token: Approvers


class Rates(_Section):
    """`[rates]`: calls a second over all workers and replicas; 0 is no limit."""

    per_identity: int = Field(default=0, ge=0)
    per_tenant: int = Field(default=0, ge=0)


class Threats(_Section):
    """`[threats]`: when the rules of threat detection find something, and what then."""

    denied_per_minute: int = Field(default=20, ge=2)
    reveals_per_minute: int = Field(default=120, ge=1)
    reveal_factor: float = Field(default=5.0, ge=1)
    freeze: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    webhook_url: str = Field(default="", pattern=r"^$|^https?://[!-~]{1,500}$")
    webhook_secret_file: Path | None = None

    @model_validator(mode="after")
    def _told_signed(self) -> Threats:
        if bool(self.webhook_url) != (self.webhook_secret_file is not None):
            raise ValueError("webhook_url and webhook_secret_file go together")
        return self


class Sessions(_Section):
    """`[sessions]`: the limits of sessions."""

    max_life_seconds: int = Field(default=3600, ge=1, le=86_400)
    idle_seconds: int = Field(default=300, ge=1)
    max_per_worker: int = Field(default=2000, ge=1)
    max_per_tenant: int = Field(default=1000, ge=1)
    max_per_identity: int = Field(default=500, ge=1)
    max_bytes_per_tenant: int = Field(default=4 * 1024 * 1024, ge=65_536)
    locked_memory_bytes: int = Field(default=6 * 1024 * 1024, ge=1024 * 1024)


class DirectoryAnchor(_Section):
    """`[[audit.anchors]]`: a directory on other storage."""

    kind: Literal["directory"]
    path: Path


class WitnessAnchor(_Section):
    """`[[audit.anchors]]`: a witness of C2SP tlog-witness, and the key by which it cosigns."""

    kind: Literal["witness"]
    url: str = Field(pattern=r"^https?://[^?#]+$")
    verifier_key: str = Field(pattern=r"^[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$")
    ca_file: Path | None = None


class SyslogAnchor(_Section):
    """`[[audit.anchors]]`: a syslog server over TLS."""

    kind: Literal["syslog"]
    host: str
    port: int = Field(default=6514, ge=1, le=65_535)
    ca_file: Path | None = None


Anchor = Annotated[DirectoryAnchor | WitnessAnchor | SyslogAnchor, Field(discriminator="kind")]


class _Sink(_Section):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    delivery: Literal["required", "best_effort"] = "best_effort"


class FileSink(_Sink):
    """A file of JSON lines that is changed for a new one when it is full."""

    kind: Literal["file"]
    file: Path
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    keep: int = Field(default=16, ge=1, le=10_000)
    format: Literal["record", "ocsf"] = "record"


class SyslogSink(_Sink):
    """A syslog receiver: RFC 5424 over TLS (RFC 5425)."""

    kind: Literal["syslog"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=6514, ge=1, le=65_535)
    ca_file: Path
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    format: Literal["record", "ocsf"] = "record"

    @model_validator(mode="after")
    def _both_or_none(self) -> SyslogSink:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file belong together")
        return self


class OtlpSink(_Sink):
    """A collector of OpenTelemetry logs: OTLP over HTTP, in protobuf."""

    kind: Literal["otlp"]
    url: str = Field(pattern=r"^(https://[!-~]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?/[!-~]*)$")
    ca_file: Path | None = None
    token_file: Path | None = None


Sink = Annotated[FileSink | SyslogSink | OtlpSink, Field(discriminator="kind")]


class Webhooks(_Section):
    """`[webhooks]`: outgoing webhooks."""

    development_ca_file: Path | None = None


class Audit(_Section):
    """`[audit]`: the log."""

    origin: str = Field(default="strongroom/audit", pattern=r"^[!-*,-~]{1,128}$")
    wait_seconds: Seconds = 5.0
    checkpoint_seconds: Seconds = 60.0
    checkpoint_records: int = Field(default=10_000, ge=1)
    post_quantum_signature: bool = False
    anchor_file: Path | None = None
    anchors: tuple[Anchor, ...] = ()
    archive_folder: Path | None = None
    retention_months: int = Field(default=12, ge=12, le=1200)
    sinks: tuple[Sink, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Audit:
        if len({sink.name for sink in self.sinks}) != len(self.sinks):
            raise ValueError("each sink needs a name of its own")
        return self


class Metrics(_Section):
    """`[metrics]`: an endpoint for Prometheus, if there is to be one."""

    listen: str = Field(default="", pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[^:\[\]]+):[0-9]{1,5}$")
    tenants: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], ...] = Field(
        default=(), max_length=100
    )


class Connectors(_Section):
    """`[connectors]`: how requests to providers are made."""

    folder: Path | None = None


class Config(_Section):
    """The whole file."""

    server: Server = Server()
    tls: Tls
    identity: Identity
    hsm: Hsm
    database: Database
    secrets: Secrets | None = None
    second_hsm: SecondHsm | None = None
    tokens: Tokens = Tokens()
    policy: Policy
    approvals: Approvals
    threats: Threats = Threats()
    rates: Rates = Rates()
    sessions: Sessions = Sessions()
    connectors: Connectors = Connectors()
    audit: Audit = Audit()
    webhooks: Webhooks = Webhooks()
    metrics: Metrics = Metrics()


def load(file: Path) -> Config:
    """Read the configuration. Relative paths in it are relative to its folder.

    Raises `StartError` that names the file, and the key and rule that are broken; never a value.
    """
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise StartError(
            f"configuration: cannot read {file}: {error.strerror or type(error).__name__}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"configuration: {file} is not TOML: {error}") from None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)
        # A required key that is spelt wrong is both missing and unknown: the spelling is what helps.
        first = next((one for one in wrong if one["type"] == "extra_forbidden"), wrong[0])
        key = ".".join(str(part) for part in first["loc"])
        raise StartError(f"configuration: {file}: {key}: {_rule(first['type'], first['msg'])}") from None
    return _resolve(config, file.resolve().parent)


def read_secret_file(file: Path, key: str) -> str:
    """A secret from its file, without the newline at its end. Raises `StartError`."""
    try:
        return file.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise StartError(f"{key}: cannot read {file}: {reason or type(error).__name__}") from None


def seconds(value: float) -> datetime.timedelta:
    """A span of time."""
    return datetime.timedelta(seconds=value)


def _rule(kind: str, message: str) -> str:
    return {"extra_forbidden": "unknown key", "missing": "is required"}.get(kind, message)


def _resolve(config: Config, folder: Path) -> Config:
    """Every path in the configuration, made absolute."""

    def resolve(section: BaseModel) -> BaseModel:
        changes: dict[str, object] = {}
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, Path):
                changes[name] = folder / value
            elif isinstance(value, tuple) and value and isinstance(value[0], Path):
                changes[name] = tuple(folder / item for item in value)
            elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
                changes[name] = tuple(map(resolve, value))
            elif isinstance(value, BaseModel):
                changes[name] = resolve(value)
        return section.model_copy(update=changes)

    resolved = resolve(config)
    assert isinstance(resolved, Config)
    database = resolved.database
    if database.url.startswith("sqlite:///") and not database.url.startswith("sqlite:////"):
        path = folder / database.url.removeprefix("sqlite:///")
        database = database.model_copy(update={"url": f"sqlite:///{path}"})
    return resolved.model_copy(update={"database": database})
