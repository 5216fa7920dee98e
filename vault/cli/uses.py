"""`strongroom session`, the uses: each opens a session, uses a secret that stays in the vault, and closes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile
from vault.cli.held_session import held, session_on
from vault.cli.inputs import read_pairs
from vault.cli.output import Format, Output, as_dict, show, show_dict

EXIT_NOT_VERIFIED = 5
_BAD_STATUS = 400

Name = Annotated[str, typer.Argument(help="The credential.")]
Purpose = Annotated[str, typer.Option(help="Why; audited.")]
Message = Annotated[Path, typer.Option("--message", help="The message; - for stdin.")]
Hash = Annotated[str, typer.Option("--hash", help="sha256, sha384 or sha512.")]
Raw = Annotated[bool, typer.Option("--raw", help="The field's own bytes are the key.")]
Context = Annotated[str, typer.Option(help="What it is for: each context has a key of its own.")]


def verify_webhook(
    name: Annotated[str, typer.Argument(help="The credential that holds the webhook secret.")],
    *,
    scheme: Annotated[
        str,
        typer.Option(
            help="stripe, standard-webhooks, plaid, braintree, adyen, adyen-platform or gocardless."
        ),
    ],
    header: Annotated[list[str], typer.Option(help="NAME: VALUE. Repeat it.")] = [],  # noqa: B006
    body: Annotated[Path, typer.Option(help="The raw body.")],
    field: Annotated[list[str], typer.Option(help="A field that holds a secret. Repeat it.")] = [],  # noqa: B006
    connector: Annotated[str, typer.Option(help="For plaid: fetch its key by this connector.")] = "",
    apply_to: Annotated[str, typer.Option(help="A credential whose standing it may set.")] = "",
    purpose: Purpose = "verify a webhook",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a webhook's signature; the secret stays in the vault. Exit code 5 if it does not verify."""
    from vault.client.stream import SCHEMES  # noqa: PLC0415 - gRPC is slow to import

    headers = read_pairs(header, ":", "--header")
    if scheme not in SCHEMES:
        raise typer.BadParameter(f"--scheme: must be one of {', '.join(SCHEMES)}")
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        result = session.verify_webhook(
            scheme,
            headers,
            _read(body),
            field_names=field or ("webhook_secret",),
            connector=connector,
            apply_to=apply_to,
            name=name,
        )
    show(output, result)
    verdicts = result.DESCRIPTOR.file.enum_types_by_name["WebhookVerdict"].values_by_name
    if result.verdict != verdicts["WEBHOOK_VERDICT_VALID"].number:
        raise typer.Exit(EXIT_NOT_VERIFIED)


def hmac(
    name: Name,
    *,
    field: Annotated[str, typer.Option(help="The field that holds the key.")],
    message: Message,
    hash_name: Hash = "sha256",
    raw: Raw = False,
    context: Context = "",
    purpose: Purpose = "make an HMAC",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make an HMAC, in hex; by default with a key derived for this purpose alone."""
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        mac = session.hmac(field, _read(message), hash_name=hash_name, raw=raw, context=context, name=name)
    show_dict(output, {"mac": mac.hex()})


def verify_hmac(
    name: Name,
    *,
    field: Annotated[str, typer.Option(help="The field that holds the key.")],
    message: Message,
    mac: Annotated[str, typer.Option(help="The MAC, in hex.")],
    hash_name: Hash = "sha256",
    raw: Raw = False,
    context: Context = "",
    purpose: Purpose = "verify an HMAC",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify an HMAC in constant time. Exit code 5 if it is wrong."""
    try:
        given = bytes.fromhex(mac)
    except ValueError:
        raise typer.BadParameter("--mac: must be hex") from None
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        valid = session.verify_hmac(
            field, _read(message), given, hash_name=hash_name, raw=raw, context=context, name=name
        )
    show_dict(output, {"valid": valid})
    if not valid:
        raise typer.Exit(EXIT_NOT_VERIFIED)


def totp(
    name: Name,
    *,
    field: Annotated[str, typer.Option(help="The field that holds the seed.")] = "totp_seed",
    purpose: Purpose = "make a one-time password",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make the one-time password of this moment (RFC 6238)."""
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        show(output, session.totp(field, name=name))


def answer_challenge(
    name: Name,
    challenge: Annotated[str, typer.Argument(help="The challenge: bt_challenge of the request.")],
    *,
    field: Annotated[str, typer.Option(help="The field that holds the private key.")] = "private_key",
    purpose: Purpose = "answer a challenge",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Answer Braintree's challenge to a webhook endpoint."""
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        show_dict(output, {"response": session.answer_challenge(challenge, field_name=field, name=name)})


def sign(
    name: Name,
    *,
    form: Annotated[str, typer.Option("--format", help="jws, client-assertion, http or raw.")],
    message: Annotated[Path | None, typer.Option(help="The message, payload or body; - for stdin.")] = None,
    audience: Annotated[str, typer.Option(help="client-assertion: the server's issuer.")] = "",
    client_id: Annotated[
        str, typer.Option(help="client-assertion: the client's id, if the credential does not hold it.")
    ] = "",
    method: Annotated[str, typer.Option(help="http: the method.")] = "POST",
    uri: Annotated[str, typer.Option(help="http: the whole URI.")] = "",
    header: Annotated[list[str], typer.Option(help="http: NAME: VALUE. Repeat it.")] = [],  # noqa: B006
    component: Annotated[list[str], typer.Option(help="http: what is covered. Repeat it.")] = [],  # noqa: B006
    field: Annotated[str, typer.Option(help="The field that holds the private key.")] = "private_key",
    purpose: Purpose = "sign",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Sign with a private key that stays in the vault."""
    data = _read(message) if message else None
    if form not in ("jws", "client-assertion", "http", "raw"):
        raise typer.BadParameter("--format: must be jws, client-assertion, http or raw")
    with session_on(name, purpose=purpose, profile=profile, token_file=token_file) as session:
        if form == "jws":
            shown = {"jws": session.sign_jws(data or b"", field_name=field, name=name)}
        elif form == "client-assertion":
            shown = {
                "client_assertion": session.client_assertion(
                    audience, client_id=client_id, field_name=field, name=name
                )
            }
        elif form == "http":
            headers = read_pairs(header, ":", "--header")
            shown = session.sign_http(
                method, uri, headers, components=component, body=data, field_name=field, name=name
            )
        else:
            signed = session.sign_raw(data or b"", field_name=field, name=name)
            shown = {"algorithm": signed.algorithm, "signature": signed.signature.hex()}
    show_dict(output, shown)


def http(
    name: Name,
    connector: Annotated[str, typer.Argument(help="The connector, for example stripe.")],
    method: Annotated[str, typer.Argument(help="The method.")],
    path: Annotated[str, typer.Argument(help="The path.")],
    *,
    query: Annotated[list[str], typer.Option(help="NAME=VALUE. Repeat it.")] = [],  # noqa: B006
    header: Annotated[list[str], typer.Option(help="NAME: VALUE. Repeat it.")] = [],  # noqa: B006
    body: Annotated[Path | None, typer.Option(help="The body; - for stdin.")] = None,
    also: Annotated[str, typer.Option(help="A second credential that lends fields.")] = "",
    capture: Annotated[str, typer.Option(help="Where to store what the connector captures.")] = "",
    purpose: Purpose = "an HTTPS request",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make an HTTPS request with the credential put in by the vault. Exit code 1 for a status from 400."""
    names = [name, *([also] if also else [])]
    with session_on(*names, purpose=purpose, profile=profile, token_file=token_file) as session:
        result = session.http_call(
            connector,
            method,
            path,
            query=list(read_pairs(query, "=", "--query").items()),
            headers=read_pairs(header, ":", "--header"),
            body=_read(body) if body else b"",
            also=also,
            capture=capture,
            name=name,
        )
    shown = as_dict(result)
    shown["body"] = result.body.decode(errors="replace")
    if not result.captured_name:
        del shown["captured_name"], shown["captured_version"]
    show_dict(output, shown)
    if result.status >= _BAD_STATUS:
        raise typer.Exit(1)


def refresh(
    name: Annotated[str, typer.Argument(help="The grant.")],
    connector: Annotated[str, typer.Argument(help="The connector.")],
    *,
    client_name: Annotated[str, typer.Option("--client", help="The OAuth client it was given to.")],
    purpose: Purpose = "refresh a grant",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Refresh an OAuth grant; the tokens stay in the vault."""
    names = (name, client_name)
    with session_on(*names, purpose=purpose, profile=profile, token_file=token_file) as session:
        show(output, session.oauth_refresh(connector, client=client_name, name=name))


def link_token(
    name: Name,
    connector: Annotated[str, typer.Argument(help="The connector, for example plaid-production.")],
    *,
    user: Annotated[str, typer.Option(help="The customer, by an id of your own.")],
    client_name: Annotated[str, typer.Option(help="What the customer is shown as your name.")],
    country: Annotated[list[str], typer.Option(help="Two capital letters. Repeat it.")],
    language: Annotated[str, typer.Option(help="Two small letters.")] = "en",
    redirect_uri: Annotated[str, typer.Option(help="Where a bank's own page leads back to.")] = "",
    also: Annotated[str, typer.Option(help="A second credential that lends fields.")] = "",
    purpose: Purpose = "mend a credential",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Mint the token by which a customer mends a credential; the access token stays in the vault."""
    names = [name, *([also] if also else [])]
    with session_on(*names, purpose=purpose, profile=profile, token_file=token_file) as session:
        minted = session.link_token(
            connector,
            client_user_id=user,
            client_name=client_name,
            country_codes=country,
            language=language,
            redirect_uri=redirect_uri,
            also=also,
            name=name,
        )
    show(output, minted)


def register(app: typer.Typer) -> None:
    """Add the uses to the session's commands."""
    for command in (
        verify_webhook,
        hmac,
        verify_hmac,
        totp,
        answer_challenge,
        sign,
        http,
        refresh,
        link_token,
    ):
        app.command(command.__name__.replace("_", "-"))(command)


def _read(file: Path) -> bytes:
    if str(file) == "-" and held() is not None:
        raise typer.BadParameter("-: stdin gives the operations; name a file")
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
