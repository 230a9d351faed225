"""How long quantized all-reduces take beside those of plain f32, in turn among the same peers."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from comparison.cases import moved_bytes
from comparison.tables import name_of_size
from rich.table import Table

import pyccl
from pyccl import Quantization
from pyccl.testing import LocalCluster

PLAIN = "f32"
_BATCH_BYTES = 2**26
_LIMIT_SECONDS = 600.0

Ways = dict[str, Quantization | None]


class Sample(NamedTuple):
    """One batch of one way: of a call."""

    seconds: float
    cpu_seconds: float
    wire_bytes: int


@dataclass(frozen=True)
class Cell:
    """One way at one size, number of peers and transport; its samples are of all peers together,
    with the time of the slowest."""

    way: str
    peers: int
    transport: str
    size: int
    samples: list[Sample]

    @property
    def median(self) -> float:
        return statistics.median(one.seconds for one in self.samples)

    @property
    def cpu_per_gigabyte(self) -> float:
        """Processor seconds, user and system, of all peers per 1e9 bytes that plain f32 moves."""
        cpu = statistics.median(one.cpu_seconds for one in self.samples)
        return 1e9 * cpu / moved_bytes("all_reduce", self.size, self.peers)

    def to_json(self) -> dict[str, Any]:
        return {
            "way": self.way,
            "peers": self.peers,
            "transport": self.transport,
            "bytes": self.size,
            "median": self.median,
            "wire_bytes": self.samples[-1].wire_bytes,
            "cpu_per_gigabyte": self.cpu_per_gigabyte,
            "seconds": [one.seconds for one in self.samples],
            "cpu_seconds": [one.cpu_seconds for one in self.samples],
        }


def ways_of(codecs: Iterable[str], zstd: bool) -> Ways:
    """What is measured, by name: f32, each codec and, with `zstd`, each compressed once more."""
    ways: Ways = {PLAIN: None}
    for codec in codecs:
        plain = Quantization(codec)  # type: ignore[arg-type]
        ways[codec] = plain
        if zstd:
            ways[f"{codec} zstd"] = dataclasses.replace(plain, lossless="zstd")
    return ways


def measure(ways: Ways, peers: int, transport: str, size: int, repeats: int) -> list[Cell]:
    """All ways in turn, `repeats` times, among processes that live as long as that."""
    with LocalCluster(
        peers,
        measure_here,
        (ways, size // 4, repeats),
        connect={"transport": transport},
        timeout=_LIMIT_SECONDS,
    ) as cluster:
        by_peer = list(cluster.results().values())
    cells = []
    for way in ways:
        samples = [
            Sample(
                max(one.seconds for one in here),
                sum(one.cpu_seconds for one in here),
                sum(one.wire_bytes for one in here),
            )
            for here in zip(*([Sample(*one) for one in peer[way]] for peer in by_peer), strict=True)
        ]
        cells.append(Cell(way, peers, transport, size, samples))
    return cells


def measure_here(
    comm: pyccl.Communicator, index: int, ways: Ways, count: int, repeats: int
) -> dict[str, list[tuple[float, float, int]]]:
    """One peer's samples, by way."""
    # Not zeros, which zstd would make nothing of.
    x = np.random.default_rng(index).standard_normal(count, np.float32)
    out = np.zeros_like(x)
    calls = max(1, min(100, _BATCH_BYTES // (4 * count)))
    samples: dict[str, list[tuple[float, float, int]]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, quantization in ways.items():
            comm.barrier()
            cpu_before = _cpu_seconds()
            began = time.perf_counter()
            for _ in range(calls):
                info = comm.all_reduce(x, out=out, quantization=quantization)
            seconds = (time.perf_counter() - began) / calls
            # What a peer does for the others after its own last call is a cost, too.
            comm.barrier()
            cpu_seconds = (_cpu_seconds() - cpu_before) / calls
            if turn:  # the first one warms up
                # As a plain tuple: this module may have another name where it was started.
                samples[way].append((seconds, cpu_seconds, info.bytes_sent))
    return samples


def table_of(cells: Iterable[Cell], peers: int, transport: str) -> Table:
    """One number of peers over one transport."""
    table = Table(title=f"all_reduce, {peers} peers, {transport}")
    columns = ("ms: median (min-max)", "x f32", "sent MiB", "sent, of f32", "CPU s/GB", "n")
    for header in ("size", "", *columns):
        table.add_column(header, justify="right" if header in columns else "left")
    plain: Cell | None = None
    for cell in cells:
        if (cell.peers, cell.transport) != (peers, transport):
            continue
        if cell.way == PLAIN:
            if plain is not None:
                table.add_section()
            plain = cell
        assert plain is not None
        size = name_of_size(cell.size) if cell is plain else ""
        table.add_row(size, cell.way, *_figures(cell, plain))
    return table


def _figures(cell: Cell, plain: Cell) -> list[str]:
    times = [one.seconds for one in cell.samples]
    low, middle, high = (f"{1e3 * value:.3g}" for value in (min(times), cell.median, max(times)))
    wire = cell.samples[-1].wire_bytes
    return [
        f"{middle} ({low}-{high})",
        f"{plain.median / cell.median:.2f}",
        f"{wire / 2**20:.3g}",
        f"{wire / plain.samples[-1].wire_bytes:.3f}",
        f"{cell.cpu_per_gigabyte:.3g}",
        str(len(times)),
    ]


def _cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
