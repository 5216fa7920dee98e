"""The tour: the vault's main job, done by the public command over mutual TLS, and told in plain words."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from vault.errors import StartError


class _Tour:
    def __init__(self, data: Path, scratch: Path) -> None:
        self._data = data
        self._scratch = scratch
        self._step = 0

    def say(self, text: str) -> None:
        self._step += 1
        print(textwrap.fill(f"{self._step}. {text}", 100, subsequent_indent="   "))

    def strongroom(self, profile: str, *arguments: str, stdin: str = "") -> str:
        """Run the command as a user would, show it and what it prints; it must succeed."""
        done = self._run(profile, arguments, stdin)
        if done.returncode:
            raise StartError(f"the tour ended early: `strongroom {arguments[0]}` failed ({done.returncode})")
        return done.stdout

    def refused(self, profile: str, reason: str, *arguments: str) -> None:
        """Run the command, which must be refused for this reason."""
        done = self._run(profile, arguments, "")
        if not done.returncode or reason not in done.stderr:
            raise StartError(f"the tour ended early: `strongroom {arguments[0]}` was not refused")

    def _run(self, profile: str, arguments: tuple[str, ...], stdin: str) -> subprocess.CompletedProcess[str]:
        shown = shlex.join(arguments).replace(str(self._scratch), "$TMP")
        print(f"   $ strongroom {shown}" + (" <<END" if stdin else ""))
        for line in stdin.splitlines():
            print(f"     {line.replace(str(self._scratch), '$TMP')}")
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "vault.cli", *arguments],
            env={**os.environ, "STRONGROOM_PROFILE": str(self._data / f"{profile}.toml"), "COLUMNS": "150"},
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.stdout:
            print(textwrap.indent(done.stdout.rstrip(), "   | "))
        if done.returncode:
            print(textwrap.indent(done.stderr.rstrip(), "   ! "))
        print(flush=True)
        return done

    def file(self, name: str, content: str) -> str:
        path = self._scratch / name
        path.write_text(content)
        return str(path)


def run(data: Path) -> None:
    """Show the main job. Raises `StartError` if a step fails."""
    with tempfile.TemporaryDirectory(prefix="strongroom-tour-") as scratch:
        _run(_Tour(data.resolve(), Path(scratch)))


def _run(tour: _Tour) -> None:
    stripe = "acme/stripe/live"
    login = "acme/bank/payouts"
    webhook_secret = f"whsec_{secrets.token_hex(16)}"
    password = secrets.token_urlsafe(12)

    tour.say(
        "A service shows its certificate and is issued a token: scoped, bound to that certificate, for an hour."
    )
    token = str(tour.file("token", "").strip())
    tour.strongroom("payments", "token", "issue", "--purpose", "tour", "--save", token)

    tour.say(
        "It stores three credentials. Each is sealed to the vault before it leaves the process; the vault "
        "encrypts each version under a data key of its own, wrapped in the HSM."
    )
    for name, kind, fields in (
        ("acme/plaid/item-1", "plaid_item", {"access_token": f"access-sandbox-{secrets.token_hex(16)}"}),
        (
            stripe,
            "stripe_account",
            {"api_key": f"sk_test_{secrets.token_hex(12)}", "webhook_secret": webhook_secret},
        ),
        (login, "bank_login", {"username": "payouts", "password": password}),
    ):
        document = tour.file("fields.json", json.dumps(fields))
        tour.strongroom(
            "payments", "credential", "put", name, "--kind", kind, "--fields", document, "--token-file", token
        )

    tour.say(
        "It opens a session. In it a webhook is verified with a secret that stays in the vault, and the bank "
        "log-in is revealed, sealed to this caller. When the session closes, the vault wipes its buffers and "
        "reads them back."
    )
    body = json.dumps({"type": "payout.paid", "amount": 1200})
    moment = str(int(time.time()))
    signature = hmac.digest(webhook_secret.encode(), f"{moment}.{body}".encode(), "sha256").hex()
    header = f"Stripe-Signature: t={moment},v1={signature}"
    operations = "\n".join(
        (
            f"verify-webhook {stripe} --scheme stripe --header '{header}' --body {tour.file('event.json', body)}",
            f"reveal {login}",
            "close",
        )
    )
    shown = tour.strongroom(
        "payments",
        "session",
        "open",
        stripe,
        login,
        "--purpose",
        "tour",
        "--token-file",
        token,
        stdin=operations,
    )
    if "VALID" not in shown or password not in shown:
        raise StartError("the tour's session did not do what it should")

    tour.say(
        "An operator rotates the tenant's key in the HSM. Old versions still open; new ones use the new key."
    )
    tour.strongroom("operator", "keys", "rotate", "acme")
    again = tour.strongroom(
        "payments",
        "session",
        "reveal",
        login,
        "--purpose",
        "tour",
        "--field",
        "username",
        "--token-file",
        token,
    )
    if "payouts" not in again:
        raise StartError("the credential did not open after the rotation")

    tour.say("The operator may not open secrets: the policy grants no such token.")
    tour.refused("operator", "POLICY_DENIED", "token", "issue", "--scope", f"session.reveal:{login}")

    tour.say(
        "Everything is in the audit log, the refusal too: a Merkle tree, its head signed in the HSM, all verified."
    )
    tour.strongroom("auditor", "audit", "list", "--most", "60")
    tour.strongroom("auditor", "audit", "checkpoint")
    tour.strongroom("auditor", "audit", "verify")
