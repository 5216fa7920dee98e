"""The `strongroom` command.

Exit codes: 0 done, 1 not done here, 2 wrong usage, 3 refused by the vault, 4 the vault did not answer or is not ready,
5 something does not verify, 6 not all is done (a job failed or was cancelled; something still uses an old key; an
operation of a session failed), 75 the database does not answer a command on the server, 78 configuration, database or
HSM are not as the vault needs them, 130 detached.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from vault.cli import (
    approvals,
    audit,
    backup,
    compliance,
    credentials,
    database,
    erasures,
    handovers,
    hsm,
    imports,
    keys,
    policies,
    recovery,
    server,
    sessions,
    threats,
    tokens,
    webhooks,
)
from vault.cli.dev import dev
from vault.errors import StartError, VaultError

EXIT_HERE, EXIT_REFUSED, EXIT_UNREACHABLE = 1, 3, 4

app = typer.Typer(
    name="strongroom",
    help="A credential vault: secrets are used, not handed around.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"strongroom {importlib.metadata.version('strongroom')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


app.command()(dev)
app.command()(server.serve)
app.command()(server.migrate)
app.command()(server.health)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(recovery.recover)
app.add_typer(database.app, name="database")
app.add_typer(tokens.app, name="token")
app.add_typer(credentials.app, name="credential")
app.add_typer(sessions.app, name="session")
app.add_typer(handovers.app, name="handover")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(keys.app, name="keys")
app.add_typer(approvals.app, name="approval")
app.add_typer(policies.app, name="policy")
app.add_typer(threats.app, name="threats")
app.command("blast-radius")(threats.blast_radius)
app.add_typer(audit.app, name="audit")
app.add_typer(compliance.app, name="compliance")
app.add_typer(hsm.app, name="hsm")
app.add_typer(imports.app, name="import")
app.add_typer(erasures.tenant_app, name="tenant")
app.add_typer(erasures.person_app, name="person")
app.add_typer(erasures.app, name="erasure")

_NEXT = {
    "UNREACHABLE": "is a vault running at the profile's `server`, and does a firewall let you through to it",
    "NOT_A_VAULT": "the port in the profile's `server` must be that of the vault's `server.listen`, not its metrics'",
    "SERVER_NAME_MISMATCH": "put a name that the vault's certificate holds into the profile's `server`",
    "SERVER_UNTRUSTED": "the profile's `ca_file` must hold the CA of the vault's certificate",
    "CERTIFICATE_EXPIRED": "get another from your CA, and put it where the profile's `certificate_file` is",
    "CERTIFICATE_NOT_YET_VALID": "wait until then, or set this machine's clock right",
    "CERTIFICATE_REJECTED": "the profile's certificate must be by a CA in the vault's `tls.client_ca_file`, and meet "
    "the certificate profile (docs/threat-model.md)",
    "TOKEN_EXPIRED": "issue another: `strongroom token issue`",
    "TOKEN_REVOKED": "issue another: `strongroom token issue`",
    "TOKEN_CERTIFICATE_MISMATCH": "use the profile that the token was issued to",
    "SCOPE_DENIED": "add a scope with this action to the profile (docs/configuration.md, Scopes, says on what), or use "
    "a profile that has it",
    "POLICY_DENIED": "ask for less (a shorter life, too), or for a policy that grants it: `strongroom policy explain`",
    "ETAG_MISMATCH": "somebody changed it: read it again, then decide again",
    "CREDENTIAL_DELETED": "bring it back first: `strongroom credential undelete`",
    "APPROVAL_REQUIRED": "ask others: `strongroom approval request`, then let them `strongroom approval approve`",
    "APPROVAL_MISMATCH": "`strongroom approval show` says what it is for: do exactly that, or ask for another",
    "HANDOVER_OPENED": "if it was not you, change the secret where it is used; the audit log says who opened it",
    "HANDOVER_EXPIRED": "ask the sender to wrap it again: `strongroom handover wrap`",
    "RECORD_NOT_FOUND": "an archived record is found by --archive FOLDER (docs/operations.md, Archives)",
    "JOB_RUNNING": "`strongroom keys jobs` names it: let it end (`keys watch`), or end it (`keys cancel`)",
    "TENANT_NOT_FOUND": "make it first: `strongroom keys create-tenant`",
    "HSM_UNAVAILABLE": "`strongroom health` says what is wrong",
    "STORAGE_UNAVAILABLE": "`strongroom health` says what is wrong",
    "AUDIT_UNAVAILABLE": "`strongroom health` says what is wrong",
    "REVOCATIONS_UNKNOWN": "`strongroom health` says what is wrong",
    "STORED_DATA_DAMAGED": "docs/operations.md, When something does not verify",
    "INTERNAL": "report it; the server's log has the error_id",
}


def main() -> None:
    """Run the command, and say plainly what went wrong if something did."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app(standalone_mode=True)
    except StartError as error:
        _fail(error.exit_code, str(error))
    except OSError as error:
        _fail(EXIT_HERE, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except VaultError as error:
        _fail(EXIT_HERE, f"{error.reason.value}: {error.message}", _NEXT.get(error.reason.value, ""))
    except Exception as error:
        _fail_remotely(error)
        raise


def _fail_remotely(error: Exception) -> None:
    from vault.client.errors import SessionClosedError, StrongroomError  # noqa: PLC0415 - gRPC is slow to import
    from vault.client.profile import ProfileError  # noqa: PLC0415
    from vault.client.sealing import SealingError  # noqa: PLC0415
    from vault.crypto.errors import CryptoError  # noqa: PLC0415
    from vault.crypto.kinds import KindError  # noqa: PLC0415

    if isinstance(error, SealingError):
        _fail(EXIT_REFUSED, str(error))
    if isinstance(error, KindError):
        _fail(EXIT_HERE, str(error), "docs/uses.md lists the fields of each kind")
    if isinstance(error, CryptoError):
        _fail(EXIT_HERE, str(error))
    if isinstance(error, ProfileError):
        _fail(
            EXIT_HERE,
            str(error),
            "name a profile with --profile or STRONGROOM_PROFILE; docs/configuration.md says what it holds",
        )
    if isinstance(error, StrongroomError):
        unreachable = error.code.name == "UNAVAILABLE"
        _fail(EXIT_UNREACHABLE if unreachable else EXIT_REFUSED, str(error), _NEXT.get(error.reason, ""))
    if isinstance(error, SessionClosedError):
        _fail(EXIT_REFUSED, str(error))


def _fail(code: int, text: str, next_step: str = "") -> None:
    print(f"strongroom: {text}", file=sys.stderr)
    if next_step:
        print(f"  next: {next_step}", file=sys.stderr)
    raise SystemExit(code)
