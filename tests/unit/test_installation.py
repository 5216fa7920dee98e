"""What is installed where: the SDK alone in a service, the vault from its lock, the tools in development only."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest

from tests.support.installed import ROOT, declared, hide_others, locked, packages, with_all_they_need

SDK = with_all_they_need(declared())


def imported(folder: str) -> set[str]:
    """The packages of others that a folder's modules import, anywhere in them; the conformance suite is a tool."""
    found = set()
    for file in set((ROOT / folder).rglob("*.py")) - set((ROOT / "hsm/conformance").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"vault", "hsm"}


def run_with_the_sdk_alone(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", hide_others(SDK) + program],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


def test_the_sdk_is_imported_where_nothing_but_its_own_dependencies_is_installed() -> None:
    done = run_with_the_sdk_alone("import vault.client, vault.client.health; print('imported')")
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_the_dependencies_of_the_sdk_are_no_more_than_it_imports() -> None:
    program = "import vault.client, vault.client.health, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = run_with_the_sdk_alone(program)
    seen = set(done.stdout.split())
    assert {name for name in declared() if not packages({name}) & seen} == set(), done.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["credential", "list"]])
def test_the_command_says_that_only_the_sdk_is_installed(arguments: list[str]) -> None:
    program = f"import sys; sys.argv[1:] = {arguments!r}; from vault.cli.__main__ import main; main()"
    done = run_with_the_sdk_alone(program)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.endswith("is not installed: only the SDK is here")
    assert "docs/operations.md" in second


def test_what_the_vault_imports_is_declared_as_its_own() -> None:
    assert imported("vault") | imported("hsm") <= packages(declared("vault"))


def test_the_production_lock_holds_the_vault_and_no_tool_of_development() -> None:
    production = locked("requirements.lock")
    assert declared("vault") <= set(production)
    assert not (declared("dev") - declared()) & set(production)


def test_the_development_lock_adds_to_the_production_lock_and_changes_nothing_of_it() -> None:
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()
    assert declared("vault", "dev") <= set(locked("requirements-dev.lock"))


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-dev.lock"])
def test_every_line_of_a_lock_is_held_by_hashes(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    assert lines[0].endswith("\\")
    for this, following in zip(lines, [*lines[1:], ""], strict=True):
        assert this.startswith("    --hash=sha256:") or following.startswith("    --hash=sha256:"), this


def test_the_command_is_installed_with_a_way_to_say_what_is_missing() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"strongroom": "vault.cli.__main__:main"}


@pytest.mark.parametrize("package", ["vault", "hsm"])
def test_type_checkers_of_those_who_import_a_package_see_its_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
