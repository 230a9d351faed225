"""`pyccl bench` without processes: sizes, factors, the table, and that a wrong result is found.

The adapters run against a group of threads whose collectives are made of numpy.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import pyccl
import pyccl.cli.bench as bench
from pyccl.cli.bench import moved, plot, report
from pyccl.cli.bench.collectives import COLLECTIVES
from pyccl.cli.bench.data import DTYPES, Data
from pyccl.cli.bench.measure import Figures, GroupChangedError, Line, Plan, measure
from pyccl.errors import InvalidArgumentError

LIMIT_SECONDS = 30.0
UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "bxor": np.bitwise_xor}


class FalseGroup:
    """Peers on threads that pass their arrays over a table."""

    def __init__(self, world: int, spoil: Callable[[str, int, Any], None] | None = None) -> None:
        self.world = world
        self.spoil = spoil
        """Is given the name of each collective, the rank and its result."""
        self.members_left = world
        self.digest = ""
        """What syncs say of their result, if not the truth."""
        self.comms: Callable[[int], Any] = lambda rank: FalseComm(self, rank)
        self._meeting = threading.Barrier(world, timeout=LIMIT_SECONDS)
        self._table: list[Any] = [None] * world

    def all_see(self, rank: int, value: Any) -> list[Any]:
        """What every peer brings, copied."""
        self._table[rank] = np.copy(value)
        self._meeting.wait()
        seen = list(self._table)
        self._meeting.wait()
        return seen

    def run(self, plan: Plan) -> list[list[Line]]:
        """What measure() gives at each peer. Raises what one of them raised."""
        lines: list[list[Line]] = [[] for _ in range(self.world)]
        errors: list[BaseException] = []

        def peer(rank: int) -> None:
            try:
                lines[rank] = list(measure(self.comms(rank), plan))
            except BaseException as error:
                errors.append(error)
                self._meeting.abort()

        threads = [
            threading.Thread(target=peer, args=(rank,), daemon=True) for rank in range(self.world)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_SECONDS)
        if errors:
            raise errors[0]
        return lines


class FalseComm:
    """One peer of it, with the signatures of a Communicator."""

    def __init__(self, group: FalseGroup, rank: int) -> None:
        self._group = group
        self.rank = rank
        self.world_size = group.world
        self.lacked: list[int] = []
        self.revisions: list[list[int]] = []

    def _put(self, name: str, out: Any, value: Any) -> None:
        out[...] = np.reshape(value, np.shape(out))
        if self._group.spoil is not None:
            self._group.spoil(name, self.rank, out)

    def _reduced(self, x: Any, op: str) -> Any:
        every = self._group.all_see(self.rank, x)
        if op == "avg":
            return (np.add.reduce([one.astype(np.float64) for one in every]) / len(every)).astype(
                x.dtype
            )
        result = every[0]
        for one in every[1:]:
            result = UFUNCS[op](result, one)
        return result

    def all_reduce(self, x: Any, *, op: str = "sum", out: Any = None) -> Any:
        self._put("all_reduce", x if out is None else out, self._reduced(x, op))
        return SimpleNamespace(world_size=self._group.members_left)

    def reduce(self, x: Any, root: int = 0, *, op: str = "sum") -> None:
        result = self._reduced(x, op)
        if self.rank == root:
            self._put("reduce", x, result)

    def reduce_scatter(self, x: Any, *, op: str = "sum", out: Any) -> None:
        self._put("reduce_scatter", out, self._reduced(x, op)[self.rank])

    def all_gather(self, x: Any, *, out: Any) -> None:
        self._put("all_gather", out, self._group.all_see(self.rank, x))

    def all_to_all(self, x: Any, out: Any) -> None:
        assert x.shape[0] % self.world_size == 0
        every = self._group.all_see(self.rank, x.reshape(self.world_size, -1))
        self._put("all_to_all", out, [one[self.rank] for one in every])

    def broadcast(self, x: Any, root: int = 0) -> None:
        self._put("broadcast", x, self._group.all_see(self.rank, x)[root])

    def gather(self, x: Any, root: int = 0, out: Any = None) -> None:
        every = self._group.all_see(self.rank, x)
        assert (out is not None) == (self.rank == root)
        if self.rank == root:
            self._put("gather", out, every)

    def scatter(self, x: Any, root: int = 0, out: Any = None) -> None:
        assert x.shape[0] == self.world_size
        self._put("scatter", out, self._group.all_see(self.rank, x)[root][self.rank])

    def send(self, x: Any, to: int, tag: int, *, async_op: bool) -> Any:
        assert async_op
        assert to == (self.rank + 1) % self.world_size
        self._sent = x
        return SimpleNamespace(wait=lambda: None)

    def recv(self, x: Any, source: int, tag: int) -> None:
        self._put("send_recv", x, self._group.all_see(self.rank, self._sent)[source])

    def exchange(self, x: Any, out: Any, peer: int, tag: int = 0) -> None:
        self._put("exchange", out, self._group.all_see(self.rank, x)[peer])

    def sync(self, state: pyccl.SharedState, *, progress: Any) -> Any:
        """Rank 0 has what counts."""
        x = state["x"]
        self.lacked.append(int(np.count_nonzero(x != self._group.all_see(self.rank, x)[0])))
        revisions = self._group.all_see(self.rank, state.revision)
        self.revisions.append([int(one) for one in revisions])
        state.revision = int(revisions[0])
        if progress is not None:
            progress(x.nbytes // 2, x.nbytes)
        self._put("sync", x, self._group.all_see(self.rank, x)[0])
        return SimpleNamespace(digest=self._group.digest or state.digest())

    def barrier(self) -> None:
        self._group.all_see(self.rank, 0)


def short(*names: str, **options: Any) -> Plan:
    settings = {"min_bytes": 100, "max_bytes": 5000, "step_factor": 7, "iters": 2, "warmup": 1}
    return Plan(names, **{**settings, **options})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8", 8),
        ("64K", 65536),
        ("1.5k", 1536),
        ("128M", 1 << 27),
        ("2GiB", 2 << 30),
        ("4 KB", 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert bench.size_of(text) == size


@pytest.mark.parametrize("text", ["", "K", "3x", "-8", "1e6", "0", "0.5", "8 8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        bench.size_of(text)


def test_the_busbw_factors_are_those_of_nccl_tests() -> None:
    factors = {name: one.factor(4) for name, one in COLLECTIVES.items()}
    assert factors == {
        "all_reduce": 1.5, "all_gather": 0.75, "reduce_scatter": 0.75, "all_to_all": 0.75,
        "gather": 0.75, "scatter": 0.75, "broadcast": 1, "reduce": 1, "send_recv": 1,
        "exchange": 1, "sync": 1, "barrier": 1,
    }  # fmt: skip


def test_a_size_is_that_of_all_blocks_and_a_count_that_of_one() -> None:
    steps = Plan(("all_reduce", "all_gather"), 8, 100, 2).steps(4)
    assert [(step.collective.name, step.size, step.count) for step in steps] == [
        ("all_reduce", 8, 2), ("all_reduce", 16, 4), ("all_reduce", 32, 8), ("all_reduce", 64, 16),
        ("all_gather", 16, 1), ("all_gather", 32, 2), ("all_gather", 64, 4),
    ]  # fmt: skip


def test_every_element_type_and_collective_has_its_expectation() -> None:
    for dtype in DTYPES:
        data = Data(dtype, "sum", 3)
        x = data.given(1, 1000)
        assert x.dtype.name == dtype
        # As whole numbers: no sum is ever rounded.
        whole = sum(data.given(rank, 1000).astype(np.int64) for rank in range(3))
        wrapped = np.asarray(whole).astype(np.int64).astype(x.dtype)
        assert np.array_equal(data.reduced(1000), wrapped)
        assert np.array_equal(data.given(1, 1000, at=300)[:700], x[300:])


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", sorted(COLLECTIVES))
def test_each_adapter_calls_its_collective_and_finds_it_right(name: str, world: int) -> None:
    every = FalseGroup(world if name != "exchange" else 2).run(short(name, root=1))
    for lines in every:
        assert [line.wrong for line in lines] == [0] * len(lines)
        assert {line.collective for line in lines} == {name}
    assert len(every[0]) == (1 if name == "barrier" else 3)
    # All peers know the same figures, as those of the slowest.
    assert all(lines == every[0] for lines in every)


@pytest.mark.parametrize(
    ("dtype", "op"),
    [
        (dtype, op)
        for dtype in ("float16", "bfloat16", "float64", "int8", "uint64")
        for op in ("sum", "prod", "max", "avg" if "float" in dtype else "bxor")
    ],
)
def test_reductions_are_compared_in_every_type(dtype: str, op: str) -> None:
    lines = FalseGroup(4).run(short("all_reduce", "reduce_scatter", dtype=dtype, op=op))[0]
    assert sum(line.wrong for line in lines) == 0


@pytest.mark.parametrize("name", sorted(set(COLLECTIVES) - {"barrier"}))
def test_a_planted_wrong_element_is_found(name: str) -> None:
    # At one peer only, so that not only rank 0 looks.
    culprit = 0 if name in ("reduce", "gather") else 1

    def spoil(called: str, rank: int, result: Any) -> None:
        if called == name and rank == culprit and result.dtype != np.float64:
            result.reshape(-1)[-1] += 1

    plan = short(name, min_bytes=4000, max_bytes=4000, placement="out")
    (line,) = FalseGroup(2, spoil).run(plan)[0]
    assert line.wrong == 2  # in the first call, and in the one after the timed ones
    (line,) = FalseGroup(2, spoil).run(short(name, min_bytes=4000, max_bytes=4000, check=False))[0]
    assert all(one.wrong is None for one in line.figures.values())


def test_elements_that_were_never_written_are_found() -> None:
    class Lazy(FalseComm):
        def all_gather(self, x: Any, *, out: Any) -> None:
            self._group.all_see(self.rank, x)

    group = FalseGroup(2)
    comms = [Lazy(group, rank) for rank in range(2)]
    found: list[list[Line]] = [[], []]
    plan = short("all_gather", min_bytes=800, max_bytes=800)
    threads = [
        threading.Thread(target=lambda r=rank: found[r].extend(measure(comms[r], plan)))
        for rank in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert found[0][0].wrong == 2 * 2 * 200


@pytest.mark.parametrize("same", [False, True])
def test_the_last_peer_lacks_every_block_of_a_sync_unless_all_are_to_be_the_same(
    same: bool,
) -> None:
    group = FalseGroup(3)
    comms = [FalseComm(group, rank) for rank in range(3)]
    group.comms = lambda rank: comms[rank]
    size = 3 * (1 << 20) + 5
    plan = short("sync", min_bytes=size, max_bytes=size, dtype="uint8", iters=3, same=same)
    (line,) = group.run(plan)[0]
    assert line.wrong == 0
    # The first call and the last one are checked, the one before the timed ones warms up.
    assert [comm.lacked for comm in comms[:2]] == [[0] * 6] * 2
    if same:
        assert comms[2].lacked == [0] * 6
        assert all(len(set(each)) == 1 for each in comms[0].revisions)
    else:
        # All bytes where the result was spoiled, else one of each block.
        assert all(each == 4 or each > size // 2 for each in comms[2].lacked)
        assert sorted(comms[2].lacked)[:3] == [4, 4, 4]
        assert all(each[0] == each[1] == each[2] + 1 for each in comms[0].revisions)


def test_a_sync_that_names_another_digest_is_wrong() -> None:
    group = FalseGroup(2)
    group.digest = "0" * 32
    (line,) = group.run(short("sync", min_bytes=800, max_bytes=800))[0]
    assert line.wrong == 2 * 2  # at each peer, in both of the calls that are checked


def test_a_sync_is_watched_only_if_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(moved.time, "monotonic", lambda: now)
    told: list[moved.Moved] = []
    watch = moved.Watch(told.append)
    watch.begin()
    for at in (100.9, 101.1, 101.2, 101.7):
        now = at
        watch(int(at * 10), 2000)
    assert told == [(1011, 2000), (1017, 2000)]
    watch.begin()
    watch(1, 2000)
    assert len(told) == 2


def test_how_far_a_sync_is_stands_below_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: False)
    assert report.Screen(3, sys.stdout).tell is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert report.Screen(3, sys.stdout, quiet=True).tell is None
    screen = report.Screen(3, sys.stdout)
    assert screen.tell is not None
    _, task = screen._progress.tasks
    assert not task.visible
    screen.tell(moved.Moved(5 << 20, 8 << 20))
    assert (task.visible, task.completed, task.total) == (True, 5, 8)
    screen.add(LINES[0])
    assert not task.visible


def test_no_number_is_no_average() -> None:
    data = Data("float32", "avg", 3)
    want = data.reduced(10)
    near = want * np.float32(1 + 2**-23)
    assert data.wrong(near, want) == 0
    near[3], near[4] = np.nan, near[4] + 1
    assert data.wrong(near, want) == 2


def test_a_group_that_shrinks_ends_the_run() -> None:
    group = FalseGroup(3)
    group.members_left = 2
    with pytest.raises(GroupChangedError, match="2 of 3 members left"):
        group.run(short("all_reduce"))


def test_what_a_plan_cannot_do_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match="needs at least 2 peers"):
        Plan(("exchange",)).steps(1)
    with pytest.raises(InvalidArgumentError, match="the root is 3, but there are 3 peers"):
        Plan(("broadcast",), root=3).steps(3)


LINES = [
    Line(
        "all_reduce", 65536, 16384, "float32", "sum", -1,
        {"out": Figures(1e-4, 0.65536, 0.98304, 0), "in": Figures(2e-2, 0.0032768, 0.0049152, 7)},
    ),
    Line("broadcast", 1024, 256, "float32", "none", 0, {"in": Figures(5e-6, 0.2048, 0.2048, None)}),
    Line("barrier", 0, 0, "none", "none", -1, {"out": Figures(1e-5, 0, 0, None)}),
]  # fmt: skip


def test_the_table_has_the_columns_of_nccl_tests() -> None:
    head = report.heading("all_reduce")
    assert head[1].split() == ["#", "out-of-place", "in-place"]
    figures = ["time", "algbw", "busbw", "#wrong"]
    assert head[2].split() == ["#", "size", "count", "type", "redop", "root", *figures, *figures]
    rows = [report.row(line) for line in LINES]
    assert rows[0].split() == [
        "65536", "16384", "float32", "sum", "-1", "100.0", "0.655", "0.983", "0",
        "20000", "0.003", "0.005", "7",
    ]  # fmt: skip
    assert rows[1].split()[5:] == ["5.00", "0.205", "0.205", "N/A"]
    assert rows[2].split()[5:] == ["10.00", "-", "-", "N/A"]
    # What stands only in place stands under its title, and all ends under its name.
    assert rows[1].index("5.00") > head[2].index("#wrong")
    assert len(rows[0]) == len(rows[1]) == len(head[2])


def test_the_summary_says_whether_all_was_right() -> None:
    plan = Plan()
    assert report.summary(LINES, plan)[0].endswith(": 7 WRONG")
    assert report.summary(LINES[1:], plan)[0].endswith(": 0 OK")
    assert report.summary(LINES[1:], Plan(check=False))[0].endswith(": not checked")
    assert report.summary(LINES[1:], plan)[1].endswith(": 0.205 GB/s")


def test_json_holds_every_figure() -> None:
    content = report.to_json(LINES, Plan(iters=3), {"peers": 4, "connect": {"spin_us": 5}})
    assert (content["peers"], content["iters"], content["wrong"]) == (4, 3, 7)
    assert "slowest" in content["timing"]
    assert len(content["rows"]) == 4
    assert content["rows"][1] == {
        "collective": "all_reduce", "size": 65536, "count": 16384, "dtype": "float32", "op": "sum",
        "root": -1, "placement": "in-place", "time_us": 20000.0, "algbw": 0.0032768,
        "busbw": 0.0049152, "wrong": 7, "wire_ratio": 1.0,
    }  # fmt: skip


def test_a_plot_is_written(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "busbw.png"
    plot.draw(LINES, "a title", file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert set(plot.curves(LINES)) == {"all_reduce", "all_reduce, in place", "broadcast, in place"}


def test_without_matplotlib_it_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = CliRunner().invoke(bench.command, ["--plot", "x.png"])
    assert done.exit_code == 1
    assert "pip install pyccl-ft[plot]" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all-of-them"], "there is no collective 'all-of-them'"),
        (["-b", "3x"], "is no size"),
        (["-b", "2M", "-e", "1M"], "--min-bytes is more than --max-bytes"),
        (["--coordinator", "localhost:1"], "--coordinator goes with --world"),
        (["--world", "2"], "--world goes with --coordinator"),
        (["--local", "2", "--coordinator", "localhost:1", "--world", "2"], "not with --local"),
        (["--dtype", "f8"], "f8"),
        (["--json", "/no/such/folder/x.json"], "there is no folder for"),
        (["broadcast", "--local", "2", "--root", "2"], "the root is 2"),
        (["send-recv", "--local", "1"], "send_recv needs at least 2 peers"),
    ],
)
def test_bad_options_get_a_clear_error(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(bench.command, arguments)
    assert done.exit_code in (1, 2)
    assert words in done.output
    assert "Traceback" not in done.output


def test_wrong_results_end_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_local(*_: Any) -> Any:
        yield LINES[0]

    monkeypatch.setattr(bench, "run_local", run_local)
    done = CliRunner().invoke(bench.command, ["-b", "64K", "-e", "64K"])
    assert done.exit_code == 1
    assert "7 WRONG" in done.output


def test_names_of_collectives_are_taken_as_people_write_them() -> None:
    context = click.Context(bench.command)
    (argument,) = (one for one in bench.command.params if one.name == "collectives")
    assert bench._collectives(context, argument, ("all-reduce", "sendrecv")) == (
        "all_reduce", "send_recv"
    )  # fmt: skip
    assert bench._collectives(context, argument, ("all",)) == tuple(COLLECTIVES)
    assert bench._collectives(context, argument, ()) == ("all_reduce",)
