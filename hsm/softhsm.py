"""A SoftHSM token for development and tests: the real PKCS#11, with keys in files instead of hardware.

SoftHSM reads `SOFTHSM2_CONF` when its library is initialised, and finds no token that was made later. So
call `init_token`, then `os.environ["SOFTHSM2_CONF"] = str(config_file(directory))`, then `open_backend`.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hsm.errors import HsmUnavailable

_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",  # Debian, Ubuntu
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",  # Fedora, RHEL
    "/usr/lib64/softhsm/libsofthsm2.so",  # openSUSE
    "/usr/lib/pkcs11/libsofthsm2.so",  # Arch
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/opt/softhsm/lib/softhsm/libsofthsm2.so",
)
_HOW_TO_GET: Final = "install it: apt install softhsm2, dnf install softhsm, or brew install softhsm"
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


def module_path() -> Path:
    """Where SoftHSM's library is; `SOFTHSM2_MODULE` in the environment overrides. Raises `HsmUnavailable`."""
    override = os.environ.get("SOFTHSM2_MODULE")
    for candidate in (override,) if override else _MODULES:
        if Path(candidate).is_file():
            return Path(candidate)
    raise HsmUnavailable("init_token", f"SoftHSM's library was not found; {_HOW_TO_GET}")


def config_file(directory: Path) -> Path:
    """The configuration that `init_token` writes for a directory, to be named in `SOFTHSM2_CONF`."""
    return Path(directory).absolute() / "softhsm2.conf"


def init_token(directory: Path, label: str, pin_file: Path, so_pin_file: Path | None = None) -> str:
    """Make a token, or find the one that is there, and return its `pkcs11:` URI.

    `pin_file` is read if it exists and made, with a random PIN, if not; `so_pin_file` likewise (in the
    directory by default). Done twice, it does nothing the second time. Raises `HsmUnavailable` with what
    to do if SoftHSM is missing or fails.
    """
    if not _LABEL.fullmatch(label):
        raise ValueError("a token label is 1 to 32 letters, digits, dots, dashes and underscores")
    directory = Path(directory).absolute()
    module = module_path()
    tool = shutil.which("softhsm2-util")
    if tool is None:
        raise HsmUnavailable("init_token", f"softhsm2-util was not found; {_HOW_TO_GET}")
    tokens = directory / "tokens"
    tokens.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = config_file(directory)
    config.write_text(
        f"directories.tokendir = {tokens}\n"
        "objectstore.backend = file\n"
        "log.level = ERROR\n"
        # A forked child would otherwise inherit the parent's log-in.
        "library.reset_on_fork = true\n"
    )
    _ensure_pin(pin_file)
    so_pin_file = so_pin_file or directory / "so-pin"
    _ensure_pin(so_pin_file)
    if _serial(tool, config, label) is None:
        _run(
            tool,
            config,
            *("--init-token", "--free", "--label", label),
            # This tool knows no other way. It matters little: these PINs guard files of this very user.
            *("--pin", _pin(pin_file), "--so-pin", _pin(so_pin_file)),
        )
    serial = _serial(tool, config, label)
    if serial is None:
        raise HsmUnavailable("init_token", "SoftHSM made no token")
    query = f"module-path={quote(str(module))}&pin-source=file:{quote(str(Path(pin_file).absolute()))}"
    return f"pkcs11:token={quote(label)};serial={serial}?{query}"


def _ensure_pin(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16))


def _pin(path: Path) -> str:
    return path.read_text().rstrip("\r\n")


def _serial(tool: str, config: Path, label: str) -> str | None:
    found: list[str] = []
    serial = ""
    for line in _run(tool, config, "--show-slots").splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "Serial number":
            serial = value
        elif name == "Label" and value == label:
            found.append(serial)
    if len(found) > 1:
        raise HsmUnavailable("init_token", f"there are {len(found)} tokens labelled {label}")
    return found[0] if found else None


def _run(tool: str, config: Path, *arguments: str) -> str:
    environment = {**os.environ, "SOFTHSM2_CONF": str(config)}
    done = subprocess.run(  # noqa: S603 - no shell; arguments checked above
        [tool, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise HsmUnavailable("init_token", f"softhsm2-util failed: {' '.join(reason)}")
    return done.stdout
