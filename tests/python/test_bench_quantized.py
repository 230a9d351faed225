"""`pyccl bench --quantization` and bench/quantization.py: what counts as wrong, and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantization as script
from click.testing import CliRunner
from rounding import errors, speed

import pyccl
import pyccl.cli.bench as bench
from pyccl import Quantization
from pyccl.cli.bench import report
from pyccl.cli.bench.collectives import COLLECTIVES
from pyccl.cli.bench.data import Data
from pyccl.cli.bench.measure import Figures, Line, Plan, measure
from pyccl.cli.bench.quantized import QuantizedData

from .quantized import rounded

ABLE = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "exchange")


def short(*names: str, **options: Any) -> Plan:
    settings = {"min_bytes": 8, "max_bytes": 70_000, "step_factor": 89, "iters": 1, "warmup": 0}
    return Plan(names, **{"quantization": "int8", **settings, **options})


def figures_of(lines: list[Line]) -> list[Figures]:
    return [one for line in lines for one in line.figures.values()]


class Spoilt:
    """A communicator of whose results `spoil` makes something else."""

    def __init__(self, comm: pyccl.Communicator, name: str, spoil: Any) -> None:
        self._comm = comm
        self._name = name
        self._spoil = spoil

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._comm, name)
        if name != self._name:
            return method

        def call(x: Any, *arguments: Any, **options: Any) -> Any:
            given = method(x, *arguments, **options)
            if options.get("quantization"):
                if options.get("async_op"):
                    given.wait()
                out = arguments[0] if arguments else options.get("out")
                self._spoil((x if out is None else out).reshape(-1))
            return given

        return call


def test_these_can_be_quantized() -> None:
    assert {one.name for one in COLLECTIVES.values() if one.roundings} == set(ABLE)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["sum", "avg"])
@pytest.mark.parametrize("codec", ["int8", "int4_minmax", "e3m0"])
def test_what_quantization_gives_is_right(run_peers: Any, codec: Any, op: str, dtype: str) -> None:
    plans = [short(*ABLE, quantization=codec, op=op, dtype=dtype)]
    plans += [short("all_reduce", quantization=codec, op=op, dtype=dtype, algorithm="ring")]

    def function(comm: pyccl.Communicator) -> list[list[Line]]:
        return [list(measure(comm, plan)) for plan in plans]

    by_peer = run_peers(3, function)
    assert by_peer[0] == by_peer[1] == by_peer[2]
    default, ring = by_peer[0]
    assert {line.collective for line in default} == set(ABLE)
    assert [one.wrong for one in figures_of([*default, *ring])] == [0] * 24
    last = [line for line in default if line.size > 60_000]
    bits = {"float64": 64, "float32": 32}.get(dtype, 16)
    for one in figures_of(last):
        assert one.wire_ratio <= (9 if codec == "int8" else 5) / bits


def one_step_more(out: Any) -> None:
    out[7] += 1


def not_rounded(out: Any) -> None:
    """The right result, but too good."""
    out[:] = Data("float32", "sum", 2).reduced(out.size)


def half_lost(out: Any) -> None:
    out[out.size // 2 :] = 0


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("spoil", [one_step_more, not_rounded, half_lost])
@pytest.mark.parametrize("codec", ["int8", "e3m0"])
def test_another_result_is_wrong(run_peers: Any, codec: Any, spoil: Any, check: bool) -> None:
    plan = short("all_reduce", quantization=codec, min_bytes=4096, max_bytes=4096, check=check)

    def function(comm: pyccl.Communicator) -> list[Line]:
        return list(measure(Spoilt(comm, "all_reduce", spoil), plan))

    for one in figures_of(run_peers(2, function)[0]):
        assert (one.wrong is None) if not check else one.wrong
        assert one.wire_ratio < 0.3  # known all the same


@pytest.mark.parametrize("name", ABLE)
def test_each_collective_is_looked_at(run_peers: Any, name: str) -> None:
    plan = short(name, min_bytes=4096, max_bytes=4096, placement="out")

    def function(comm: pyccl.Communicator) -> list[Line]:
        spoilt = Spoilt(comm, name, one_step_more) if comm.rank == 1 else comm
        return list(measure(spoilt, plan))

    (line,) = run_peers(2, function)[0]
    assert line.wrong == 2  # in the first call, and in the one after the timed ones


def test_the_bound_finds_what_the_codec_itself_gets_wrong() -> None:
    data = QuantizedData("float32", "sum", 2, Quantization("int8"), "direct")
    want = np.full(4, 100, np.float32)
    plain = np.asarray([100, 101.5, 102, 103], np.float32)
    # Three roundings to steps of 1.
    assert data.wrong_by(want, want, plain, 1.5) == 2
    assert data.far(want * np.nan, plain, 1.5).all()


def test_who_is_alone_rounds_nothing(alone: pyccl.Communicator) -> None:
    lines = list(measure(alone, short("all_reduce", "all_gather", "broadcast")))
    assert [(one.wrong, one.wire_ratio) for one in figures_of(lines)] == [(0, 1.0)] * 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reduce"], "reduce can't be quantized, only all_reduce, all_gather, reduce_scatter"),
        (["barrier"], "barrier can't be quantized"),
        (["--dtype", "i32"], "int32 can't be quantized, only float32, float64, float16, bfloat16"),
        (["--op", "max"], "max can't be quantized, only sum and avg can"),
        (["--quantization", "int7"], "'int7' is not one of 'int8'"),
    ],
)
def test_what_cant_be_quantized_is_said(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(bench.command, ["--quantization", "int8", *arguments])
    assert done.exit_code in (1, 2)
    assert words in done.output


def test_the_command_measures_all_that_can_be_quantized(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["all", "-b", "64K", "-e", "64K", "--iters", "1", "--json", str(file)]
    done = CliRunner().invoke(bench.command, ["--quantization", "fp8_e4m3", *arguments])
    assert done.exit_code == 0, done.output
    assert "2 peers, quantization fp8_e4m3" in done.output
    assert "wire ratio     : 0.254 of unquantized float32" in done.output
    content = json.loads(file.read_text())
    assert content["quantization"] == "fp8_e4m3"
    assert {row["collective"] for row in content["rows"]} == set(ABLE)
    for row in content["rows"]:
        assert row["wire_ratio"] == pytest.approx(8.125 / 32)
        # Of the bytes of f32, not of those on the wire.
        assert row["algbw"] == pytest.approx(row["size"] / row["time_us"] / 1e3)


def test_nothing_is_said_of_wires_without_quantization() -> None:
    assert not any("wire" in text for text in report.summary([], Plan()))


@pytest.mark.parametrize("peers", [2, 3])
def test_the_simulated_ring_rounds_at_every_hop(peers: int) -> None:
    q = Quantization("int4", block=32)
    inputs = errors.inputs_of(peers, 32 * peers, 0.0, 1)
    found = errors.requantized(inputs, q)
    for first in range(peers):
        share = slice(32 * first, 32 * first + 32)
        partial = inputs[first][share]
        for hop in range(1, peers):
            partial = rounded(partial, q) + inputs[(first + hop) % peers][share]
        assert np.array_equal(found[share], rounded(partial, q) / np.float32(peers))


def test_errors_are_what_their_number_of_roundings_makes_them() -> None:
    peers = 6
    found = errors.measure(["int8", "fp4_e3m0"], peers, 1 << 16, 0.0, 0)
    times = {(one.codec, one.method): one.times_once for one in found}
    assert len(times) == 6
    for codec in ("int8", "fp4_e3m0"):
        assert times[codec, "direct"] == pytest.approx(np.sqrt(2), rel=0.05)
        assert times[codec, "ring"] == pytest.approx(1, rel=0.02)
        assert times[codec, "re-quantizing ring"] == pytest.approx(np.sqrt(7 / 2), rel=0.1)
    assert all(one.average_rms == pytest.approx(1 / np.sqrt(peers), rel=0.02) for one in found)


def test_the_errors_are_tabled_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / "errors.json", tmp_path / "errors.png"]
    arguments = ["--codec", "int4", "--peers", "2,3", "--elements", "4K", "--alike", "0.5"]
    arguments += ["--json", str(files[0]), "--plot", str(files[1])]
    done = CliRunner().invoke(script.main, ["errors", *arguments])
    assert done.exit_code == 0, done.output
    content = json.loads(files[0].read_text())
    kinds = [(one["peers"], one["method"]) for one in content["errors"]]
    assert kinds == [(peers, method) for peers in (2, 3) for method in errors.METHODS]
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_the_speed_of_each_way_is_tabled(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    arguments = ["--codec", "int8", "--sizes", "64K", "--peers", "2", "--transport", "tcp"]
    arguments += ["--repeats", "2", "--zstd", "--json", str(file)]
    done = CliRunner().invoke(script.main, ["speed", *arguments])
    assert done.exit_code == 0, done.output
    cells = json.loads(file.read_text())["cells"]
    assert [cell["way"] for cell in cells] == ["f32", "int8", "int8 zstd"]
    assert all(len(cell["seconds"]) == len(cell["cpu_seconds"]) == 2 for cell in cells)
    sent = [cell["wire_bytes"] for cell in cells]
    assert sent[0] == 2 << 16
    assert sent[2] <= sent[1] == sent[0] * 8.125 / 32


def test_a_cell_counts_the_bytes_that_f32_would_move() -> None:
    samples = [speed.Sample(1.0, 3.0, 10), speed.Sample(2.0, 6.0, 10), speed.Sample(4.0, 9.0, 10)]
    cell = speed.Cell("int8", 4, "tcp", 500_000_000, samples)
    assert cell.median == 2.0
    assert cell.cpu_per_gigabyte == pytest.approx(6.0 / 3.0)
    row = list(speed.table_of([speed.Cell("f32", 4, "tcp", 4, samples)], 4, "tcp").columns)
    assert [column.header for column in row][2:4] == ["ms: median (min-max)", "x f32"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["errors", "--peers", "1"], "nothing to send"),
        (["errors", "--codec", "int7"], "'int7' is not one of"),
        (["speed", "--sizes", "1M,x"], "'x' is no size"),
        (["speed", "--transport", "rdma"], "'rdma' is no transport"),
    ],
)
def test_bad_options_get_a_clear_error(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(script.main, arguments)
    assert done.exit_code == 2
    assert words in done.output
