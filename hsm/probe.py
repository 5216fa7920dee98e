"""Trying a given HSM for everything, and saying whether it is fit to hold keys.

Nothing is loaded into the calling process: each part runs in a process of its own, whose crash or hang is
a finding like any other. Keys are made for it and destroyed again.

    report = probe("pkcs11:serial=...?module-path=...&pin-source=file:...")
    print(report.table())
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hsm.drift import as_record
from hsm.model import SignatureAlgorithm, WrapScheme
from hsm.open import open_backend
from hsm.uri import scheme_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECONDS: Final = 60
_MARK: Final = "probe:"  # before the answer, as modules print to stdout as they please


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was found. `verdict` is `fit` or `unfit`, and `reasons` say why it is not.

    `parts` has one entry for each process: what it found, or how it ended. `carries` names what the HSM
    can be used for: `wrap`, and JOSE names of signature and MAC algorithms.
    """

    name: str
    capabilities: Mapping[str, Any]
    parts: Mapping[str, Any]
    carries: Sequence[str]
    verdict: str
    reasons: Sequence[str] = field(default=())

    def json(self) -> str:
        """The whole report, for machines."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    def table(self) -> str:
        """The whole report, for people."""
        rows = [("HSM", self.name), *_flat("", self.capabilities), *_flat("", self.parts)]
        rows += [("carries", ", ".join(self.carries) or "nothing"), ("verdict", self.verdict)]
        rows += [("because", reason) for reason in self.reasons]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def probe(uri: str, *, seconds: float = _SECONDS) -> ProbeReport:
    """Try the HSM of a URI; each part may take so many seconds. Raises `UriError` and nothing else.

    Logs in once a part, with the PIN that the URI names: a wrong one is found by the first, and then no
    other is run.
    """
    parts: dict[str, Any] = {}
    base = _part("capabilities", uri, seconds)
    if "error" not in base and scheme_of(uri) == "pkcs11":
        parts |= {name: _part(name, uri, seconds) for name in ("token", "threads", "fork", "speed")}
        parts["processes"] = _processes(uri, seconds)
    reasons = [
        f"{name}: {part['error']}" for name, part in {"opening": base, **parts}.items() if "error" in part
    ]
    found = base.get("capabilities", {})
    reasons += _shortcomings(found, parts)
    carries = ["wrap"] if found.get("wrap", WrapScheme.NONE) != WrapScheme.NONE else []
    carries += found.get("signatures", [])
    carries += ["HS256"] if found.get("mac") else []
    return ProbeReport(
        name=base.get("name", "unknown"),
        capabilities=found,
        parts=parts,
        carries=carries,
        verdict="unfit" if reasons else "fit",
        reasons=reasons,
    )


def _shortcomings(found: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    reasons = []
    if found and found["wrap"] == WrapScheme.NONE:
        reasons.append("it can wrap no data keys: neither AES-GCM with AAD nor AES-KWP works")
    if found and SignatureAlgorithm.ES256 not in found["signatures"]:
        reasons.append("it cannot sign ES256")
    if found and not found["random"]:
        reasons.append("it has no working random generator")
    token = parts.get("token", {})
    for algorithm, ways in token.get("theft", {}).items():
        if isinstance(ways, list) and ways:
            reasons.append(f"its {algorithm} keys can be stolen: {', '.join(ways)}")
    created = token.get("key", {}).get("created", "yes")
    if created != "yes":
        reasons.append(f"no key could be made on it: {created}")
    if token.get("bad tag") == "accepted":
        reasons.append("it accepts a changed ciphertext")
    reasons += [f"with threads: {wrong}" for wrong in parts.get("threads", {}).get("wrong", [])]
    return reasons


def _part(name: str, uri: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "hsm.probe", name]
    try:
        # The URI names a PIN's file, not a PIN; it still need not be in every process list.
        done = subprocess.run(  # noqa: S603 - our own program
            command, input=uri, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"error": f"hung for {seconds:.0f} s"}
    return _answer(done.returncode, done.stdout)


def _answer(code: int, output: str) -> dict[str, Any]:
    for line in output.splitlines():
        if line.startswith(_MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            # One that crashes on its way out has done its work, and is still not to be trusted.
            return answer | ({"error": _ending(code)} if code and "error" not in answer else {})
    return {"error": _ending(code)}


def _ending(code: int) -> str:
    if code < 0:
        return f"crashed by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _processes(uri: str, seconds: float) -> dict[str, Any]:
    """Two at once, as two workers of a server are."""
    command = [sys.executable, "-m", "hsm.probe", "speed"]
    pair = [
        subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(2)
    ]
    answers = []
    for process in pair:
        assert process.stdin is not None
        process.stdin.write(uri)
        process.stdin.close()
        process.stdin = None
    for process in pair:
        try:
            output, _ = process.communicate(timeout=seconds)
            answers.append(_answer(process.returncode, output))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            answers.append({"error": f"hung for {seconds:.0f} s"})
    faults = [answer["error"] for answer in answers if "error" in answer]
    if faults:
        return {"error": "; ".join(faults)}
    return {name: round(sum(answer[name] for answer in answers), 1) for name in answers[0]}


def _flat(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            rows += _flat(f"{path} / ", value)
        elif isinstance(value, list | tuple):
            rows.append((path, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((path, {True: "yes", False: "no", None: "-"}.get(value, str(value))))
    return rows


def _child(part: str, uri: str) -> dict[str, Any]:
    with open_backend(uri) as backend:
        if part == "capabilities":
            return {"name": backend.name, "capabilities": as_record(backend.capabilities())}
        from hsm.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415 - only where it is wanted
        from hsm.pkcs11.probing import PARTS  # noqa: PLC0415

        assert isinstance(backend, Pkcs11Backend)
        return PARTS[part](backend)


if __name__ == "__main__":
    try:
        found = _child(sys.argv[1], sys.stdin.read())
    except Exception as error:  # noqa: BLE001 - each is a finding
        found = {"error": str(error) or type(error).__name__}
    print(_MARK + json.dumps(found), flush=True)  # noqa: T201 - the parent reads it
