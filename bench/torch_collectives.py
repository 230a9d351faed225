"""Collectives of torch.distributed on one host: the backend "pyccl" beside Gloo.

float32 tensors in CPU memory; sums where there is something to reduce. Each backend has processes
of its own, one per rank, that live as long as all rounds with that many ranks; cell by cell they
take turns, A B A B, while the other one's wait. A sample is a batch of calls between barriers,
behind one call whose result is checked and some to warm up; the mean at the slowest rank counts. A
figure is the median over the rounds, with the least and the most.

Sizes and busbw are those of nccl-tests: the size is that of the whole buffer, of which all_gather,
reduce_scatter and all_to_all give each rank one part. "x Gloo" is the ratio of both busbw, "bound"
what it should be at least; "-" stands where a backend has no such operation.

pyccl takes shared memory between ranks of one host, Gloo TCP over loopback.

    python bench/torch_collectives.py --ranks 2,4 --sizes 4K,1M,16M,256M --rounds 5 --json out.json
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click
from command_line import FILE, console_of, list_of, peers_of, write
from comparison import limits
from comparison.cases import unit_of
from comparison.launch import Sample
from comparison.libraries import Membership, torch_call
from comparison.rank import measure
from comparison.tables import Cell, Results, limits_table, name_of_size
from crew import RankError
from rich.table import Table
from synchronizing.tables import spread
from torch import distributed as dist
from torch_ranks import Ranks

from pyccl.cli.bench import size_of

BACKENDS = ("pyccl", "gloo")
NAMES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather_into_tensor",
    "all_to_all": "all_to_all_single",
    "reduce_scatter": "reduce_scatter_tensor",
}
"""What torch calls a collective."""

_LARGE_BYTES = 1 << 20
_BOUND_OF_LARGE = 1.1
_BOUND_OF_SMALL = 1.0
_COLUMNS = (
    "pyccl ms: median (min-max)", "Gloo ms: median (min-max)", "pyccl GB/s", "Gloo GB/s", "x Gloo",
    "bound", "",
)  # fmt: skip


def bound_of(size: int) -> float:
    """How many times Gloo's busbw is wanted of pyccl for a buffer of so many bytes."""
    return _BOUND_OF_LARGE if size >= _LARGE_BYTES else _BOUND_OF_SMALL


def ratio_of(results: Results, collective: str, ranks: int, size: int) -> float | None:
    """busbw of pyccl over that of Gloo; None: one of them has none."""
    ours, gloo = (results.cell(collective, ranks, size, backend) for backend in BACKENDS)
    return ours.busbw / gloo.busbw if ours.samples and gloo.samples else None


def measure_here(rank: int, ranks: int, collective: str, size: int) -> Sample | None:
    """At one rank: seconds of a call, and of the processor in this process; None: the backend has
    no such operation."""
    membership = Membership(rank, torch_call, dist.barrier)
    try:
        return Sample(**measure(membership, collective, size, ranks))
    except RuntimeError as error:
        # Raised by all ranks alike, before anything is sent.
        if "not support" in str(error):
            return None
        raise


def run_all(
    results: Results, ranks: list[int], sizes: list[int], rounds: int, limit: float, machine: bool
) -> None:
    """limit: seconds that one sample may take; machine: what it can do by itself, too. What fails
    ends the rounds with that many ranks, and is kept in the results."""
    for count in ranks:
        cells = [(name, size) for name in NAMES for size in sizes]
        for name, size in cells:
            for backend in BACKENDS:
                results.cell(name, count, size, backend)
        try:
            with contextlib.ExitStack() as stack:
                groups = {
                    backend: stack.enter_context(Ranks(backend, count, limit))
                    for backend in BACKENDS
                }
                for turn in range(rounds):
                    if machine:
                        results.add_limits(limits.sample())
                    for name, size in cells:
                        text = f"{count} ranks, round {turn + 1} of {rounds}: {name}, "
                        print(text + name_of_size(size), file=sys.stderr)
                        for backend, group in groups.items():
                            found = group.run(measure_here, name, size)
                            if None not in found:
                                sample = _of_all(found)
                                results.add(name, count, size, backend, sample)
        except RankError as error:
            results.faults.append(f"{count} ranks: {error}")
            print(results.faults[-1], file=sys.stderr)


def _of_all(found: list[Sample]) -> Sample:
    return Sample(max(one.seconds for one in found), sum(one.cpu_seconds for one in found))


def table_of(results: Results, ranks: int, sizes: list[int]) -> Table:
    table = Table(title=f"torch.distributed, {ranks} ranks")
    table.add_column("")
    table.add_column("size")
    for header in _COLUMNS:
        table.add_column(header, justify="right")
    for name, of_torch in NAMES.items():
        table.add_section()
        for size in sizes:
            cells = [results.cell(name, ranks, size, backend) for backend in BACKENDS]
            ratio, bound = ratio_of(results, name, ranks, size), bound_of(size)
            table.add_row(
                of_torch if size == sizes[0] else "",
                name_of_size(cells[0].bytes),
                *(_times(cell) for cell in cells),
                *(f"{cell.busbw:.3f}" if cell.samples else "-" for cell in cells),
                "-" if ratio is None else f"{ratio:.2f}",
                f"{bound:g}",
                "" if ratio is None else "met" if ratio >= bound else "missed",
            )
    return table


def _times(cell: Cell) -> str:
    return spread(1e3 * one.seconds for one in cell.samples) if cell.samples else "-"


def bounds_to_json(results: Results, ranks: list[int], sizes: list[int]) -> list[dict[str, Any]]:
    """Each ratio beside its bound."""
    return [
        {
            "collective": name,
            "peers": count,
            "bytes": size,
            "ratio": ratio_of(results, name, count, size),
            "bound": bound_of(size),
        }
        for count in ranks
        for name in NAMES
        for size in sizes
    ]


def _size(text: str) -> int:
    size = size_of(text)
    if size % 4:
        raise ValueError(f"{text!r} is no multiple of 4 bytes")
    return size


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--ranks", callback=list_of(peers_of), default="2,4", show_default=True)
@click.option("--sizes", callback=list_of(_size), default="4K,1M,16M,256M", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--limits", "machine", is_flag=True, help="What the machine itself can do, too.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True,
    help="Seconds that one sample may take.",
)  # fmt: skip
@click.option("--json", "file", type=FILE, metavar="FILE", help="Write all samples there.")
def main(
    ranks: list[int],
    sizes: list[int],
    rounds: int,
    machine: bool,
    timeout: float,
    file: Path | None,
) -> None:
    if min(sizes) < max(unit_of(name, max(ranks)) for name in NAMES):
        raise click.BadParameter("a size has less than one element for each rank")
    results = Results()
    try:
        run_all(results, ranks, sizes, rounds, timeout, machine)
    except KeyboardInterrupt:
        # What is known by then is worth a table.
        results.faults.append("interrupted")
    console = console_of(140)
    for count in ranks:
        console.print(table_of(results, count, sizes))
    if results.limits:
        console.print(limits_table(results))
    write(file, {**results.to_json(), "bounds": bounds_to_json(results, ranks, sizes)})
    if results.faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
