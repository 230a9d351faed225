"""`pyccl bench` as people call it: local peers, a run that several commands join, and what happens
to the peers when one of them, or the command, is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyccl
from pyccl.cli.bench.collectives import COLLECTIVES

PYCCL = [sys.executable, "-m", "pyccl.cli", "bench"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
LIMIT_SECONDS = 60.0
# One line comes soon, the next one later than any test waits.
ENDLESS = ["-b", "8", "-e", "64M", "-f", str(8 << 20), "--iters", "1000", "--local", "3"]
ENDLESS += ["--placement", "in", "--no-check"]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PYCCL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out, err


@contextlib.contextmanager
def peers_of(process: subprocess.Popen[str]) -> Iterator[dict[int, int]]:
    """Handles of its three peers and their coordinator, by pid, once the run is under way."""
    assert process.stdout is not None
    while not re.match(r" +8 +2 +float32", line := process.stdout.readline()):
        assert line, finish(process)
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    handles = {int(pid): os.pidfd_open(int(pid)) for pid in text.split()}
    try:
        assert len(handles) == 4
        yield handles
    finally:
        for handle in handles.values():
            os.close(handle)


def await_death(handles: Iterable[int]) -> None:
    for handle in handles:
        # Readable once the process has ended.
        assert select.select([handle], [], [], LIMIT_SECONDS)[0], "a peer outlives the command"


def is_coordinator(pid: int) -> bool:
    return "coordinator" in Path(f"/proc/{pid}/cmdline").read_text()


def test_local_peers_are_measured_and_checked() -> None:
    arguments = ["all_reduce", "--local", "2", "-b", "8", "-e", "64K", "-f", "4", "--check"]
    with started(*arguments, "--iters", "3", "--json", "-") as process:
        status, out, err = finish(process)
    assert status == 0, err
    content = json.loads(out)
    assert content["peers"] == 2
    assert content["wrong"] == 0
    sizes = [8, 32, 128, 512, 2048, 8192, 32768]
    assert [row["size"] for row in content["rows"]] == [size for size in sizes for _ in range(2)]
    for row in content["rows"]:
        assert row["count"] == row["size"] // 4
        assert row["time_us"] > 0
        assert row["algbw"] == pytest.approx(row["size"] / row["time_us"] / 1e3)
        assert row["busbw"] == pytest.approx(row["algbw"])  # 2 (n - 1) / n is 1 with two peers
        assert row["wrong"] == 0
    assert "Wrong values        : 0 OK" in err  # the table, which makes room for the JSON


@pytest.mark.parametrize("name", sorted(COLLECTIVES))
def test_every_collective_is_right_and_counted(name: str, tmp_path: Path) -> None:
    method = "send" if name == "send_recv" else name
    if not hasattr(pyccl.Communicator, method):
        pytest.skip(f"a Communicator has no {method}")
    file = tmp_path / "figures.json"
    options = ["-b", "1K", "-e", "1M", "-f", "32", "--iters", "2", "--local", "3"]
    with started(name, *options, "--json", str(file)) as process:
        status, out, err = finish(process)
    assert status == 0, err
    assert f"# {name}" in out
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == {"all_reduce": 6, "barrier": 1}.get(name, 3)
    assert all(row["wrong"] == (None if name == "barrier" else 0) for row in rows)


def test_a_sync_of_the_same_states_moves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["-b", "8M", "-e", "8M", "--iters", "2", "--warmup", "0", "--dtype", "u8"]
    with started("sync", *options, "--same", "--json", str(file)) as process:
        status, _, err = finish(process)
    assert status == 0, err
    content = json.loads(file.read_text())
    assert content["same"]
    (row,) = content["rows"]
    assert (row["collective"], row["size"], row["wrong"]) == ("sync", 8 << 20, 0)


def test_several_commands_make_one_run(coordinator: pyccl.Coordinator) -> None:
    arguments = ["--coordinator", coordinator.address, "--world", "2", "--iters", "2"]
    arguments += ["barrier", "all_reduce", "-b", "1K", "-e", "1K"]
    with started(*arguments) as one, started(*arguments) as other:
        ends = [finish(one), finish(other)]
    assert [status for status, _, _ in ends] == [0, 0], ends
    quiet, loud = sorted(out for _, out, _ in ends)
    assert quiet == ""  # rank 0 prints, and nobody else
    assert "# barrier" in loud
    assert "# all_reduce" in loud


def test_commands_with_different_options_are_no_run(coordinator: pyccl.Coordinator) -> None:
    arguments = ["--coordinator", coordinator.address, "--world", "2", "-e", "1K", "--iters"]
    with started(*arguments, "2") as one, started(*arguments, "3") as other:
        ends = [finish(one), finish(other)]
    for status, _, err in ends:
        assert status == 1
        assert "started with different options" in err


def test_an_error_of_the_peers_is_said_in_one_line() -> None:
    with started("--op", "band", "--dtype", "float32") as process:
        status, _, err = finish(process)
    assert status == 1
    assert "InvalidArgumentError: array 0: band of f32 is not defined" in err
    assert "Traceback" not in err


def test_a_peer_that_is_killed_ends_the_run() -> None:
    with started(*ENDLESS) as process, peers_of(process) as handles:
        victim = next(pid for pid in handles if not is_coordinator(pid))
        os.kill(victim, signal.SIGKILL)
        status, _, err = finish(process)
        await_death(handles.values())
    assert status == 1
    assert "was ended by SIGKILL" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_peer_outlives_the_command(number: signal.Signals) -> None:
    with started(*ENDLESS) as process, peers_of(process) as handles:
        # As the terminal does it: Ctrl-C reaches everybody.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        status, _, err = finish(process)
        await_death(handles.values())
    assert status == (1 if number == signal.SIGINT else -number)
    assert "Traceback" not in err


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "busbw.png"
    options: list[Any] = ["-b", "1K", "-e", "64K", "-f", "8", "--iters", "2", "--plot", file]
    with started(*map(str, options)) as process:
        status, _, err = finish(process)
    assert status == 0, err
    assert file.read_bytes().startswith(b"\x89PNG")
