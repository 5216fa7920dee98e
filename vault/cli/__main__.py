"""`python -m vault.cli` is `strongroom`."""

from vault.cli.main import main

main()
