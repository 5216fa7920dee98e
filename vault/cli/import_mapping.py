"""Which credential an imported thing becomes: rules in a small TOML file.

    [[rule]]
    path = "prod/stripe/*"                        # * is one segment, ** the rest; {1}, {2} are what they stood for
    name = "acme/stripe/{1}"
    kind = "stripe_account"
    fields = { api_key = "STRIPE_KEY" }           # ours = theirs; without it all of them, in lower case
    labels = { team = "payments" }

    [[rule]]
    path = "legacy/**"
    skip = true

Every rule whose path fits applies, so one thing may become several credentials.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOT_A_NAME = re.compile(r"[^a-z0-9_-]+")
_NOT_A_FIELD = re.compile(r"[^a-z0-9_]+")


class MappingError(Exception):
    """The mapping cannot be used: one line that says what is wrong."""


class Rule(BaseModel):
    """What becomes of the paths that fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    name: str = ""
    kind: str = Field(default="imported", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    fields: dict[str, str] = {}
    labels: dict[str, str] = {}
    skip: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if bool(self.name) is self.skip:
            raise ValueError("needs either a name or skip = true")
        return self

    def captures(self, path: str) -> tuple[str, ...] | None:
        """What the stars stand for in a path; None if it does not fit."""
        parts = re.split(r"(\*\*|\*)", self.path)
        pattern = "".join({"*": "([^/]+)", "**": "(.+)"}.get(part, re.escape(part)) for part in parts)
        found = re.fullmatch(pattern, path)
        return found.groups() if found else None

    def target(self, captures: tuple[str, ...]) -> str:
        """The credential's name: what the stars stood for, made fit for one."""
        parts = {str(place): clean(text) for place, text in enumerate(captures, 1)}
        return re.sub(r"\{([0-9]+)\}", lambda found: parts.get(found[1], ""), self.name)

    def select(self, fields: Mapping[str, bytearray | None]) -> dict[str, bytearray]:
        """The fields of the credential, by our names.

        Raises `MappingError` if one is missing or has no value, or two become one.
        """
        theirs = self.fields or {field_name(name): name for name in fields}
        if not self.fields and len(theirs) != len(fields):
            raise MappingError("two fields become one by their names; name each in the mapping")
        if missing := set(theirs.values()) - set(fields):
            raise MappingError(f"the field {min(missing)} is missing at the source")
        if none := [name for name in theirs.values() if fields[name] is None]:
            raise MappingError(
                f"the field {min(none)} is null at the source; name those that count in the mapping"
            )
        return {ours: value for ours, name in theirs.items() if (value := fields[name]) is not None}


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: tuple[Rule, ...] = Field(min_length=1)


def load(file: Path) -> tuple[Rule, ...]:
    """Read a mapping. Raises `MappingError`."""
    try:
        return _Document.model_validate(tomllib.loads(file.read_text())).rule
    except OSError as error:
        raise MappingError(f"cannot read the mapping {file}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MappingError(f"cannot read the mapping {file}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise MappingError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def default(tenant: str, kind: str) -> tuple[Rule, ...]:
    """Without a mapping everything comes under the tenant, by its own path."""
    return (Rule(path="**", name=f"{tenant}/{{1}}", kind=kind),)


def clean(text: str) -> str:
    """A path made fit for a credential's name: lower case, and `-` for what a name does not hold."""
    return "/".join(_NOT_A_NAME.sub("-", part.lower()).strip("-_") for part in text.split("/"))


def field_name(text: str) -> str:
    """A field's name made fit: lower case, `_` for what it does not hold."""
    return _NOT_A_FIELD.sub("_", text.lower()).strip("_")
