"""`strongroom compliance`."""

from __future__ import annotations

import enum
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import read_text
from vault.cli.output import Format, Output, show_dict
from vault.cli.verification import EXIT_NOT_VALID, Keys, read_keys

app = typer.Typer(help="Evidence for assessors, from the live state and the log.", no_args_is_help=True)

_TIMEOUT_SECONDS = 1800.0
_VERDICTS = {"informs": "to be judged", "holds": "as it should be", "attention": "needs attention"}


class Standard(enum.StrEnum):
    """The standards that there is a report for."""

    PCI_DSS = "pci-dss-4.0.1"
    GDPR = "gdpr"
    PSD2 = "psd2"
    DORA = "dora"
    ASVS = "asvs-5.0"


@app.command()
def report(
    *,
    standard: Annotated[Standard, typer.Option(help="Whose requirements.")],
    to: Annotated[Path, typer.Option(help="The folder for report.json, report.note and report.html.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Of so many days until now.")] = 365,
    cryptoperiod_days: Annotated[
        int, typer.Option(min=1, max=3650, help="Mark active keys that are older.")
    ] = 365,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a report: JSON, the signed note over it, and a page for people. Verifies the whole log: it may take long."""
    with client(profile, token_file, timeout=_TIMEOUT_SECONDS) as vault:
        made = vault.compliance_report(standard.value, days=days, cryptoperiod_days=cryptoperiod_days)
    to.mkdir(parents=True, exist_ok=True)
    (to / "report.json").write_text(made.report, encoding="utf-8", newline="")
    (to / "report.note").write_text(made.note, encoding="utf-8", newline="")
    (to / "report.html").write_text(page(made.report, made.note), encoding="utf-8", newline="")
    evidence = json.loads(made.report)["evidence"]
    marked = [item["title"] for item in evidence.values() if item["verdict"] == "attention"]
    show_dict(
        output,
        {
            "sha256": hashlib.sha256(made.report.encode()).hexdigest(),
            "needs_attention": marked,
            "page": str(to / "report.html"),
            "verifier_key": made.verifier_key,
        },
    )


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Where report.json and report.note are.")],
    *,
    key: Keys = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a report by the key of the log's checkpoints, without the vault. Exit code 5 if it does not verify."""
    from vault.core.compliance import verify_report  # noqa: PLC0415
    from vault.crypto.errors import CryptoError  # noqa: PLC0415

    keys = read_keys(key)
    if not keys:
        raise typer.BadParameter("a report is verified by --key; see `strongroom audit checkpoint`")
    try:
        verify_report((folder / "report.json").read_bytes(), read_text(folder / "report.note"), keys)
    except (CryptoError, UnicodeDecodeError) as error:
        show_dict(output, {"valid": False, "reason": str(error)})
        raise typer.Exit(EXIT_NOT_VALID) from None
    document = json.loads((folder / "report.json").read_bytes())
    show_dict(output, {"valid": True, "standard": document["standard"]["id"], "created": document["created"]})


def page(report: str, note: str) -> str:
    """A report as a page of HTML, which needs nothing else and escapes everything."""
    import jinja2  # noqa: PLC0415

    text = resources.files("vault.cli").joinpath("report.html").read_text()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    digest = hashlib.sha256(report.encode()).hexdigest()
    return template.render(report=json.loads(report), note=note, digest=digest, verdicts=_VERDICTS)
