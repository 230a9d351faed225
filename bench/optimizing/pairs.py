"""How long an exchange of pairs takes among more and more peers, beside an all-reduce of them all:
in the simulator, whose links have the same delay everywhere and whose processors cost nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

WAYS = {
    "pairs exchange": ("--kind", "exchange"),
    "all-reduce, as chosen": ("--kind", "all_reduce"),
    "all-reduce, ring": ("--algorithm", "ring"),
}


class Took(NamedTuple):
    """Milliseconds, from the call to its end at the last peer."""

    ms: float
    algorithm: str


def simulator() -> Path | None:
    """The newest that a build folder of the tree holds."""
    root = Path(__file__).parents[2]
    built = [one for one in root.glob("build*/**/pyccl_sim") if one.is_file()]
    return max(built, key=lambda one: one.stat().st_mtime, default=None)


def measure(program: Path, way: str, peers: int, size: int, delay_ms: float, mbit: float) -> Took:
    """The last of two rounds, in which links are known. size: bytes of each peer."""
    command = [str(program), "trial", *WAYS[way]]
    for name, value in {
        "peers": peers, "bytes": size, "latency-ms": delay_ms, "mb-per-s": mbit / 8,
    }.items():  # fmt: skip
        command += [f"--{name}", str(value)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = said.splitlines()[-1].split()
    return Took(float(row[4]), row[0])


def table_of(took: dict[str, dict[int, Took]], title: str) -> Table:
    peers = list(next(iter(took.values())))
    table = Table("ms", *(f"{one} peers" for one in peers), title=title)
    for way, by_peers in took.items():
        table.add_row(way, *(f"{one.ms:.0f} {one.algorithm}" for one in by_peers.values()))
    return table
