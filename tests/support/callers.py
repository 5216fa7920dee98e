"""Callers of every sort, who go on whatever happens, never try twice, and remember what they were told."""

from __future__ import annotations

import dataclasses
import random
import secrets
import threading
import time
from typing import TYPE_CHECKING, Self

from tests.integration.wire import Answer, Wire
from vault.client.sealing import Recipient, seal_fields, verify_ingest_key
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tests.support.vault import VaultSite

OPERATIONS = ("put", "reveal", "session", "issue", "checkpoint")
SCOPES = (
    "credential.write:acme/**",
    "credential.read:acme/**",
    "session.reveal:acme/**",
    "audit.read:acme/audit",
)
_PAUSE = 0.01  # seconds


@dataclasses.dataclass(frozen=True)
class Seen:
    """One answer: to which operation, when it was asked for and when it came (monotonic seconds), and its reason."""

    operation: str
    asked: float
    answered: float
    reason: str
    """Empty if it was answered as asked; the canonical code's name if gRPC gave no reason."""


class Callers:
    """Two who put, two who reveal, and one each who opens sessions, issues tokens, and asks for checkpoints."""

    def __init__(self, site: VaultSite) -> None:
        self._wires: list[Wire] = []
        self._site = site
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.acknowledged: dict[str, str] = {}
        self.refused: set[str] = set()
        """Names that nothing was stored under, as the vault says."""
        self.seen: list[Seen] = []
        self.wrong: list[str] = []
        """What should never be: another's secret, or an error that no caller should meet."""

    def __enter__(self) -> Self:
        self.wire = wire = self._wire()
        signed = wire.call("/vault.v1.CredentialService/GetIngestKey").response.signed_key
        self._key = verify_ingest_key(signed, wire.call("/vault.v1.TokenService/GetJwks").response.jwks)
        self._put(wire)
        crew = (
            self._put,
            self._put,
            self._reveal,
            self._reveal,
            self._session,
            self._issue,
            self._checkpoint,
        )
        self._threads = [
            threading.Thread(target=self._go_on, args=(work, self._wire()), daemon=True) for work in crew
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for wire in self._wires:
            wire.channel.close()

    def stop(self) -> None:
        """Call no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def since(self, moment: float) -> dict[str, set[str]]:
        """The reasons that each operation asked for since then was answered with."""
        with self._lock:
            seen = list(self.seen)
        told: dict[str, set[str]] = {operation: set() for operation in OPERATIONS}
        for one in seen:
            if one.asked >= moment:
                told[one.operation].add(one.reason)
        return told

    def longest_since(self, moment: float) -> float:
        """How long the slowest answer took of those asked for since then, in seconds."""
        with self._lock:
            return max((one.answered - one.asked for one in self.seen if one.asked >= moment), default=0.0)

    def _wire(self) -> Wire:
        wire = Wire(self._site.profile("payments"), scopes=SCOPES)
        assert wire.token
        self._wires.append(wire)
        return wire

    def _go_on(self, work: Callable[[Wire], tuple[str, Answer]], wire: Wire) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                operation, answer = work(wire)
            except Exception as error:
                self.wrong.append(repr(error))
                continue
            reason = "" if answer.ok else answer.reason or answer.code.name
            with self._lock:
                self.seen.append(Seen(operation, asked, time.monotonic(), reason))
            time.sleep(_PAUSE)

    def _put(self, wire: Wire) -> tuple[str, Answer]:
        name, value = f"acme/faults/{secrets.token_hex(6)}", secrets.token_hex(12)
        answer = wire.call(
            "/vault.v1.CredentialService/Put",
            name=name,
            kind="generic",
            sealed=seal_fields({"k": value}, name, "generic", self._key),
            ingest_key_id=self._key.key_id,
            request_id=secrets.token_hex(8),
        )
        if answer.ok:
            self.acknowledged[name] = value
        elif answer.reason == "HSM_UNAVAILABLE":
            self.refused.add(name)
        return "put", answer

    def _reveal(self, wire: Wire) -> tuple[str, Answer]:
        name = random.choice(list(self.acknowledged))
        return "reveal", self.reveal(wire, [name])

    def reveal(self, wire: Wire, names: list[str]) -> Answer:
        """Reveal credentials in one call, and hold what comes against what was put."""
        recipient = Recipient()
        answer = wire.call(
            "/vault.v1.SessionService/Reveal",
            credentials=[session_pb2.CredentialSelector(name=name) for name in names],
            purpose="faults",
            recipient_key=recipient.public_bytes,
        )
        if answer.ok:
            for found in recipient.open_parcel(answer.response):
                with found:
                    if found.text("k") != self.acknowledged[found.name]:
                        self.wrong.append(f"{found.name} is not what was put")
        return answer

    def _session(self, wire: Wire) -> tuple[str, Answer]:
        name = random.choice(list(self.acknowledged))
        start = session_pb2.SessionStart(
            credentials=[session_pb2.CredentialSelector(name=name)],
            purpose="faults",
            recipient_key=Recipient().public_bytes,
        )
        with wire.stream() as stream:
            answer = stream.ask(start=start)
            if isinstance(answer, Answer):
                return "session", answer
            opened = answer.WhichOneof("message") == "opened"
            stream.half_close()
            while not isinstance(answer, Answer):
                answer = stream.read()
        if not opened:
            self.wrong.append("a session began with something else than Opened")
        return "session", answer

    def _issue(self, wire: Wire) -> tuple[str, Answer]:
        return "issue", wire.call(
            "/vault.v1.TokenService/Issue", tenant="acme", scopes=["credential.read:acme/**"]
        )

    def _checkpoint(self, wire: Wire) -> tuple[str, Answer]:
        return "checkpoint", wire.call("/vault.v1.AuditService/GetCheckpoint")
