"""What was measured of shared state, as tables and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.table import Table


class Sample(NamedTuple):
    """One sync, or what stands beside it."""

    seconds: float
    """At the peer that lacks something."""
    wire_bytes: int = 0
    """Payload that all peers sent."""
    cpu_seconds: float = 0.0
    """Of all peers, user and system."""


@dataclass
class Row:
    """One way of doing something."""

    name: str
    bytes: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(one.seconds for one in self.samples)

    @property
    def speed(self) -> float:
        """1e9 bytes of the state per second."""
        return self.bytes / self.median / 1e9

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "bytes": self.bytes,
            "median": self.median,
            "samples": [one._asdict() for one in self.samples],
        }


def spread(values: Iterable[float]) -> str:
    """median (least-most), with as many digits as mean something."""
    known = sorted(values)
    low, middle, high = (
        f"{one:.0f}" if one >= 1000 else f"{one:.3g}"
        for one in (known[0], statistics.median(known), known[-1])
    )
    return f"{middle} ({low}-{high})"


def figures(values: Iterable[float]) -> str:
    """As spread(); a single one by itself."""
    known = list(values)
    return spread(known) if len(known) > 1 else spread(known).partition(" ")[0]


def table_of(title: str, rows: Sequence[Row], beside: str | None = None) -> Table:
    """beside: the row whose time the others' are given in, too."""
    unit = next((row for row in rows if row.name == beside and row.samples), None)
    table = Table("", title=title)
    ratio = [] if unit is None else [f"x {unit.name}"]
    for header in ("ms: median (min-max)", "GB/s", *ratio, "wire MiB", "CPU s", "n"):
        table.add_column(header, justify="right")
    for row in rows:
        times = spread(1e3 * one.seconds for one in row.samples)
        ratio = [] if unit is None else [f"{row.median / unit.median:.2f}"]
        wire = statistics.median(one.wire_bytes for one in row.samples) / 2**20
        cpu = statistics.median(one.cpu_seconds for one in row.samples)
        figures = (f"{row.speed:.3g}", *ratio, f"{wire:.4g}" if wire else "", f"{cpu:.3g}")
        table.add_row(row.name, times, *figures, str(len(row.samples)))
    return table
