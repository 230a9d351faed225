"""torchrun, and the examples that it runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 120.0
# What torchrun grants its ranks when it is told to end, and somewhat more.
GRACE_SECONDS = 40.0


def torchrun(ranks: int, *command: str) -> str:
    """What the ranks print."""
    program = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={ranks}", "--max_restarts=0", *command,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
    )  # fmt: skip
    try:
        said, _ = program.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        # Told so, it ends its ranks, which are in sessions of their own.
        program.send_signal(signal.SIGTERM)
        try:
            said, _ = program.communicate(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
        raise AssertionError(f"not done after {SECONDS} s:\n{said}") from None
    assert program.returncode == 0, said
    return said


def losses(said: str) -> list[float]:
    return [float(one) for one in re.findall(r"step \d+: loss ([\d.]+)", said)]


def digest(said: str) -> str:
    (found,) = re.findall(r"parameters ([0-9a-f]{16})", said)
    return str(found)


def test_ddp() -> None:
    said = torchrun(2, str(EXAMPLES / "torch_ddp.py"), "--backend=pyccl", "--steps=60")
    assert "the same on 2 ranks" in said
    assert losses(said)[-1] < losses(said)[0] < 1.0, said
    assert digest(said)


def test_fsdp() -> None:
    said = torchrun(2, str(EXAMPLES / "fsdp.py"), "--backend=pyccl", "--steps=30")
    assert "rank 0 holds 2754 of 5508 parameters" in said
    assert losses(said)[-1] < losses(said)[0] < 1.0, said
    assert digest(said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_ddp.py", "fsdp.py"])
def test_any_backend_ends_with_the_same_parameters(name: str) -> None:
    ends = {
        digest(torchrun(2, str(EXAMPLES / name), f"--backend={backend}"))
        for backend in ("gloo", "pyccl")
    }
    assert len(ends) == 1


@pytest.mark.slow
def test_fsdp_on_four_ranks() -> None:
    said = torchrun(4, str(EXAMPLES / "fsdp.py"), "--backend=pyccl")
    assert "rank 0 holds 1377 of 5508 parameters" in said
    assert losses(said)[-1] < losses(said)[0]
