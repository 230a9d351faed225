"""Where the simulator is, how it is run, and what its sources name."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 3000.0

Result = subprocess.CompletedProcess[str]
Simulate = Callable[..., Result]


def find() -> Path | None:
    """What PYCCL_SIM names, or the newest that a build folder of the tree holds."""
    named = os.environ.get("PYCCL_SIM")
    if named:
        return Path(named)
    built = [path for path in ROOT.glob("build*/**/pyccl_sim") if path.is_file()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def run(simulator: Path, *arguments: object) -> Result:
    """In a process of its own: a failed assertion must not take pytest along."""
    command = [str(simulator), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


def marks(*results: Result) -> set[str]:
    """The coverage marks that runs with --marks have hit."""
    return {
        line.removeprefix("mark ")
        for result in results
        for line in result.stdout.splitlines()
        if line.startswith("mark ")
    }


def sites(macro: str, *folders: str) -> set[str]:
    """All names that are given to PYCCL_MARK or PYCCL_MUTANT in these folders of csrc."""
    pattern = re.compile(macro + r'\(\s*"([^"]+)"')
    return {
        name
        for folder in folders
        for path in sorted((ROOT / "csrc" / folder).rglob("*.cpp"))
        for name in pattern.findall(path.read_text())
    }
