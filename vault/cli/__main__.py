"""`python -m vault.cli` is `strongroom`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say what is not installed: the SDK comes without what it needs."""
    try:
        from vault.cli.main import main as run  # noqa: PLC0415 - it is what may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"vault", "hsm"}:
            raise
        print(
            f"strongroom: {error.name} is not installed: only the SDK is here\n"
            "  next: install the command and the vault: docs/operations.md, Install",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    run()


if __name__ == "__main__":
    main()
