"""One launch: fresh processes of one library, one collective, all sizes."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from comparison.libraries import LIBRARIES, search_path

_PR_SET_PDEATHSIG = 1
_BENCH = Path(__file__).resolve().parents[1]


class Sample(NamedTuple):
    """What one launch gave for one size."""

    seconds: float
    """Of a call, at the slowest rank."""
    cpu_seconds: float
    """Of a call, at all ranks together."""


def launch(
    library: str, collective: str, ranks: int, sizes: list[int], args: argparse.Namespace
) -> dict[int, Sample]:
    """Samples by size; raises RuntimeError if a rank fails or the time is up."""
    paths = os.pathsep.join([str(_BENCH), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": search_path(), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    deadline = time.monotonic() + args.timeout
    processes: list[subprocess.Popen[bytes]] = []
    with _meeting_point(library) as address, tempfile.TemporaryDirectory() as results:
        try:
            rank = _rank_command(library, collective, ranks, sizes, args)
            rank += ["--address", address, "--results", results]
            for command in _commands(library, ranks, rank):
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=sys.stderr if args.verbose else subprocess.DEVNULL,
                        stderr=None if args.verbose else subprocess.DEVNULL,
                        start_new_session=True,
                        preexec_fn=_die_with_parent,
                    )
                )
            _await_all(processes, deadline)
            return _read(Path(results), ranks)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _rank_command(
    library: str, collective: str, ranks: int, sizes: list[int], args: argparse.Namespace
) -> list[str]:
    command = [sys.executable, "-m", "comparison.rank", *(str(size) for size in sizes)]
    command += ["--library", library, "--collective", collective, "--ranks", str(ranks)]
    command += ["--connections", str(args.connections), "--spin-us", str(args.spin_us)]
    return [*command, "--algorithm", args.algorithm] if args.algorithm else command


def _commands(library: str, ranks: int, rank: list[str]) -> list[list[str]]:
    """The processes of one launch."""
    if LIBRARIES[library].kind != "mpi":
        return [[*rank, "--rank", str(number)] for number in range(ranks)]
    options = ["--map-by :OVERSUBSCRIBE", "--bind-to none", "--allow-run-as-root"]
    if LIBRARIES[library].medium == "tcp":
        options += ["--mca btl tcp,self", "--mca pml ob1", "--mca btl_tcp_if_include lo"]
    return [["mpirun", "-n", str(ranks), *" ".join(options).split(), *rank]]


def _await_all(processes: list[subprocess.Popen[bytes]], deadline: float) -> None:
    """Waits for every process, or for the first one that fails: the others may wait for it."""
    left = list(processes)
    while left:
        if time.monotonic() > deadline:
            raise RuntimeError("the time is up")
        with contextlib.suppress(subprocess.TimeoutExpired):
            left[0].wait(timeout=0.1)
        for process in left:
            if process.poll():
                raise RuntimeError(f"a rank ended with {process.returncode}; see --verbose")
        left = [process for process in left if process.returncode is None]


def _read(results: Path, ranks: int) -> dict[int, Sample]:
    measured = [
        json.loads((results / f"rank-{rank}.json").read_text(encoding="utf-8"))
        for rank in range(ranks)
    ]
    return {
        int(size): Sample(
            max(one[size]["seconds"] for one in measured),
            sum(one[size]["cpu_seconds"] for one in measured),
        )
        for size in measured[0]
    }


@contextlib.contextmanager
def _meeting_point(library: str) -> Iterator[str]:
    """The address where the ranks of one launch find each other."""
    if LIBRARIES[library].kind == "pyccl":
        import pyccl

        with pyccl.Coordinator("127.0.0.1:0") as coordinator:
            yield coordinator.address
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        yield f"127.0.0.1:{port}"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
