"""What an installation with some of the dependencies only would find: every other package is hidden."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

_HIDE = """\
import importlib.machinery, sys

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in {seen!r} | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden)
"""


def declared(*extras: str) -> set[str]:
    """The distributions that pyproject.toml asks for, with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {_plain(requirement) for requirements in lists for requirement in requirements}


def with_all_they_need(distributions: set[str]) -> set[str]:
    """These distributions and those that they ask for, without extras."""
    found: set[str] = set()
    rest = set(distributions)
    while rest:
        found.add(name := rest.pop())
        asked = importlib.metadata.requires(name) or []
        rest |= {_plain(line) for line in asked if "extra ==" not in line and "python_version <" not in line}
        rest -= found
    return found


def packages(distributions: set[str]) -> set[str]:
    """The top-level packages that these distributions bring."""
    bring = importlib.metadata.packages_distributions()
    return {package for package, by in bring.items() if {_plain(name) for name in by} & distributions}


def hide_others(distributions: set[str]) -> str:
    """Python text, to be run first: the vault's own packages and those of the distributions can be imported alone."""
    return _HIDE.format(seen=packages(distributions) | {"vault", "hsm"})


def locked(file: str) -> dict[str, str]:
    """The distributions of a lock file, and the version of each."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return {_plain(name): version for name, version in lines}


def _plain(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")
