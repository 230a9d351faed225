"""What was measured, as tables and as JSON."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table

from comparison.cases import bytes_of, moved_bytes
from comparison.launch import Sample
from comparison.libraries import LIBRARIES
from pyccl.cli.bench.collectives import COLLECTIVES

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_COLUMNS = (
    "size", "library", "ms: median (min-max)", "busbw GB/s", "moved GB/s", "x Gloo", "x OpenMPI",
    "CPU s/GB", "n",
)  # fmt: skip


@dataclass
class Cell:
    """One library at one collective, size and number of peers."""

    collective: str
    library: str
    peers: int
    size: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The size, as far as it could be cut into equal blocks."""
        return bytes_of(self.collective, self.size, self.peers)

    @property
    def median(self) -> float:
        return statistics.median(one.seconds for one in self.samples)

    @property
    def algbw(self) -> float:
        return self.bytes / self.median / 1e9

    @property
    def busbw(self) -> float:
        return self.algbw * COLLECTIVES[self.collective].factor(self.peers)

    @property
    def moved(self) -> float:
        """1e9 bytes per second between all peers together: what can be held against the limits of
        the machine."""
        return moved_bytes(self.collective, self.bytes, self.peers) / self.median / 1e9

    @property
    def cpu_per_gigabyte(self) -> float:
        """Processor seconds, user and system, of all ranks together, per 1e9 bytes moved."""
        cpu = statistics.median(one.cpu_seconds for one in self.samples)
        return cpu / (self.moved * self.median)

    def to_json(self) -> dict[str, Any]:
        figures = {"median": self.median}
        if self.bytes:
            figures |= {name: getattr(self, name) for name in ("algbw", "busbw", "moved")}
            figures["cpu_per_gigabyte"] = self.cpu_per_gigabyte
        return {
            "collective": self.collective,
            "library": self.library,
            "peers": self.peers,
            "bytes": self.bytes,
            **figures,
            "seconds": [one.seconds for one in self.samples],
            "cpu_seconds": [one.cpu_seconds for one in self.samples],
        }


class Results:
    """All of it."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, int, int, str], Cell] = {}
        self.limits: dict[str, list[float]] = {}
        self.faults: list[str] = []

    def add(self, collective: str, peers: int, size: int, library: str, sample: Sample) -> None:
        self.cell(collective, peers, size, library).samples.append(sample)

    def cell(self, collective: str, peers: int, size: int, library: str) -> Cell:
        key = (collective, peers, size, library)
        return self.cells.setdefault(key, Cell(collective, library, peers, size))

    def add_limits(self, found: dict[str, float]) -> None:
        for name, value in found.items():
            self.limits.setdefault(name, []).append(value)

    def faster_than(self, cell: Cell, other: str) -> str:
        """How many times as fast as another library in the same place of the table."""
        found = self.cells.get((cell.collective, cell.peers, cell.size, other))
        if found is None or not found.samples or other == cell.library:
            return ""
        return f"{found.median / cell.median:.2f}"

    def to_json(self) -> dict[str, Any]:
        return {
            "processors": os.cpu_count(),
            "versions": {name: _version(name) for name in ("pyccl-ft", "torch", "openmpi")},
            "cells": [cell.to_json() for cell in self.cells.values() if cell.samples],
            "limits": self.limits,
            "faults": self.faults,
        }


def table_of(results: Results, collective: str, peers: int) -> Table:
    """One collective at one number of peers. OpenMPI's figure is that over the same medium; Gloo
    knows TCP only."""
    table = Table(title=f"{collective}, {peers} peers")
    for header in _COLUMNS:
        table.add_column(header, justify="left" if header in ("size", "library") else "right")
    previous = None
    for cell in results.cells.values():
        if (cell.collective, cell.peers) != (collective, peers):
            continue
        if previous not in (None, cell.size):
            table.add_section()
        size = "" if cell.size == previous else name_of_size(cell.bytes)
        previous = cell.size
        table.add_row(size, cell.library, *_figures(results, cell))
    return table


def _figures(results: Results, cell: Cell) -> list[str]:
    if not cell.samples:
        return ["none"]
    times = sorted(one.seconds for one in cell.samples)
    low, middle, high = (f"{1e3 * value:.3g}" for value in (times[0], cell.median, times[-1]))
    speed = ["", ""] if not cell.bytes else [f"{cell.busbw:.3f}", f"{cell.moved:.3f}"]
    mpi = f"mpi-{LIBRARIES[cell.library].medium}"
    ratios = [results.faster_than(cell, other) for other in ("gloo", mpi)]
    cpu = f"{cell.cpu_per_gigabyte:.3g}" if cell.bytes else ""
    return [f"{middle} ({low}-{high})", *speed, *ratios, cpu, str(len(times))]


def limits_table(results: Results) -> Table:
    """What the figures under "moved" can be held against."""
    table = Table("limit", title="the machine")
    table.add_column("GB/s: median (min-max)", justify="right")
    for name, values in results.limits.items():
        table.add_row(
            name, f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
        )
    return table


def name_of_size(size: int) -> str:
    for letter, unit in reversed(UNITS.items()):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {letter}iB"
    return f"{size} B"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
