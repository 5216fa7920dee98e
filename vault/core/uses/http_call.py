"""An HTTPS request to a provider with the credential put in by the vault, as a connector says.

The caller gives a method, a path and what else the connector lets through. Where it goes and where the secret stands is
the operator's; what comes back is held against every spelling of the secrets, and not shown if one is in it. A secret
that the provider gives is stored as a credential and never shown.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple

from vault.core import requests
from vault.core.egress import connectors, leaks
from vault.core.egress.calls import Capture, Injection, Request
from vault.core.standing import PROVIDER_ID
from vault.core.uses.material import Done, unknown_field, unsuitable
from vault.core.uses.outside import OwnCopy
from vault.crypto import bundle, kinds
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vault.core.egress.calls import Answer
    from vault.core.egress.connectors import Connector, Inject, Route
    from vault.core.uses.material import Material, Surroundings, Told
    from vault.model import Credential

_MAX_QUERY = 64
_MAX_TEXT = 4096
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_VALUE = re.compile(r"[\t -~]*")


@dataclasses.dataclass(frozen=True)
class HttpCall:
    """Ask for a request. `also` names a second credential of the session that lends fields, such as Plaid's app."""

    connector: str
    method: str
    path: str
    host: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = dataclasses.field(default=b"", repr=False)
    also: str = ""
    capture_name: str = ""

    def intent(self) -> dict[str, object]:
        """What the log says before anything is sent: of what is not well-formed, and so will not be sent, nothing."""
        path = self.path[:256] if connectors.is_path(self.path) else ""
        method = self.method if self.method in METHODS else ""
        return {"connector": connectors.named(self.connector), "method": method, "path": path}


class HttpAnswer(NamedTuple):
    """The provider's answer, and where what was captured is kept."""

    status: int
    headers: dict[str, str]
    body: bytes
    captured_name: str = ""
    captured_version: int = 0


async def run(material: Material, request: HttpCall, surroundings: Surroundings) -> Done:
    """Make a request."""
    outside = surroundings.outside()
    connector = outside.connectors.get(request.connector, material.kind)
    companion = material.companion
    if companion is not None:
        outside.connectors.get(request.connector, companion.kind)
    route = connector.route(request.method, request.path)
    if material.standing is Standing.UPDATE_REQUIRED and not route.mends:
        raise update_required()
    target = capture_target(material, request, route)
    # Copied before anything is waited for: the session may end, and its buffers be wiped, at any moment after.
    work = _make_on(OwnCopy(material), connector, route, request, target, surroundings)
    # What is captured exists nowhere else: then the call goes on to its end, even if the session does not.
    result = await (outside.finish(work) if route.capture else work)
    after: dict[str, Told] = {"status": result.status}
    if result.captured_name:
        after |= {"captured": result.captured_name, "captured_version": result.captured_version}
    names = tuple(connector.inject[name].field for name in route.inject)
    return Done(result, names, after, renewed=result.captured_name == material.name)


def update_required() -> VaultError:
    """The error for a credential that its provider no longer accepts."""
    return VaultError(Reason.CREDENTIAL_UPDATE_REQUIRED, "the provider wants the credential renewed")


def capture_target(material: Material, request: HttpCall, route: Route) -> str:
    """The name of the credential that takes what is captured. Raises `FIELD_INVALID`, `SCOPE_DENIED`."""
    if route.capture is None or route.capture.into == "version":
        if request.capture_name:
            raise invalid_field("capture_name", "this route captures nothing new")
        return material.name if route.capture else ""
    requests.credential_name(request.capture_name, "capture_name")
    requests.require(material.caller, "credential.write", request.capture_name)
    return request.capture_name


async def _make_on(
    own: OwnCopy,
    connector: Connector,
    route: Route,
    request: HttpCall,
    target: str,
    surroundings: Surroundings,
) -> HttpAnswer:
    with own as material:
        return await make(material, connector, route, request, surroundings, target)


async def make(
    material: Material,
    connector: Connector,
    route: Route,
    request: HttpCall,
    surroundings: Surroundings,
    target: str = "",
) -> HttpAnswer:
    """Make a request by a route; what that captures is kept under `target`. The material must outlast it."""
    made = _request(connector, route, request, material, target)
    answer = await surroundings.outside().calls.make(made)
    result = HttpAnswer(answer.status, answer.headers, answer.body)
    if not answer.captured:
        return result
    try:
        credential = await _keep(material, route, answer, target, surroundings)
    finally:
        for buffer in answer.captured:
            buffer.close()
    return result._replace(captured_name=credential.name, captured_version=credential.latest_version)


async def _keep(
    material: Material, route: Route, answer: Answer, target: str, surroundings: Surroundings
) -> Credential:
    capture = route.capture
    assert capture is not None
    values: dict[str, memoryview] = {}
    if capture.into == "version":
        values = dict(bundle.fields(material.view))
    for name, buffer in zip((*capture.fields, *capture.shown), answer.captured, strict=True):
        if len(buffer):
            values[name] = buffer.view
    kind = material.kind if capture.into == "version" else capture.kind
    labels = _labels(capture, values)
    return await surroundings.outside().credentials.keep(material.caller, target, kind, values, labels=labels)


def _labels(capture: connectors.Capture, values: Mapping[str, memoryview]) -> dict[str, str]:
    """The label by which the provider's webhooks find the credential (`core/standing.py`).

    An id that cannot be one is left out: what was captured exists nowhere else, and is stored all the same.
    """
    if capture.provider_id is None or capture.provider_id not in values:
        return {}
    try:
        return requests.labels({PROVIDER_ID: bytes(values[capture.provider_id]).decode("ascii")})
    except (UnicodeDecodeError, VaultError):
        return {}


def _request(
    connector: Connector, route: Route, request: HttpCall, material: Material, target: str
) -> Request:
    host = request.host or connector.hosts[0]
    if host not in connector.hosts:
        raise VaultError(Reason.DESTINATION_DENIED, "the connector has no such host")
    if len(request.body) > connector.limits.request_bytes:
        raise invalid_field("body", f"at most {connector.limits.request_bytes} bytes for this connector")
    if len(request.query) > _MAX_QUERY or any(
        len(part) > _MAX_TEXT for pair in request.query for part in pair
    ):
        raise invalid_field("query", f"at most {_MAX_QUERY} pairs of at most {_MAX_TEXT} characters")
    captures: list[Capture] = []
    if route.capture:
        for name, pointer in route.capture.fields.items():
            captures.append(Capture(pointer, f"strongroom:{target}", name in route.capture.optional))
        for name, pointer in route.capture.shown.items():
            captures.append(Capture(pointer, "", name in route.capture.optional))
    return Request(
        host=host,
        port=connector.port,
        method=request.method,
        path=request.path,
        query=request.query,
        headers=_headers(connector, request.headers),
        body=request.body,
        injections=tuple(injection(connector.inject[name], material) for name in route.inject),
        captures=tuple(captures),
        response_bytes=connector.limits.response_bytes,
        seconds=connector.limits.seconds,
        loopback=connector.development is not None,
        ca_file=connector.development.ca_file if connector.development else None,
    )


def injection(inject: Inject, material: Material, use: str = kinds.HTTP_CALL) -> Injection:
    """The values that an injection puts in. Raises `UNKNOWN_FIELD`, `SECRET_UNSUITABLE`."""
    if inject.place == "basic":
        names = [inject.user_field or "", inject.field]
    elif inject.place == "tls":
        names = [inject.field, inject.user_field or ""]
    else:
        names = [inject.field]
    found = [_field(material, name, use) for name in names]
    return Injection(
        inject.place, inject.name, tuple(view for view, _ in found), tuple(told for _, told in found)
    )


def _field(material: Material, name: str, use: str) -> tuple[memoryview, bool]:
    """The field, from the credential or from the one that lends; and whether it is secret."""
    owner = next(
        (item for item in (material, material.companion) if item is not None and name in item.field_names),
        None,
    )
    if owner is None:
        raise unknown_field()
    view = owner.field(name, use)
    secret = kinds.is_secret(owner.kind, name)
    if secret and len(view) < leaks.LEAST:
        raise unsuitable(f"a secret of less than {leaks.LEAST} bytes could not be found in an answer")
    return view, secret


def _headers(connector: Connector, headers: Mapping[str, str]) -> dict[str, str]:
    """Those of the caller's headers that the connector lets through; the others are left out."""
    if len({name.lower() for name in headers}) != len(headers):
        raise invalid_field("headers", "each at most once")
    passed = {}
    for name, value in headers.items():
        if len(value) > _MAX_TEXT or not _VALUE.fullmatch(value):
            raise invalid_field("headers", "values of printable ASCII, on one line")
        if name.lower() in connector.headers:
            passed[name.lower()] = value
    return passed
