"""The one place where this command shows secrets: they were asked for, by name, and the vault agreed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vault.client import Secrets


def show_secrets(secrets: Secrets) -> None:
    """Print fields as JSON; what is not text as `base64:...`."""
    values = {}
    for name in secrets:
        try:
            values[name] = secrets.text(name)
        except UnicodeDecodeError:
            values[name] = "base64:" + base64.b64encode(secrets[name]).decode()
    print(json.dumps(values, indent=2))
