"""The types that users see: mypy on programs right and wrong, and the stub beside the core."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyccl
from pyccl import _core

pytest.importorskip("mypy")

RIGHT = """
import asyncio
from typing import Any
import numpy as np
import pyccl

Array = np.ndarray[Any, Any]

with pyccl.Coordinator("127.0.0.1:0") as coordinator, pyccl.connect(coordinator.address) as comm:
    x = np.ones(3, np.float32)
    info: pyccl.OperationInfo = comm.all_reduce(x, op="avg", weight=2.0)
    work: pyccl.Work = comm.all_reduce([x, x], async_op=True, algorithm="ring")
    size: int = work.wait(1.0).world_size
    view: pyccl.View = comm.update()
    rank: int = comm.rank
    first: str = comm.peers[0]

    rows: Array = comm.all_gather(x)
    later: pyccl.Work[Array] = comm.reduce_scatter(x, async_op=True)
    share: Array = later.wait()
    how: pyccl.OperationInfo = later.info()
    info = comm.broadcast(x, root=0)
    work = comm.exchange(x, None, 0, async_op=True)
    sub: pyccl.Subgroup = comm.subgroup([0], name="alone")
    members: int = sub.barrier().members
    found: list[Array] = sub.subgroup(range(1)).all_to_all([x, x])

    q = pyccl.Quantization("e3m0", block=64)
    feedback = pyccl.ErrorFeedback("int8")
    info = feedback.all_reduce(comm, x, op="avg")
    info = feedback.all_reduce(sub, [x, x], out=[x, x])
    feedback.quantization = q
    step: float = q.rounded(x)[1]
    codec: str = feedback.quantization.codec

    async def main() -> pyccl.OperationInfo:
        return await comm.all_reduce(x, async_op=True)

    epoch: pyccl.Epoch = asyncio.run(main()).epoch
"""

WRONG = """
import pyccl

comm = pyccl.connect(48148)
comm.all_reduce([], op="mean")
comm.all_reduce([], weight="1")
work: pyccl.Work = comm.all_reduce([])
comm.rank = 3
comm.all_gather([], on_loss="ignore")
comm.reduce_scatter([], on_loss="retry")
comm.subgroup(0)
comm.send([], "1")
later: pyccl.Work[int] = comm.broadcast([])
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy says of both programs, by line: it reads the package once for the two."""
    folder = tmp_path_factory.mktemp("programs")
    for name, program in (("right.py", RIGHT), ("wrong.py", WRONG)):
        (folder / name).write_text(program)
    # The package's own folder, so that its source is checked as users' tools see it.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary",
         "--cache-dir", "cache", "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(Path(pyccl.__file__).parents[1]), "PATH": ""},
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return (done.stdout + done.stderr).splitlines()


def test_a_right_program_has_no_faults(said: list[str]) -> None:
    assert [line for line in said if not line.startswith("wrong.py:")] == []


def test_a_wrong_program_is_told_each_fault(said: list[str]) -> None:
    errors = [line for line in said if line.startswith("wrong.py:") and ": error:" in line]
    assert {int(line.split(":")[1]) for line in errors} == set(range(4, 14))


def test_the_stub_names_what_the_core_has() -> None:
    stub = ast.parse(Path(pyccl.__file__).with_name("_core.pyi").read_text())
    classes = {one.name: one for one in stub.body if isinstance(one, ast.ClassDef)}
    names = {one.name for one in stub.body if isinstance(one, ast.FunctionDef)} | set(classes)
    for one in stub.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            names.add(one.target.id)
    assert names == {name for name in dir(_core) if not name.startswith("__")}
    for name, declared in classes.items():
        methods = {one.name for one in declared.body if isinstance(one, ast.FunctionDef)}
        public = {one for one in vars(getattr(_core, name)) if not one.startswith("_")}
        assert methods - {"__init__"} == public, name
