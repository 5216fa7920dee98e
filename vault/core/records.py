"""An audit record in the shapes that other systems read: plain values, CSV cells, OCSF 1.x events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vault.core.export import COLUMNS

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

OCSF_VERSION = "1.3.0"
_CATEGORY, _CLASS = 6, 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_ACTIVITIES = {
    "put": _CREATE, "create": _CREATE, "issue": _CREATE, "open": _CREATE, "request": _CREATE,
    "get": _READ, "list": _READ, "reveal": _READ, "describe": _READ, "introspect": _READ, "verify": _READ,
    "rotate": _UPDATE, "undelete": _UPDATE, "update": _UPDATE, "approve": _UPDATE,
    "delete": _DELETE, "destroy": _DELETE, "revoke": _DELETE, "erase": _DELETE, "cancel": _DELETE,
}  # fmt: skip
_INFORMATIONAL, _LOW, _CRITICAL = 1, 2, 5
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record's columns as JSON has them: moments in RFC 3339 with microseconds, bytes in hexadecimal."""
    values = {name: row[name] for name in COLUMNS}
    values["created_at"] = moment_text(row["created_at"])
    values["leaf_hash"] = row["leaf_hash"].hex()
    return values


def moment_text(moment: datetime.datetime) -> str:
    """RFC 3339 with microseconds, in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A record as the cells of a CSV row, none of which a spreadsheet takes for a formula."""
    texts = map(str, plain(row).values())
    return [f"'{text}" if text.startswith(_FORMULA) else text for text in texts]


def ocsf(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record as an OCSF event of the class API Activity (6003), with the profile `security_control`."""
    granted = row["outcome"] == "granted"
    action = row["action_type"]
    activity = _ACTIVITIES.get(action.rpartition(".")[2].partition("_")[0], _OTHER)
    values = plain(row)
    event: dict[str, Any] = {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": activity,
        "type_uid": _CLASS * 100 + activity,
        "time": int(row["created_at"].timestamp() * 1000),
        "severity_id": _severity(row["reason"], granted=granted),
        "status_id": 1 if granted else 2,
        "action_id": 1 if granted else 2,
        "disposition_id": 1 if granted else 2,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": row["id"],
            "sequence": row["sequence"],
            "original_time": values["created_at"],
            "profiles": ["security_control"],
            "product": {"name": "Strongroom", "vendor_name": "Strongroom"},
        },
        "actor": {"user": {"uid": row["user_id"] or "unknown"}},
        "api": {"operation": action, "request": {"uid": row["request_id"]}},
        # Of a person's address the network is kept, and OCSF's `ip` takes none.
        "src_endpoint": {"ip": row["ip_address"].partition("/")[0]}
        if row["ip_address"]
        else {"svc_name": "strongroom"},
        "unmapped": {
            name: values[name]
            for name in ("token_id", "before_state", "after_state", "rows_written", "leaf_hash")
        },
    }
    if activity == _OTHER:
        event["activity_name"] = action
    if row["tenant"]:
        event["metadata"]["tenant_uid"] = row["tenant"]
    if row["device_id"]:
        event["src_endpoint"]["uid"] = row["device_id"]
    if row["session_id"]:
        event["actor"]["session"] = {"uid": row["session_id"]}
    if row["resource"]:
        event["resources"] = [{"name": row["resource"], "type": action.partition(".")[0]}]
    if not granted:
        event["status_detail"] = row["reason"]
        event["api"]["response"] = {"error": row["reason"]}
    return event


def _severity(reason: str, *, granted: bool) -> int:
    if reason == "STORED_DATA_DAMAGED":
        return _CRITICAL
    return _INFORMATIONAL if granted else _LOW
