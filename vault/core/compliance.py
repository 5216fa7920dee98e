"""Compliance reports: what the live state and the log can say to the requirements of a standard.

Requirements are data (`standards/*.toml`), evidence is gathered by one function a kind. A report is JSON; its digest is
signed in the HSM as a note and stands in the log, so that it can neither be made up nor changed later.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import tomllib
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core import archives, audit, people, threats
from vault.core.schedules import due_time
from vault.crypto import notes, suites
from vault.crypto.errors import FormatError, IntegrityError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import KeyState
from vault.store import archives as archives_store
from vault.store import compliance as store
from vault.store import keys as keys_store
from vault.store import policies as policies_store
from vault.store.reach import ALL_TENANTS, declared
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.checkpoints import Checkpoints
    from vault.core.sinks import Sinks
    from vault.model import Approval, AuditRecord, Caller
    from vault.store.engine import Database

_FOLDER = resources.files("vault.core").joinpath("standards")
STANDARDS = ("pci-dss-4.0.1", "gdpr", "psd2", "dora", "asvs-5.0")
FORMAT = "strongroom/compliance-report/v1"
_NEWEST = 2**31 - 1
_YEAR, _QUARTER = datetime.timedelta(days=365), datetime.timedelta(days=90)
MAX_PERIOD = datetime.timedelta(days=3660)

INFORMS, HOLDS, ATTENTION = "informs", "holds", "attention"
"""What evidence says: something to judge; that all is as it should be; that somebody should look."""


@dataclass(frozen=True)
class Evidence:
    """A table of what was found, and what it comes to."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)
    verdict: str = INFORMS
    note: str = ""


class Report(NamedTuple):
    """A report and the signed note over its digest."""

    text: str
    note: str


@dataclass(frozen=True)
class Source:
    """What evidence is gathered from, and of which time."""

    database: Database
    checkpoints: Checkpoints
    sinks: Sinks
    caller: Caller
    now: datetime.datetime
    since: datetime.datetime
    cryptoperiod: datetime.timedelta


class Compliance:
    """Makes reports."""

    def __init__(
        self, database: Database, checkpoints: Checkpoints, sinks: Sinks, log: AuditLog, clock: Clock
    ) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._sinks = sinks
        self._log = log
        self._clock = clock

    async def report(
        self, caller: Caller, standard: str, period: datetime.timedelta, cryptoperiod: datetime.timedelta
    ) -> Report:
        """A report of the time of `period` until now.

        Raises `FIELD_INVALID`, `STORED_DATA_DAMAGED` if the log's head cannot be signed, `HSM_UNAVAILABLE`.
        """
        if standard not in STANDARDS:
            raise invalid_field("standard", f"must be one of {', '.join(STANDARDS)}")
        now = self._clock.now()
        source = Source(
            self._database, self._checkpoints, self._sinks, caller, now, now - period, cryptoperiod
        )
        document = standard_of(standard)
        wanted = {name for requirement in document["requirement"] for name in requirement["evidence"]}
        # First the verdict on the log, since all else is read from it.
        with declared(ALL_TENANTS):
            evidence = {
                name: await GATHERERS[name](source) for name in sorted(wanted, key=_verification_first)
            }
        head = await self._head()
        text = canonical_json(
            {
                "format": FORMAT,
                "standard": {"id": standard, "title": document["title"], "about": document["about"]},
                "created": _moment(now),
                "since": _moment(source.since),
                "requested_by": caller.identity,
                "log": head,
                "requirements": [{"outside": "", **requirement} for requirement in document["requirement"]],
                "evidence": {name: asdict(found) for name, found in evidence.items()},
            }
        )
        digest = hashlib.sha256(text.encode()).hexdigest()
        note = await self._checkpoints.attest(
            f"{FORMAT}\nstandard {standard}\ncreated {_moment(now)}\nlog-size {head['size']}\nsha256 {digest}\n"
        )
        state = canonical_json({"standard": standard, "sha256": digest, "log_size": head["size"]})
        await self._log.record(audit.granted(caller, "audit.report", "", after=state))
        return Report(text, note)

    async def _head(self) -> dict[str, Any]:
        try:
            checkpoint = await self._checkpoints.sign()
        except VaultError as error:
            if error.reason is not Reason.STORED_DATA_DAMAGED:
                raise
            # An assessor must get to see just this report: what is wrong is in its evidence.
            return {"size": 0, "root": "", "checkpoint": "", "damaged": True}
        root = base64.b64encode(checkpoint.root).decode()
        return {"size": checkpoint.size, "root": root, "checkpoint": checkpoint.note, "damaged": False}


def standard_of(name: str) -> dict[str, Any]:
    """A standard's requirements."""
    return tomllib.loads(_FOLDER.joinpath(f"{name}.toml").read_text())


def verify_report(report: bytes, note: str, keys: Iterable[str]) -> None:
    """Raise `CryptoError` unless the note is by one of these keys and about this very report."""
    lines = notes.verify_signatures(note, tuple(keys)).body.split("\n")
    if lines[0] != FORMAT or f"sha256 {hashlib.sha256(report).hexdigest()}" not in lines[1:]:
        raise IntegrityError("the note is not about this report")


async def _keys(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.all_keys(connection)
        schedules = {(one.tenant, one.purpose): one for one in await keys_store.list_schedules(connection)}
        wraps = await keys_store.usage(connection, [key.object_id for key in found])
    ends = {key.object_id: due_time(key, schedules.get((key.tenant, key.purpose))) for key in found}
    rows = [
        [
            key.tenant, key.purpose.value, str(key.version), key.state.value, key.algorithm, key.backend, key.label,
            _moment(key.create_time), str((source.now - key.create_time).days), _moment(ends[key.object_id]),
            str(wraps.get(key.object_id, 0)), key.created_by,
        ]
        for key in found
    ]  # fmt: skip
    overdue = any(end is not None and end < source.now for end in ends.values())
    columns = (
        "tenant",
        "purpose",
        "version",
        "state",
        "algorithm",
        "HSM",
        "label",
        "created",
        "age in days",
        "cryptoperiod ends",
        "wraps",
        "by",
    )
    note = "Active keys are due by their schedule, or else by the longest period of NIST SP 800-57 part 1, table 1."
    return Evidence("Key inventory", columns, rows, ATTENTION if overdue else INFORMS, note)


async def _key_ages(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.all_keys(connection)
    old = [
        [key.tenant, key.purpose.value, str(key.version), str((source.now - key.create_time).days)]
        for key in found
        if key.state is KeyState.ACTIVE and source.now - key.create_time > source.cryptoperiod
    ]
    return Evidence(
        f"Active keys older than {source.cryptoperiod.days} days",
        ("tenant", "purpose", "version", "age in days"),
        old,
        ATTENTION if old else HOLDS,
    )


async def _key_events(source: Source) -> Evidence:
    return await _events(source, "What happened to keys", prefix="key.")


async def _approvals(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.approvals_since(connection, source.since)
    columns = ("asked for", "action", "resource", "by", "state", "needed", "signed by")
    return Evidence("Approvals by several people", columns, [_approval(approval) for approval in found])


async def _custodians(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.tally(
            connection, source.since, source.now, ("user_id", "action_type"), outcome="granted"
        )
    kept = [row for row in found if str(row[1]).startswith(("key.", "approval.", "tenant.", "database."))]
    return Evidence("Who acted on keys, and who approved", ("identity", "action", "times"), _texts(kept))


async def _access(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.tally(
            connection, source.since, source.now, ("tenant", "user_id", "action_type"), outcome="granted"
        )
    return Evidence("Use of access, for review", ("tenant", "identity", "action", "times"), _texts(found))


async def _policy(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await policies_store.list_policies(connection, before=_NEWEST, limit=store.MOST)
    rows = [
        [str(one.version), _moment(one.create_time), one.created_by, one.comment, one.digest.hex()]
        for one in found
    ]
    note = "" if rows else "No policy was ever applied: the files of the configuration are in force."
    columns = ("version", "in force since", "applied by", "comment", "SHA-256 of its text")
    return Evidence("Policy in force, and those before it", columns, rows, note=note)


async def _threats(source: Source) -> Evidence:
    actions = (threats.FIND, threats.RELEASE)
    found = await _events(source, "Findings of the threat rules, and their release", actions=actions)
    async with source.database.read() as connection:
        unreleased = await store.unreleased_threats(connection)
    note = f"{unreleased} findings are not released." if unreleased else ""
    return replace(found, verdict=ATTENTION if unreleased else HOLDS, note=note)


async def _coverage(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.tally(connection, source.since, source.now, ("action_type", "outcome"))
    return Evidence("What was recorded", ("action", "outcome", "records"), _texts(found))


async def _refusals(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.tally(
            connection, source.since, source.now, ("reason", "action_type"), outcome="refused"
        )
    return Evidence("Refusals", ("reason", "action", "times"), _texts(found))


async def _verification(source: Source) -> Evidence:
    report = await source.checkpoints.verify(source.caller)
    rows = [
        ["records", str(report.records)],
        ["checkpoints", str(report.checkpoints)],
        ["anchored checkpoints that it was held against", str(report.anchors)],
        ["root", report.root.hex()],
    ]
    rows += [["finding", finding] for finding in report.findings]
    return Evidence(
        "Verification of the whole log, and of every row against it",
        ("what", "value"),
        rows,
        ATTENTION if report.findings else HOLDS,
        "Sequence, hashes, tree, checkpoints, signatures, anchors, and each row that the log vouches for.",
    )


async def _failures(source: Source) -> Evidence:
    actions = (
        "audit.resume",
        "audit.fail_sink",
        "audit.recover_sink",
        "audit.accept_loss",
        "database.recover",
    )
    async with source.database.read() as connection:
        found = await store.records_of(connection, source.since, source.now, actions=actions)
        found += await store.records_of(
            connection, source.since, source.now, reasons=("STORED_DATA_DAMAGED", "INTERNAL")
        )
    found.sort(key=lambda record: record.sequence, reverse=True)
    columns = ("time", "sequence", "what", "where", "reason or detail")
    rows = [
        [
            _moment(record.created_at), str(record.sequence), record.action, record.resource,
            record.reason or record.after_state,
        ]
        for record in found
    ]  # fmt: skip
    damaged = any(record.reason for record in found)
    return Evidence("Failures of controls, and their ends", columns, rows, ATTENTION if damaged else INFORMS)


async def _sinks(source: Source) -> Evidence:
    found = await source.sinks.states()
    rows = [
        [state.name, "required" if required else "best effort", str(state.next_sequence), str(behind), state.error]
        for state, required, behind in found
    ]  # fmt: skip
    failing = any(state.error for state, _, _ in found)
    columns = ("sink", "delivery", "has all before", "behind", "error")
    note = "" if rows else "No sink is configured: the log lies in the database alone."
    verdict = ATTENTION if failing or not rows else HOLDS
    return Evidence("Where else the log goes", columns, rows, verdict, note)


async def _retention(source: Source) -> Evidence:
    async with source.database.read() as connection:
        ends = await store.span(connection)
        notes = [row["note"] for row in await archives_store.rows(connection)]
    columns = ("where", "from", "to", "days", "SHA-256")
    if ends is None:
        return Evidence("What of the log is at hand, and what is archived", columns, [], ATTENTION)
    held = ends[1] - ends[0]
    note = ""
    if held < _QUARTER:
        note = "Less than three months: is the vault younger, or is older history kept elsewhere?"
    elif held < _YEAR:
        note = "Less than twelve months: is the vault younger, or is older history kept elsewhere?"
    rows = [["the database", _moment(ends[0]), _moment(ends[1]), str(held.days), ""]]
    try:
        rows += [[one.file, one.since, one.until, "", one.sha256] for one in map(archives.claims, notes)]
    except (FormatError, AttributeError):
        return Evidence("What of the log is at hand, and what is archived", columns, rows, ATTENTION)
    verdict = INFORMS if note else HOLDS
    return Evidence("What of the log is at hand, and what is archived", columns, rows, verdict, note)


async def _suites(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.count(connection, "credential_versions", ("suite", "state"))
    rows = []
    retired = False
    for number, state, times in found:
        suite = suites.suite(int(number))
        retired |= suite.status is suites.SuiteStatus.RETIRED and state == "enabled"
        rows.append([str(number), suite.name, suite.status.value, str(state), str(times)])
    columns = ("suite", "name", "status", "versions are", "how many")
    return Evidence("Cipher suites in use", columns, rows, ATTENTION if retired else HOLDS)


async def _credentials(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.count(connection, "credentials", ("tenant", "kind", "state"))
    return Evidence("Credentials by kind", ("tenant", "kind", "state", "how many"), _texts(found))


async def _subjects(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.count(connection, "subjects", ("tenant", "state"))
    return Evidence("Data subjects with a key of their own", ("tenant", "state", "how many"), _texts(found))


async def _people(source: Source) -> Evidence:
    actions = (people.CREATE, people.IDENTIFY, people.ERASE, people.ERASED)
    return await _events(source, "People who call: entered, identified, erased", actions=actions)


async def _sessions(source: Source) -> Evidence:
    async with source.database.read() as connection:
        found = await store.tally(connection, source.since, source.now, ("action_type", "outcome", "reason"))
    kept = [row for row in found if str(row[0]).startswith("session.")]
    return Evidence(
        "Sessions and what was done in them", ("action", "outcome", "reason", "times"), _texts(kept)
    )


async def _reviews(source: Source) -> Evidence:
    actions = ("audit.verify", "audit.report", "database.backup", "database.restore", "database.recover")
    return await _events(source, "Verifications, reports, backups and restorations", actions=actions)


async def _events(source: Source, title: str, *, prefix: str = "", actions: tuple[str, ...] = ()) -> Evidence:
    async with source.database.read() as connection:
        found = await store.records_of(connection, source.since, source.now, prefix=prefix, actions=actions)
    columns = ("time", "sequence", "identity", "action", "resource", "outcome", "detail")
    return Evidence(title, columns, [_event(record) for record in found])


GATHERERS: dict[str, Callable[[Source], Awaitable[Evidence]]] = {
    "keys": _keys,
    "key_ages": _key_ages,
    "key_events": _key_events,
    "approvals": _approvals,
    "custodians": _custodians,
    "access": _access,
    "policy": _policy,
    "threats": _threats,
    "coverage": _coverage,
    "refusals": _refusals,
    "verification": _verification,
    "failures": _failures,
    "sinks": _sinks,
    "retention": _retention,
    "suites": _suites,
    "credentials": _credentials,
    "subjects": _subjects,
    "people": _people,
    "sessions": _sessions,
    "reviews": _reviews,
}


def _event(record: AuditRecord) -> list[str]:
    return [
        _moment(record.created_at), str(record.sequence), record.identity, record.action, record.resource,
        record.outcome.value, record.reason or record.after_state,
    ]  # fmt: skip


def _approval(approval: Approval) -> list[str]:
    signers = ", ".join(signature.identity for signature in approval.signatures)
    return [
        _moment(approval.create_time), approval.operation.action, approval.operation.resource, approval.requested_by,
        approval.state.value, str(approval.required), signers,
    ]  # fmt: skip


def _texts(rows: Iterable[Iterable[object]]) -> list[list[str]]:
    return [[str(value) for value in row] for row in rows]


def _moment(moment: datetime.datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _verification_first(name: str) -> tuple[bool, str]:
    return (name != "verification", name)
