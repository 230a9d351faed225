"""bench/collectives.py: what it takes for a right result, its figures, and one small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import collectives
import pytest
from comparison import limits
from comparison.cases import SHAPES, Case, moved_bytes, neighbours, partner_of
from comparison.launch import Sample
from comparison.tables import Results, table_of
from rich.console import Console

from pyccl.cli.bench.collectives import COLLECTIVES

SCRIPT = Path(collectives.__file__)


def run(name: str, ranks: int) -> list[Case]:
    """The cases of all ranks after the collective, done by hand."""
    cases = [Case.of(name, 4096, rank, ranks) for rank in range(ranks)]
    inputs = [case.x.copy() for case in cases]
    for rank, case in enumerate(cases):
        partner = partner_of(rank, ranks)
        if name in ("all_reduce", "reduce"):
            case.y[...] = sum(inputs)
        elif name == "reduce_scatter":
            case.y[...] = sum(x[rank] for x in inputs)
        elif name in ("all_gather", "gather"):
            case.y[...] = inputs
        elif name == "all_to_all":
            case.y[...] = [x[rank] for x in inputs]
        elif name == "broadcast":
            case.y[...] = inputs[0]
        elif name == "scatter":
            case.y[...] = inputs[0][rank]
        elif name == "send_recv":
            case.y[...] = inputs[neighbours(rank, ranks)[1]]
        elif name == "exchange" and partner is not None:
            case.y[...] = inputs[partner]
    return cases


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_case_knows_the_right_result_from_a_wrong_one(name: str, ranks: int) -> None:
    cases = run(name, ranks)
    assert [case.wrong() for case in cases] == [None] * ranks
    first = cases[0]
    first.y.reshape(-1)[-1:] += 1
    if name != "barrier":
        assert name in str(first.wrong())


def test_the_bytes_that_move() -> None:
    names = ("all_reduce", "all_gather", "broadcast", "gather", "send_recv", "exchange")
    assert [moved_bytes(name, 3000, 3) for name in names] == [12000, 6000, 6000, 2000, 9000, 6000]
    for name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        assert moved_bytes(name, 800, 4) == COLLECTIVES[name].factor(4) * 800 * 4


def test_a_cell_is_the_median_beside_the_others() -> None:
    results = Results()
    for library, milliseconds in (("pyccl-tcp", [3, 1, 2]), ("gloo", [6]), ("mpi-tcp", [1])):
        for one in milliseconds:
            sample = Sample(one / 1e3, 0.01)
            results.add("all_reduce", 4, 1 << 20, library, sample)
    cell = results.cell("all_reduce", 4, 1 << 20, "pyccl-tcp")
    assert cell.median == 2e-3
    assert cell.busbw == pytest.approx(1.5 * (1 << 20) / 2e-3 / 1e9)
    assert cell.moved == pytest.approx(4 * cell.busbw)
    assert cell.cpu_per_gigabyte == pytest.approx(0.01 / (6 * (1 << 20) / 1e9))
    assert results.faster_than(cell, "gloo") == "3.00"
    assert results.faster_than(cell, "mpi-tcp") == "0.50"
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table_of(results, "all_reduce", 4))
    text = console.export_text()
    assert "2 (1-3)" in text
    assert "1 MiB" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--collectives", "all_reduce,nothing"],
        ["--libraries", "nccl"],
        ["--sizes", "6"],
        ["--sizes", "8", "--peers", "4", "--collectives", "all_gather"],
        ["--peers", "1"],
    ],
)
def test_what_it_cannot_measure_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        collectives.parse(arguments)
    assert "error" in capsys.readouterr().err


def test_the_limits_of_the_machine_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "_TCP_BYTES", 4 << 20)
    found = limits.sample()
    assert {"memcpy, 1 thread", "c = a + b, 1 thread", "loopback TCP, one way"} <= set(found)
    assert all(value > 0 for value in found.values())


def test_a_small_run(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    names = "all_reduce,barrier"
    arguments = ["--collectives", names, "--libraries", "pyccl-tcp,pyccl-shm-spin"]
    arguments += ["--sizes", "4K,64K", "--peers", "2", "--repeats", "2", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all_reduce, 2 peers" in done.stdout
    cells = json.loads(file.read_text())["cells"]
    assert [(cell["collective"], cell["bytes"], cell["library"]) for cell in cells] == [
        (name, size, library)
        for name, sizes in (("all_reduce", (4096, 65536)), ("barrier", (0,)))
        for size in sizes
        for library in ("pyccl-tcp", "pyccl-shm-spin")
    ]
    assert all(len(cell["seconds"]) == len(cell["cpu_seconds"]) == 2 for cell in cells)
