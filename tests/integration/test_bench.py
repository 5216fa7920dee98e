"""`make bench` measures every operation that has a target; what it finds is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from bench.__main__ import TARGETS

if TYPE_CHECKING:
    from pathlib import Path


def test_every_operation_with_a_target_is_measured_beside_the_echoes(tmp_path: Path) -> None:
    found = tmp_path / "results.json"
    # As many as the kernel's clock of a process's time can tell.
    few = ["--operations", "640", "--callers", "16", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *few, "--json", str(found)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(found.read_text())
    assert set(TARGETS) | {"unary", "stream"} <= set(results)
    assert all(
        row["per_second"] > 0 and row["p50_ms"] > 0 for name, row in results.items() if name != "worker"
    )
