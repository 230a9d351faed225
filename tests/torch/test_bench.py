"""bench/torch_*.py: what they take for wrong, their tables, their processes, one small run each."""

from __future__ import annotations

import json
import math
import operator
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch_collectives as collectives
import torch_ddp as ddp
from click.testing import CliRunner
from comparison.cases import Case
from comparison.launch import Sample
from comparison.libraries import Call, Membership
from comparison.rank import measure
from comparison.tables import Results
from crew import RankError
from rich.console import Console
from rich.table import Table
from torch_ranks import Ranks

LIMIT_SECONDS = 60.0
MIB = 1 << 20


def text_of(table: Table) -> str:
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def run(script: Any, tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What it prints, and its JSON."""
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(script.main, [*arguments, "--json", str(file)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output, json.loads(file.read_text())


def alone(spoil: float) -> Membership:
    """The only rank of a group, whose results are wrong by as much in one place."""

    def call_of(case: Case) -> Call:
        def call() -> None:
            case.y.reshape(-1)[...] = case.x.reshape(-1)
            case.y.reshape(-1)[-1] += spoil

        return call

    return Membership(0, call_of, lambda: None)


@pytest.mark.parametrize("name", collectives.NAMES)
def test_a_wrong_result_of_a_collective_is_found(name: str) -> None:
    assert measure(alone(0), name, 4096, 1)["seconds"] > 0
    with pytest.raises(RuntimeError, match=f"wrong result at 4096 bytes: {name}"):
        measure(alone(1), name, 4096, 1)


def test_a_table_has_every_cell() -> None:
    results = Results()
    sizes = [4096, MIB]
    for turn in (1, 2, 3):
        for backend, milliseconds in (("pyccl", turn), ("gloo", 2.1)):
            for size in sizes:
                sample = Sample(milliseconds / 1e3, 0.01)
                results.add("all_reduce", 2, size, backend, sample)
    # Gloo has no such operation.
    results.add("all_to_all", 2, MIB, "pyccl", Sample(0.004, 0.01))
    lines = text_of(collectives.table_of(results, 2, sizes)).splitlines()
    figures = [" ".join(line.replace("│", " ").split()) for line in lines if "│" in line]
    assert len(figures) == len(collectives.NAMES) * len(sizes)
    assert figures[0] == "all_reduce 4 KiB 2 (1-3) 2.1 (2.1-2.1) 0.002 0.002 1.05 1 met"
    assert figures[1] == "1 MiB 2 (1-3) 2.1 (2.1-2.1) 0.524 0.499 1.05 1.1 missed"
    assert figures[2] == "all_gather_into_tensor 4 KiB - - - - - 1"
    assert figures[5] == "1 MiB 4 (4-4) - 0.131 - - 1.1"
    bounds = collectives.bounds_to_json(results, [2], sizes)
    assert [one["bound"] for one in bounds] == [1.0, 1.1] * 4
    assert [one["ratio"] for one in bounds[2:]] == [None] * 6


def test_an_operation_that_a_backend_lacks_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(_: Case) -> Call:
        raise RuntimeError(said)

    monkeypatch.setattr(collectives, "torch_call", lacks)
    said = "Backend gloo does not support reduce_scatter"
    assert collectives.measure_here(0, 2, "reduce_scatter", 4096) is None
    said = "connection reset"
    with pytest.raises(RuntimeError, match=said):
        collectives.measure_here(0, 2, "reduce_scatter", 4096)


def checked(own: float, seen: float) -> ddp.Checked:
    return ddp.Checked(np.full(3, own, np.float32), np.full(3, seen, np.float32))


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (checked(3, 2), None),
        (checked(3, 3), "the gradients at rank 1 are not the mean of all"),
        (checked(4, 2), "the gradients at rank 0 are not the mean of all"),
    ],
)
def test_a_wrong_step_is_found(second: ddp.Checked, fault: str | None) -> None:
    assert ddp.wrong_step([checked(1, 2), second]) == fault


class FakeRanks:
    """Ranks that have trained well at first, and then not the same."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> FakeRanks:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, job: Any, *_: object) -> list[Any]:
        if job is ddp.prepare_here:
            return [checked(1, 1)] * 2
        return [ddp.Trained(1.0, 1.0, checksum) for checksum in (1, 2)]


def test_ranks_that_part_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddp, "Ranks", FakeRanks)
    rows = [ddp.Row(2)]
    faults = ddp.run_all(rows, ddp.Net(1, 4, 1), 1, 1, LIMIT_SECONDS)
    assert faults == ["2 ranks: pyccl: the ranks hold different parameters"]
    (line,) = (
        line for line in text_of(ddp.table_of(rows, ddp.Net(1, 4, 1))).splitlines() if "│" in line
    )
    assert line.replace("│", " ").split() == ["2", "-", "-", "-", "-", "0.95"]


@pytest.mark.parametrize("backend", ["pyccl", "gloo"])
def test_ranks_answer_in_their_order_and_fail_by_name(backend: str) -> None:
    with Ranks(backend, 2, LIMIT_SECONDS) as ranks:
        assert ranks.run(operator.sub) == [-2, -1]
        assert ranks.run(max, 1, 5) == [5, 5]
    with (
        pytest.raises(RankError, match=f"{backend}: rank 0: ValueError"),
        Ranks(backend, 2, LIMIT_SECONDS) as ranks,
    ):
        ranks.run(math.log)


def test_every_collective_is_measured(tmp_path: Path) -> None:
    arguments = ("--ranks", "2,3", "--sizes", "48,12K", "--rounds", "1")
    text, content = run(collectives, tmp_path, *arguments)
    assert "torch.distributed, 3 ranks" in text
    for of_torch in collectives.NAMES.values():
        assert len(re.findall(rf"^│ +{of_torch} ", text, re.MULTILINE)) == 2
    assert [
        (cell["peers"], cell["collective"], cell["bytes"], cell["library"])
        for cell in content["cells"]
    ] == [
        (ranks, name, size, backend)
        for ranks in (2, 3)
        for name in collectives.NAMES
        for size in (48, 12 << 10)
        for backend in collectives.BACKENDS
    ]
    assert all(len(cell["seconds"]) == 1 for cell in content["cells"])
    assert all(one["ratio"] > 0 for one in content["bounds"])


def test_steps_are_measured(tmp_path: Path) -> None:
    arguments = ("--ranks", "2", "--width", "30", "--layers", "2", "--rounds", "2", "--steps", "1")
    text, content = run(ddp, tmp_path, *arguments)
    assert "2 layers of 30" in text
    assert content["parameters"] == 2 * 30 * 31
    (row,) = content["rows"]
    assert {name: len(times) for name, times in row["seconds"].items()} == {"pyccl": 2, "gloo": 2}
    assert len(row["seconds_without"]) == 4
    assert row["ratio"] > 0


@pytest.mark.parametrize(
    "arguments",
    [["--ranks", "1"], ["--sizes", "6"], ["--sizes", "8", "--ranks", "4"], ["--rounds", "0"]],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(collectives.main, arguments)
    assert done.exit_code == 2
    assert "Error" in done.output
