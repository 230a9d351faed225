"""The examples do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyccl

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(tmp_path: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=tmp_path,
    )


def test_hello(coordinator: pyccl.Coordinator, tmp_path: Path) -> None:
    peers = [start(tmp_path, "hello.py", coordinator.address) for _ in range(2)]
    lines = sorted(peer.communicate(timeout=60)[0] for peer in peers)
    assert lines == [
        f"rank {rank}: the average over 2 peers is [1.5 1.5 1.5 1.5]\n" for rank in (0, 1)
    ]


def test_elastic(coordinator: pyccl.Coordinator, tmp_path: Path) -> None:
    arguments = (coordinator.address, "--steps", "40", "--pause", "0.02")
    first = start(tmp_path, "elastic.py", *arguments)
    assert first.stdout is not None
    assert "rank 0 of 1" in first.stdout.readline()
    others = [start(tmp_path, "elastic.py", *arguments) for _ in range(2)]
    # One that is killed once it takes part.
    victim = others.pop()
    assert victim.stdout is not None
    assert re.search(r"rank \d of \d", victim.stdout.readline())
    victim.stdout.readline()
    victim.kill()
    texts = [peer.communicate(timeout=60)[0] for peer in (first, *others)]
    victim.communicate()
    are_in_step(texts, 40)


def test_elastic_ddp(coordinator: pyccl.Coordinator, tmp_path: Path) -> None:
    """Two that begin together, and one that comes later and is killed."""
    pytest.importorskip("torch")
    arguments = (coordinator.address, "--steps", "50", "--pause", "0.1")
    pair = [start(tmp_path, "elastic_ddp.py", *arguments, "--ranks", "2") for _ in range(2)]
    for rank in pair:
        assert rank.stdout is not None
        assert "of 2" in rank.stdout.readline()
    victim = start(tmp_path, "elastic_ddp.py", *arguments)
    assert victim.stdout is not None
    victim.stdout.readline()
    victim.stdout.readline()
    victim.kill()
    victim.communicate()
    are_in_step([rank.communicate(timeout=60)[0] for rank in pair], 50)


def are_in_step(texts: list[str], last: int) -> None:
    """All have come to the last step, with the same state at each."""
    states: dict[str, set[str]] = {}
    for text in texts:
        for step, state in re.findall(r"step (\d+): .* state (\w+)", text):
            states.setdefault(step, set()).add(state)
        assert f"step {last}:" in text
    assert all(len(seen) == 1 for seen in states.values())


def test_elastic_goes_on_from_the_newest_snapshot(
    coordinator: pyccl.Coordinator, tmp_path: Path
) -> None:
    def peers(steps: int, count: int) -> list[str]:
        arguments = (coordinator.address, "--steps", str(steps), "--pause", "0.01", "--snapshot")
        started = [start(tmp_path, "elastic.py", *arguments, f"{i}.state") for i in range(count)]
        return [peer.communicate(timeout=60)[0] for peer in started]

    peers(10, 1)
    shutil.copy(tmp_path / "0.state", tmp_path / "1.state")
    peers(20, 1)
    # One at 20, and one at 10.
    texts = peers(200, 2)
    steps = [[int(step) for step in re.findall(r"step (\d+):", text)] for text in texts]
    assert min(steps[0]) > 20
    assert min(steps[1]) > 10
    assert {one[-1] for one in steps} == {200}
    ends = {re.findall(r"step 200: .* state (\w+)", text)[0] for text in texts}
    assert ends == {pyccl.SharedState.load(tmp_path / "0.state").digest()[:8]}


def test_numpy_diloco(coordinator: pyccl.Coordinator, tmp_path: Path) -> None:
    arguments = (coordinator.address, "--steps", "30", "--pause", "0.05")
    pair = [
        start(tmp_path, "numpy_diloco.py", *arguments, "--peers", "2", "--seed", str(seed))
        for seed in range(2)
    ]
    for peer in pair:
        assert peer.stdout is not None
        assert "begins at outer step 0" in peer.stdout.readline()
        peer.stdout.readline()
    newcomer = start(tmp_path, "numpy_diloco.py", *arguments, "--seed", "2")
    assert newcomer.stdout is not None
    assert re.search(r"begins at outer step [1-9]", newcomer.stdout.readline())
    assert "3 peers" in newcomer.stdout.readline()
    newcomer.kill()
    texts = [peer.communicate(timeout=60)[0] for peer in pair]
    newcomer.communicate()
    assert [peer.returncode for peer in pair] == [0, 0]
    lines = [re.findall(r"outer step (\d+): (\d) peers, error (\S+), state (\w+)", one)
             for one in texts]  # fmt: skip
    assert lines[0] == lines[1]
    assert [int(one[0]) for one in lines[0]] == list(range(2, 31))
    assert {one[1] for one in lines[0]} == {"2", "3"}
    errors = [float(one[2]) for one in lines[0]]
    assert errors[-1] < 0.05 < errors[0]
