"""`strongroom tenant`, `strongroom person` and `strongroom erasure`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_text
from vault.cli.output import Format, Output, show, show_dict
from vault.cli.verification import EXIT_NOT_VALID, Keys, read_keys

tenant_app = typer.Typer(help="Delete a tenant, or one data subject of it, for ever.", no_args_is_help=True)
person_app = typer.Typer(
    help="The people who call: whom a pseudonym stands for, and erasing one.", no_args_is_help=True
)
app = typer.Typer(help="Certificates of erasures.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(help="The tenant.")]
Subject = Annotated[
    str, typer.Option(help="Only this data subject, by the name given with the data. Else the whole tenant.")
]
Person = Annotated[
    str, typer.Argument(help="The person, by identity or pseudonym; by pseudonym once it has begun.")
]
ApprovalId = Annotated[
    str, typer.Option("--approval", help="The approval's id. To go on with an erasure it is not needed.")
]
AskFor = Annotated[
    str, typer.Option("--purpose", help="Ask for the approval now, saying why, and do nothing else.")
]
Out = Annotated[Path | None, typer.Option(help="Write the certificate to this file.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_LONG_SECONDS = 3600.0
_RECORDS = {"subject": "subject.erased", "tenant": "tenant.erased", "person": "person.erased"}


@tenant_app.command("describe-erasure")
def describe(
    tenant: Tenant,
    *,
    subject: Subject = "",
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Tell what an erasure would take, and which operation is to be approved for it."""
    with client(profile, token_file) as vault:
        show(output, vault.describe_erasure(tenant, subject))


@tenant_app.command()
def delete(
    tenant: Tenant,
    *,
    subject: Subject = "",
    approval: ApprovalId = "",
    purpose: AskFor = "",
    out: Out = None,
    yes: Yes = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Erase a subject, or the tenant: its keys are destroyed in the HSM. No way leads back, not by a backup either."""
    whom = {"tenant": tenant, "subject": subject}
    _erase(whom, approval, purpose, out, profile, token_file, output, yes=yes)


@person_app.command("describe-erasure")
def describe_person(
    person: Person,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Tell which operation is to be approved to erase a person, and by which pseudonym the log knows them."""
    with client(profile, token_file) as vault:
        show(output, vault.describe_erasure(identity=person))


@person_app.command("erase")
def erase_person(
    person: Person,
    *,
    approval: ApprovalId = "",
    purpose: AskFor = "",
    out: Out = None,
    yes: Yes = False,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Erase a person: nothing tells any more whom the pseudonym in the log stands for. The log still verifies."""
    _erase({"identity": person}, approval, purpose, out, profile, token_file, output, yes=yes)


@person_app.command()
def identify(
    pseudonyms: Annotated[list[str], typer.Argument(help="As they stand in the log: person:...")],
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say whom pseudonyms stand for. Needs the scope `audit.identify`, and is itself in the log."""
    with client(profile, token_file) as vault:
        found = dict(zip(pseudonyms, vault.identify(pseudonyms), strict=True))
    if output is Format.JSON:
        show_dict(output, found)
        return
    for pseudonym, name in found.items():
        print(f"{pseudonym}  {name or 'nobody: erased, or never here'}")


def _erase(
    whom: dict[str, str],
    approval: str,
    purpose: str,
    out: Path | None,
    profile: Path,
    token_file: Path | None,
    output: Format,
    *,
    yes: bool,
) -> None:
    from vault.crypto.approvals import Operation  # noqa: PLC0415 - slow to import

    with client(profile, token_file, timeout=_LONG_SECONDS) as vault:
        if purpose:
            found = vault.describe_erasure(**whom)
            operation = Operation(found.action, found.resource, dict(found.arguments))
            show(output, vault.request_approval(operation, purpose=purpose))
            return
        if not yes:
            found = vault.describe_erasure(**whom)
            typer.confirm(
                f"Erase {found.credentials} credentials with {found.versions} versions for ever?"
                if "tenant" in whom
                else "Erase this person for ever?",
                abort=True,
            )
        certificate = vault.erase(**whom, approval_id=approval)
    if out is not None:
        out.write_text(certificate)
    show_dict(output, {**_content(certificate), **({} if out else {"certificate": certificate})})


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="The certificate's file.")],
    *,
    key: Keys,
    proof: Annotated[
        Path | None, typer.Option(help="A proof by `audit prove` that the log holds the certificate.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a certificate without the vault, and if given that the log holds it. Exit code 5 if it does not verify."""
    from vault.core.erasure_certificate import verify_certificate  # noqa: PLC0415 - slow to import
    from vault.core.evidence import verify_text  # noqa: PLC0415
    from vault.crypto.errors import CryptoError  # noqa: PLC0415

    keys = read_keys(key)
    note = read_text(certificate)
    try:
        values = verify_certificate(note, keys)
        if proof is not None:
            record = verify_text(read_text(proof), keys).record or {}
            values["in_log_at"] = _holding(record, note, values["erased"])
        result = {"valid": True, **values}
    except CryptoError as error:
        result = {"valid": False, "finding": str(error)}
    show_dict(output, result)
    if not result["valid"]:
        raise typer.Exit(EXIT_NOT_VALID)


def _holding(record: dict[str, Any], note: str, erased: str) -> int:
    """The place of a proven record, if it holds the certificate. Raises `FormatError`."""
    from vault.crypto.errors import FormatError  # noqa: PLC0415

    held = json.loads(record.get("after_state") or "{}").get("certificate")
    place: int = record.get("sequence", -1)
    if held != hashlib.sha256(note.encode()).hexdigest():
        raise FormatError(
            f"record {place} of the proof does not hold this certificate: prove the one that "
            f"`audit search --action {_RECORDS[erased]}` finds"
        )
    return place


def _content(certificate: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(certificate.split("\n")[1])
    return content
