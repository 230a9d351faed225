"""Frameworks that choose the backend of torch.distributed by its name.

They are no dependencies of the tests. To have these tests run, install them beside the package:

    pip install accelerate lightning
    pytest -m slow tests/torch/test_frameworks.py
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 180.0

pytestmark = pytest.mark.slow


def need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install {name}")


def run(*command: str) -> tuple[float, float, float]:
    """The loss at the beginning and in the end, and the sum of all parameters."""
    program = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "CUDA_VISIBLE_DEVICES": "",
        },
    )
    try:
        said, _ = program.communicate(timeout=SECONDS)
    finally:
        if program.poll() is None:
            # Both kinds of launcher end their ranks when they are told to.
            program.terminate()
            try:
                program.wait(40.0)
            except subprocess.TimeoutExpired:
                program.kill()
    # Gloo's own threads abort the process now and then as it ends, behind all that it has to tell.
    assert program.returncode == 0 or command[-1] == "gloo", said
    found = re.search(r"loss from ([\d.]+) to ([\d.]+), sum (-?[\d.]+)", said)
    assert found, said
    first, last, total = (float(one) for one in found.groups())
    assert last < 0.8 * first, said
    return first, last, total


def test_accelerate() -> None:
    need("accelerate")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    ends = [run(*launch, str(HERE / "accelerated.py"), name) for name in ("pyccl", "gloo")]
    assert ends[0] == ends[1]


def test_lightning() -> None:
    need("lightning")
    ends = [run(str(HERE / "lightened.py"), name) for name in ("pyccl", "gloo")]
    assert ends[0] == ends[1]
