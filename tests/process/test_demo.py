"""`pyccl demo`, whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")


@pytest.mark.parametrize("peers", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_the_demo_ends_well(tmp_path: Path, peers: int) -> None:
    file = tmp_path / "demo.json"
    done = subprocess.run(
        [sys.executable, "-m", "pyccl.cli", "demo", "--plain", "--json", str(file),
         "--peers", str(peers), "--rounds", "30", "--pace", "0.1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=tmp_path,
        timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Good:" in done.stdout
    record = json.loads(file.read_text())
    assert record["verdict"] == {"good": True, "faults": []}
    assert record["accuracy"] >= 0.95
    assert record["peers"] == peers
    assert len(record["rounds"]) >= 30
    assert [event["name"] for event in record["events"]] == ["kill", "join", "coordinator", "leave"]
    assert all(event["milliseconds_lost"] >= 0 for event in record["events"])
    sizes = [one["peers"] for one in record["rounds"]]
    assert sizes[0] == peers
    assert min(sizes) == sizes[-1] == peers - 1
    assert record["rounds"][-1]["epoch"] > record["rounds"][0]["epoch"]
