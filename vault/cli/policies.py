"""`strongroom policy`."""

from __future__ import annotations

import datetime
import hashlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault.cli import policy_changes
from vault.cli.connect import DEFAULT_PROFILE, ProfileFile, TokenFile, client
from vault.cli.inputs import MAX_INT32, read_text
from vault.cli.output import Format, Output, as_dict, show, show_all, show_dict
from vault.errors import StartError

if TYPE_CHECKING:
    from vault.core.policy import Circumstances, Policy
    from vault.v1.policy_pb2 import PolicyCircumstances

EXIT_DOES_NOT_HOLD = 5

app = typer.Typer(help="Who may be issued which scopes: look, test, change, explain.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="Cedar files, read as one set.")]
Purpose = Annotated[str, typer.Option(help="The purpose of the token.")]
Ttl = Annotated[int, typer.Option(min=1, max=86_400, help="The life of the token in seconds.")]
Device = Annotated[str, typer.Option(help="The device.")]
Address = Annotated[str, typer.Option("--ip", help="The address of the caller.")]
Approvals = Annotated[int, typer.Option(min=0, max=1000, help="How many people have signed for the token.")]

ROLES = ("service", "operator", "security-officer", "auditor", "ci")


@app.command()
def validate(files: Files, *, output: Output = Format.TABLE) -> None:
    """Say what is wrong with policies in files; no vault is asked. Exit code 5 if something is."""
    from vault.core.policy import problems, read  # noqa: PLC0415

    found = problems(read(files))
    show_dict(output, {"valid": not found, "problems": found})
    if found:
        raise typer.Exit(EXIT_DOES_NOT_HOLD)


@app.command("test")
def hold(
    table: Annotated[Path, typer.Argument(help="A TOML file of [[expect]]: identity, scope, allow, ...")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Cedar files. Default: what is in force.")
    ] = None,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Hold policies against a table of expectations. Exit code 5 if one is not met."""
    from vault.core.policy import Policy, read  # noqa: PLC0415

    expected = _read_table(table)
    if files:
        policy = Policy(read(files))
    else:
        with client(profile, token_file) as vault:
            policy = Policy(vault.get_policy().text)
    failures = [text for item in expected if (text := _unmet(policy, item))]
    show_dict(output, {"expectations": len(expected), "unmet": failures, "met": not failures})
    if failures:
        raise typer.Exit(EXIT_DOES_NOT_HOLD)


@app.command()
def diff(
    files: Files,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what would change if these files were applied: rules, then lines."""
    from vault.core.policy import read  # noqa: PLC0415

    text = read(files)
    with client(profile, token_file) as vault:
        stored = vault.get_policy()
        # As it would be stored, if the caller may know: people by pseudonym.
        text = vault.written_policy(text) or text
    changes = policy_changes.between(stored.text, text, f"version {stored.version}")
    if output is Format.JSON:
        show_dict(output, {"version": stored.version, **changes})
    else:
        policy_changes.show(changes)


@app.command()
def apply(
    files: Files,
    *,
    comment: Annotated[str, typer.Option(help="Why; stored and audited.")],
    approval: Annotated[str, typer.Option(help="The approval's id. Without it, one is asked for.")] = "",
    base_version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_INT32, help="The version this was made from. Default: the one in force."),
    ] = None,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Put policies in force, everywhere within a second. First ask for the approval, then apply with it."""
    from vault.core.policy import read  # noqa: PLC0415
    from vault.crypto.approvals import Operation  # noqa: PLC0415

    text = read(files)
    with client(profile, token_file) as vault:
        base = vault.get_policy().version if base_version is None else base_version
        if approval:
            applied = vault.apply_policy(text, base_version=base, comment=comment, approval_id=approval)
            show(output, applied)
            return
        if found := vault.validate_policy(text):
            raise StartError(f"policy: {found[0]}")
        written = vault.written_policy(text)
        digest = hashlib.sha256(written.encode()).hexdigest()
        operation = Operation("policy.write", "system/policy", {"base_version": str(base), "sha256": digest})
        asked = vault.request_approval(operation, purpose=comment, document=written)
    values = as_dict(asked)
    del values["document"]  # who asks has it in files
    values["next"] = f"strongroom policy apply ... --approval {asked.approval_id} once others have approved"
    show_dict(output, values)


@app.command()
def explain(
    identity: Annotated[str, typer.Argument(help="For example spiffe://bank.example/payments.")],
    scope: Annotated[str, typer.Argument(help="action:tenant/segment/...")],
    *,
    purpose: Purpose = "",
    ttl: Ttl = 3600,
    device: Device = "",
    ip: Address = "",
    approvals: Approvals = 0,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say whether an identity may be issued a scope, and which rule says so. Exit code 5 if not."""
    with client(profile, token_file) as vault:
        found = vault.explain_policy(identity, scope, _sent(purpose, ttl, device, ip, approvals))
    values = as_dict(found)
    if output is Format.TABLE:
        values["rules"] = [rule.name for rule in found.rules] or "none: what no rule permits is denied"
        values["allowed"] = found.allowed
    show_dict(output, values)
    if output is Format.TABLE:
        for rule in found.rules:
            if rule.text:
                print(f"\n{rule.text}")
    if not found.allowed:
        raise typer.Exit(EXIT_DOES_NOT_HOLD)


@app.command()
def reach(
    name: Annotated[str, typer.Argument(help="The credential.")],
    *,
    identity: Annotated[list[str], typer.Option(help="Ask about this identity too. Repeat it.")] = [],  # noqa: B006
    purpose: Purpose = "",
    ttl: Ttl = 3600,
    device: Device = "",
    ip: Address = "",
    approvals: Approvals = 0,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say who can reach a credential, by which rules."""
    with client(profile, token_file) as vault:
        found = vault.list_reachers(
            name, identities=identity, circumstances=_sent(purpose, ttl, device, ip, approvals)
        )
    if output is Format.JSON:
        show(output, found)
        return
    show_all(output, found.reachers, ("identity", "actions", "rules"))
    if found.open_rules:
        names = ", ".join(rule.name for rule in found.open_rules)
        print(f"\nopen to whoever else meets them: {names}")


@app.command("show")
def show_(
    version: Annotated[
        int, typer.Argument(min=0, max=MAX_INT32, help="The version; 0 is what is in force.")
    ] = 0,
    *,
    profile: ProfileFile = DEFAULT_PROFILE,
    token_file: TokenFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Print a version of the policy."""
    with client(profile, token_file) as vault:
        found = vault.get_policy(version)
    if output is Format.JSON:
        show(output, found)
    else:
        print(found.text)


@app.command("list")
def list_(
    *, profile: ProfileFile = DEFAULT_PROFILE, token_file: TokenFile = None, output: Output = Format.TABLE
) -> None:
    """List the stored versions, newest first."""
    with client(profile, token_file) as vault:
        found = vault.list_policies()
    show_all(output, found, ("version", "in_force", "comment", "created_by", "create_time", "sha256"))


@app.command()
def starter(
    role: Annotated[str, typer.Argument(help=", ".join(ROLES))],
    *,
    identity: Annotated[str, typer.Option(help="Who has the role.")],
    tenant: Annotated[str, typer.Option(help="For which tenant.")],
) -> None:
    """Print a policy to begin with for a role."""
    if role not in ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(ROLES)}")
    text = resources.files("vault.cli").joinpath(f"starter/{role}.cedar").read_text()
    print(text.replace("IDENTITY", identity).replace("TENANT", tenant), end="")


def _sent(purpose: str, ttl: int, device: str, ip: str, approvals: int) -> PolicyCircumstances:
    from vault.v1.policy_pb2 import PolicyCircumstances  # noqa: PLC0415

    sent = PolicyCircumstances(purpose=purpose, device_id=device, ip_address=ip, approvals=approvals)
    sent.ttl.seconds = ttl
    return sent


_EXPECTATION: dict[str, type] = {
    "identity": str,
    "scope": str,
    "allow": bool,
    "rule": str,
    "purpose": str,
    "ttl_seconds": int,
    "device": str,
    "ip": str,
    "time": datetime.datetime,
    "approvals": int,
}


def _read_table(table: Path) -> list[dict[str, Any]]:
    try:
        items = tomllib.loads(read_text(table)).get("expect", [])
    except tomllib.TOMLDecodeError as error:
        raise StartError(f"{table}: not TOML: {error}") from None
    if not items:
        raise StartError(f"{table}: has no [[expect]]; a test of nothing would pass for nothing")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise StartError(f"{table}: expect must be tables: [[expect]]")
    for place, item in enumerate(items, 1):
        if unknown := set(item) - set(_EXPECTATION):
            raise StartError(f"{table}: [[expect]] {place}: unknown key {min(unknown)}")
        if missing := {"identity", "scope", "allow"} - set(item):
            raise StartError(f"{table}: [[expect]] {place}: missing {min(missing)}")
        for name, value in item.items():
            if type(value) is not _EXPECTATION[name]:
                kind = _EXPECTATION[name].__name__
                raise StartError(f"{table}: [[expect]] {place}: {name} must be of type {kind}")
    found: list[dict[str, Any]] = items
    return found


def _unmet(policy: Policy, item: dict[str, Any]) -> str:
    """What is wrong with an expectation; empty if it is met."""
    from vault.crypto import scopes  # noqa: PLC0415

    told = f"{item['identity']} {item['scope']}"
    try:
        scope = scopes.parse(item["scope"])
    except scopes.ScopeError:
        return f"{told}: not a scope"
    (judged,) = policy.judge(item["identity"], [scope], _circumstances(item))
    names = [rule.name for rule in judged.rules]
    if judged.allowed != item["allow"]:
        return f"{told}: {'allowed' if judged.allowed else 'denied'} by {', '.join(names) or 'no rule'}"
    if "rule" in item and item["rule"] not in names:
        return f"{told}: decided by {', '.join(names) or 'no rule'}, not by {item['rule']}"
    return ""


def _circumstances(item: dict[str, Any]) -> Circumstances:
    from vault.core.policy import Circumstances  # noqa: PLC0415

    return Circumstances(
        purpose=item.get("purpose", ""),
        ttl_seconds=item.get("ttl_seconds", 3600),
        device=item.get("device", ""),
        ip_address=item.get("ip", ""),
        time=item.get("time", datetime.datetime.now(datetime.UTC)),
        approvals=item.get("approvals", 0),
    )
