"""Connectors: how requests to a provider are made. Data that the operator owns: TOML files, read once at start.

A connector says which hosts, methods and paths there are, where each secret goes, what is captured from an answer, and
the limits. A caller chooses among these and adds a path, a query, headers that the connector lets through, and a body.
`docs/uses.md` explains every key.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vault.crypto import kinds
from vault.errors import Reason, StartError, VaultError

_SEGMENT = r"[A-Za-z0-9._~!$&'()+,=:@-]+"
_PATH = re.compile(rf"/|(?:/{_SEGMENT})+/?")
_PATTERN = re.compile(rf"/|(?:/(?:\*|{_SEGMENT}))*(?:/\*\*)?/?")
_HOST = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
_POINTER = r"^(/[A-Za-z0-9_.-]{1,64}){1,4}$"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LOOPBACK = "localhost"

FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Host = Annotated[str, Field(pattern=_HOST)]
Pointer = Annotated[str, Field(pattern=_POINTER)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]

# What frames a message or names its destination is never a caller's, nor a connector's, to set.
_FRAMING = frozenset(
    {
        "host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
        "proxy-authorization", "proxy-connection", "keep-alive", "accept-encoding", "cookie", "forwarded",
        "x-forwarded-for", "x-forwarded-host", "via",
    }
)  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Inject(_Section):
    """`[inject.NAME]`: where a field goes."""

    place: Literal["header", "bearer", "basic", "json", "form", "query", "tls"]
    field: FieldName
    name: str = Field(default="", max_length=260)
    user_field: FieldName | None = None

    @model_validator(mode="after")
    def _whole(self) -> Inject:
        if (self.place in ("header", "json", "form", "query")) != bool(self.name):
            raise ValueError("name is for header, json, form and query, and required there")
        if self.place == "header" and (
            not re.fullmatch(r"[A-Za-z0-9-]{1,64}", self.name) or self.name.lower() in _FRAMING
        ):
            raise ValueError("name must be that of a header that frames nothing")
        if self.place == "json" and not re.fullmatch(_POINTER, self.name):
            raise ValueError("name must be a JSON pointer")
        if (self.place in ("basic", "tls")) != (self.user_field is not None):
            raise ValueError(
                "user_field is for basic (the user) and tls (the certificate), and required there"
            )
        return self


class Capture(_Section):
    """`capture`: what of an answer becomes a credential instead of being shown."""

    into: Literal["new", "version"]
    kind: str = ""
    fields: dict[FieldName, Pointer]
    shown: dict[FieldName, Pointer] = {}
    optional: tuple[FieldName, ...] = ()
    provider_id: FieldName | None = None

    @model_validator(mode="after")
    def _whole(self) -> Capture:
        if not self.fields or (self.into == "new") != (self.kind in kinds.KINDS):
            raise ValueError("fields are required, and a kind for what is new")
        if self.provider_id is not None and self.provider_id not in self.shown:
            raise ValueError("provider_id must be one of the fields that are shown")
        return self


class Route(_Section):
    """`[[routes]]`: what may be asked."""

    methods: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], ...] = Field(min_length=1)
    paths: tuple[str, ...] = Field(min_length=1)
    inject: tuple[str, ...] = Field(min_length=1)
    capture: Capture | None = None
    mends: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Route:
        if not all(_PATTERN.fullmatch(path) and path for path in self.paths):
            raise ValueError("a path begins with / and has plain segments, * for one, ** for the rest")
        return self


class Oauth(_Section):
    """`[oauth]`: how an access token is refreshed."""

    path: str = Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    client: Literal["basic", "form", "private_key_jwt"] = "basic"
    audience: str = ""


class LinkToken(_Section):
    """`[link_token]`: how the token is minted by which a customer mends a credential."""

    path: str = Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    inject: tuple[str, ...] = Field(min_length=1)

    @property
    def route(self) -> Route:
        """The route of that one request."""
        return Route(methods=("POST",), paths=(self.path,), inject=self.inject, mends=True)


class Limits(_Section):
    """`[limits]`."""

    request_bytes: int = Field(default=131_072, ge=0, le=196_608)
    response_bytes: int = Field(default=1_048_576, ge=1, le=4 * 1_048_576)
    seconds: int = Field(default=30, ge=1, le=120)


class Development(_Section):
    """`[development]`: for mock providers on this machine only. Never in production."""

    loopback: Literal[True]
    port: int = Field(ge=1, le=65_535)
    ca_file: Path


class Connector(_Section):
    """A whole file; its name is the file's."""

    kinds: tuple[str, ...] = Field(min_length=1)
    hosts: tuple[Host, ...] = Field(min_length=1)
    headers: tuple[HeaderName, ...] = ("content-type", "accept")
    inject: dict[str, Inject] = {}
    routes: tuple[Route, ...] = ()
    oauth: Oauth | None = None
    link_token: LinkToken | None = None
    limits: Limits = Limits()
    development: Development | None = None

    @model_validator(mode="after")
    def _whole(self) -> Connector:
        if not set(self.kinds) <= {*kinds.KINDS, kinds.GENERIC}:
            raise ValueError("kinds: unknown kind")
        if set(self.headers) & _FRAMING:
            raise ValueError("headers: frames the message")
        for route in self.routes:
            if not set(route.inject) <= set(self.inject):
                raise ValueError("routes.inject: no such injection")
        if self.link_token is not None and not set(self.link_token.inject) <= set(self.inject):
            raise ValueError("link_token.inject: no such injection")
        local = [host for host in self.hosts if host == _LOOPBACK or host.endswith("." + _LOOPBACK)]
        if bool(local) != (self.development is not None) or (local and len(local) != len(self.hosts)):
            raise ValueError("hosts: localhost goes with [development], and nothing else does")
        if any(re.fullmatch(r"[0-9.]+", host) for host in self.hosts):
            raise ValueError("hosts: a name, not an address")
        return self

    @property
    def port(self) -> int:
        """Where the hosts listen."""
        return self.development.port if self.development else 443

    def route(self, method: str, path: str) -> Route:
        """The first route that allows this. Raises `DESTINATION_DENIED`."""
        if is_path(path):
            segments = path.split("/")
            for route in self.routes:
                if method in route.methods and any(_matches(pattern, segments) for pattern in route.paths):
                    return route
        raise VaultError(Reason.DESTINATION_DENIED, "the connector has no route for this method and path")


def is_path(path: str) -> bool:
    """Whether this is a path that may be asked for: plain segments, nothing encoded, none that leads up."""
    plain = len(path) <= 2048 and _PATH.fullmatch(path) is not None  # noqa: PLR2004
    return plain and not {".", ".."} & set(path.split("/"))


def named(name: str) -> str:
    """A connector's name as the log may hold it: what cannot be one is nothing."""
    return name if _NAME.fullmatch(name) else ""


class Connectors:
    """The connectors, by name."""

    def __init__(self, connectors: dict[str, Connector]) -> None:
        self._connectors = connectors

    def get(self, name: str, kind: str) -> Connector:
        """A connector for a credential of this kind. Raises `CONNECTOR_NOT_FOUND`."""
        connector = self._connectors.get(name)
        if connector is None or kind not in connector.kinds:
            raise VaultError(Reason.CONNECTOR_NOT_FOUND, "no such connector for a credential of this kind")
        return connector


def load(folder: Path | None) -> Connectors:
    """The connectors that come with the vault, and those of the operator's folder, which go before them.

    Raises `StartError` that names the file, the key and the rule.
    """
    found: dict[str, Connector] = {}
    shipped = resources.files("vault.core").joinpath("connectors")
    for entry in shipped.iterdir():
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = parse(entry.read_text(), entry.name, Path())
    if folder is not None:
        if not folder.is_dir():
            raise StartError(f"connectors.folder: {folder} is not a folder")
        for file in sorted(folder.glob("*.toml")):
            if not _NAME.fullmatch(file.stem):
                raise StartError(f"connectors: {file}: a connector's name must be [a-z0-9][a-z0-9_-]*")
            found[file.stem] = parse(file.read_text(), str(file), folder)
    return Connectors(found)


def parse(text: str, source: str, folder: Path) -> Connector:
    """A connector from its TOML. Raises `StartError`."""
    try:
        connector = Connector.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise StartError(f"connectors: {source} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StartError(f"connectors: {source}: {key}: {first['msg']}") from None
    if connector.development:
        development = connector.development.model_copy(
            update={"ca_file": (folder / connector.development.ca_file).resolve()}
        )
        connector = connector.model_copy(update={"development": development})
    return connector


def _matches(pattern: str, segments: list[str]) -> bool:
    wanted = pattern.split("/")
    if wanted[-1] == "**":
        if len(segments) < len(wanted) or not segments[-1]:
            return False
        wanted, segments = wanted[:-1], segments[: len(wanted) - 1]
    return len(wanted) == len(segments) and all(
        own == other or (own == "*" and other) for own, other in zip(wanted, segments, strict=True)
    )
