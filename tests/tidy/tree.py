"""The files of the tree: tracked ones, and new ones that git does not ignore."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TEXT = (".cpp", ".hpp", ".h", ".c", ".py", ".pyi", ".cmake", ".md", ".toml", ".txt", "Makefile")


@cache
def texts() -> dict[str, str]:
    """Text files by path relative to the root of the tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return {
        path: (ROOT / path).read_text(encoding="utf-8")
        for path in sorted(set(listed))
        if path.endswith(_TEXT) and (ROOT / path).is_file()
    }
