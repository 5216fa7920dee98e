"""`strongroom session`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vault.cli import uses
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_pairs
from vault.cli.output import Format, Output, show
from vault.cli.secret_output import show_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vault.client import Session

app = typer.Typer(help="Use and reveal secrets.", no_args_is_help=True)
uses.register(app)

Purpose = Annotated[str, typer.Option(help="Why; audited.")]
EXIT_NOT_ALL = 6


@app.command()
def reveal(
    name: Annotated[str, typer.Argument(help="The credential.")],
    *,
    purpose: Purpose,
    field: Annotated[list[str], typer.Option(help="Only this field. Repeat it.")] = [],  # noqa: B006
    raw: Annotated[
        bool, typer.Option("--raw", help="Only the bytes of the one --field, for a pipe.")
    ] = False,
    approval: Annotated[str, typer.Option(help="Break the glass with this approval.")] = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
) -> None:
    """Reveal a credential to this terminal, in JSON."""
    if raw and len(field) != 1:
        raise typer.BadParameter("--raw needs exactly one --field")
    with client(profile, token_file) as vault:
        (secrets,) = vault.reveal(name, purpose=purpose, field_names=field, approval_id=approval)
        with secrets:
            if raw:
                sys.stdout.buffer.write(secrets[field[0]])
                sys.stdout.flush()
            else:
                show_secrets(secrets)


@app.command("open")
def open_(
    names: Annotated[list[str], typer.Argument(help="The credentials.")],
    *,
    purpose: Purpose,
    ttl: Annotated[int | None, typer.Option(min=1, max=86_400, help="Seconds the session may last.")] = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    r"""Open a session and take operations from stdin, one a line, until `close` or the end.

    One that cannot be done is said so on stderr and does not end the session; exit code 6 at the end.

    \b
    reveal NAME [--field FIELD]...
    verify-webhook NAME --scheme SCHEME --header 'NAME: VALUE' --body FILE [--field FIELD]
    close
    """
    with client(profile, token_file) as vault:
        session = vault.session(*names, purpose=purpose, ttl_seconds=ttl)
        with session:
            for opened in session.opened:
                if output is Format.JSON:
                    show(output, opened)
                else:
                    print(f"opened {opened.name} version {opened.version} ({', '.join(opened.field_names)})")
            all_done = _operate(session, sys.stdin, output)
    if session.closed is not None and output is Format.JSON:
        show(output, session.closed)
    elif session.closed is not None:
        closed = session.closed
        print(
            f"closed: {closed.reveals} revealed, {closed.uses} used; "
            f"{closed.buffers_wiped} of {closed.buffers} buffers wiped and read back as zero"
        )
    if not all_done:
        raise typer.Exit(EXIT_NOT_ALL)


def _operate(session: Session, lines: Iterable[str], output: Format) -> bool:
    """Do what the lines say; one that cannot be done does not end the session. Whether all was done."""
    from vault.client.errors import SessionClosedError, StrongroomError  # noqa: PLC0415 - gRPC is slow to import

    parser = _parser()
    all_done = True
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
            operation = parser.parse_args(words) if words else None
            if operation is None:
                continue
            if operation.operation == "close":
                break
            _do(session, operation, output)
        except SessionClosedError:
            raise
        except (ValueError, OSError, StrongroomError, typer.BadParameter) as error:
            print(f"? {error}", file=sys.stderr, flush=True)
            all_done = False
    return all_done


def _do(session: Session, operation: argparse.Namespace, output: Format) -> None:
    if operation.operation == "reveal":
        with session.reveal(*operation.field, name=operation.name) as secrets:
            show_secrets(secrets)
        return
    result = session.verify_webhook(
        operation.scheme,
        read_pairs(operation.header, ":", "--header"),
        Path(operation.body).read_bytes(),
        field_names=operation.field or ["webhook_secret"],
        name=operation.name,
    )
    show(output, result)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="", add_help=False)
    operations = parser.add_subparsers(dest="operation", required=True, parser_class=_Parser)
    reveal_ = operations.add_parser("reveal", add_help=False)
    verify = operations.add_parser("verify-webhook", add_help=False)
    operations.add_parser("close", add_help=False)
    for operation in (reveal_, verify):
        operation.add_argument("name")
        operation.add_argument("--field", action="append", default=[])
    verify.add_argument("--scheme", required=True)
    verify.add_argument("--header", action="append", required=True)
    verify.add_argument("--body", required=True)
    return parser
