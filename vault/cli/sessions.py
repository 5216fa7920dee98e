"""`strongroom session`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vault.cli import uses
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.held_session import held, holding
from vault.cli.output import Format, Output, show
from vault.cli.secret_output import show_secrets

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable

    from typer.core import TyperGroup

    from vault.client import Secrets

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
    session = held()
    if session is not None:
        if approval:
            raise typer.BadParameter("--approval: breaks the glass in a reveal of its own, not in a session")
        _show(session.reveal(*field, name=name), field[0] if raw else "")
        return
    with client(profile, token_file) as vault:
        (secrets,) = vault.reveal(name, purpose=purpose, field_names=field, approval_id=approval)
        _show(secrets, field[0] if raw else "")


def _show(secrets: Secrets, alone: str) -> None:
    """Print what was revealed: all of it, or the bytes of one field alone."""
    with secrets:
        if alone:
            sys.stdout.flush()
            sys.stdout.buffer.write(secrets[alone])
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
    """Open a session and take operations from stdin, one a line, until `close` or the end.

    A line is one of the other commands of `strongroom session`, on the credentials named here and with its own options
    but --purpose, --profile and --token-file:

    \b
    reveal NAME --field FIELD
    verify-webhook NAME --scheme SCHEME --header 'NAME: VALUE' --body FILE
    hmac NAME --field FIELD --message FILE
    sign --help
    close

    One that cannot be done is said so on stderr and does not end the session; exit code 6 at the end. A verdict or a
    provider's status is an answer, whatever it says.
    """  # noqa: D301 - not a backslash: it keeps the lines
    with client(profile, token_file) as vault:
        session = vault.session(*names, purpose=purpose, ttl_seconds=ttl)
        with session:
            for opened in session.opened:
                if output is Format.JSON:
                    show(output, opened)
                else:
                    print(f"opened {opened.name} version {opened.version} ({', '.join(opened.field_names)})")
            with holding(session):
                all_done = _operate(sys.stdin, purpose, output)
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


def _operate(lines: Iterable[str], purpose: str, output: Format) -> bool:
    """Do what the lines say; one that cannot be done does not end the session. Whether all was done."""
    from vault.client.errors import StrongroomError  # noqa: PLC0415 - gRPC is slow to import

    group = typer.main.get_group(app)
    del group.commands["open"]
    all_done = True
    sys.stdout.flush()
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
            if words == ["close"]:
                break
            if words:
                _do(group, words, purpose, output)
        except (ValueError, OSError, StrongroomError, typer.TyperException) as error:
            said = error.format_message() if isinstance(error, typer.TyperException) else error
            print(f"? {said}", file=sys.stderr, flush=True)
            all_done = False
        sys.stdout.flush()
    return all_done


def _do(group: TyperGroup, words: list[str], purpose: str, output: Format) -> None:
    name, *arguments = words
    command = group.commands.get(name)
    if command is None:
        raise ValueError(f"{name}: must be close, or one of {', '.join(sorted(group.commands))}")
    try:
        context = command.make_context(name, arguments, default_map={"purpose": purpose})
        for option in ("purpose", "profile", "token_file"):
            if _is_given(context.get_parameter_source(option)):
                raise typer.BadParameter(f"--{option.replace('_', '-')}: belongs to `session open`")
        if "output" in context.params and not _is_given(context.get_parameter_source("output")):
            context.params["output"] = output
        with context:
            command.invoke(context)
    except typer.Exit:
        pass  # its code says what the answer says, or it was --help


def _is_given(source: enum.Enum | None) -> bool:
    """Whether an option stands in the line, and does not come from a default or the environment."""
    return source is not None and source.name == "COMMANDLINE"
