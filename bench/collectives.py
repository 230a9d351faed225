"""Collectives on one host: pyccl beside Gloo (torch) and OpenMPI (mpi4py), over TCP and over shared
memory.

float32, sums where there is something to reduce, over loopback or in memory. A sample is one launch
of one library: fresh processes, every size in turn, per size some calls to warm up (the first one
is checked) and then a batch between barriers; the mean at the slowest rank counts. The libraries
take turns, A B C A B C, so that whatever else the machine does meets all of them alike. A cell is
the median over the launches, with the least and the most.

busbw is what nccl-tests defines. "moved" counts the bytes that have to pass between all ranks, for
example 2 (n - 1) S in an all-reduce of S bytes, and can be held against the machine's own limits
(`--limits`). "x Gloo" and "x OpenMPI" say how many times as fast the same call is as theirs,
OpenMPI's over the same medium. "CPU s/GB" are the processor seconds, user and system, of all ranks
per 1e9 bytes moved. Calls of a batch follow each other without a barrier: where a library lets a
rank run ahead, as MPI does in a broadcast, its small calls overlap.

    python bench/collectives.py --sizes 4K,1M,256M --peers 2,4 --repeats 5 --limits --json out.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from comparison import limits
from comparison.cases import SHAPES, USUAL, unit_of
from comparison.launch import launch
from comparison.libraries import LIBRARIES, missing
from comparison.tables import UNITS, Results, limits_table, table_of
from rich.console import Console

SIZES = "4K,1M,16M,256M"


def size_of(text: str) -> int:
    unit = UNITS.get(text[-1:].upper(), 1)
    size = int(text[:-1] if unit > 1 else text) * unit
    if size < 4 or size % 4:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 4 bytes")
    return size


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    def list_of(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--collectives", type=list_of(str), default=list(USUAL), help=f"{','.join(USUAL)}; all")
    add("--libraries", type=list_of(str), default=list(LIBRARIES), help=",".join(LIBRARIES))
    add("--sizes", type=list_of(size_of), default=list_of(size_of)(SIZES), help=SIZES)
    add("--peers", type=list_of(int), default=[2, 4], help="2,4")
    add("--repeats", type=int, default=5, help="launches of each library (5)")
    add("--limits", action="store_true", help="measure what the machine itself can do, too")
    add("--timeout", type=float, default=300, help="seconds that one launch may take (300)")
    add("--connections", type=int, default=4, help="of pyccl, per pair of peers (4)")
    add("--spin-us", type=int, default=200, help="of pyccl-*-spin (200)")
    add("--algorithm", help="of pyccl, instead of its own choice")
    add("--json", metavar="FILE", help="write all samples there")
    add("--verbose", action="store_true", help="show what the ranks say")
    args = parser.parse_args(arguments)
    if args.collectives == ["all"]:
        args.collectives = list(SHAPES)
    for what, given, known in (
        ("collective", args.collectives, SHAPES), ("library", args.libraries, LIBRARIES)
    ):  # fmt: skip
        if unknown := set(given) - set(known):
            parser.error(f"no such {what}: {', '.join(sorted(unknown))}")
    if min(args.sizes) < max(unit_of(one, max(args.peers)) for one in args.collectives):
        parser.error("a size has less than one element for each peer")
    if min(args.peers) < 2:
        parser.error("there is nothing to send with less than 2 peers")
    return args


def run_all(args: argparse.Namespace, console: Console, results: Results) -> None:
    """Every library in turn, `repeats` times, for each collective and number of peers."""
    libraries = []
    for library in args.libraries:
        if advice := missing(library):
            console.print(f"{library} is left out: not installed ({advice})")
        else:
            libraries.append(library)
    for peers in args.peers:
        for collective in args.collectives:
            if args.limits:
                results.add_limits(limits.sample())
            sizes = args.sizes if collective != "barrier" else args.sizes[:1]
            for size in sizes:
                for library in libraries:
                    results.cell(collective, peers, size, library)
            for turn in range(args.repeats):
                for library in libraries:
                    name = f"{collective}, {peers} peers, turn {turn + 1} of {args.repeats}"
                    console.print(f"{name}: {library}", highlight=False)
                    try:
                        samples = launch(library, collective, peers, sizes, args)
                    except RuntimeError as error:
                        results.faults.append(f"{name}, {library}: {error}")
                        console.print(f"[red]{results.faults[-1]}")
                        continue
                    for size, sample in samples.items():
                        results.add(collective, peers, size, library, sample)


def report(results: Results, args: argparse.Namespace) -> None:
    # A file has no width to fit into.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    for peers in args.peers:
        for collective in args.collectives:
            console.print(table_of(results, collective, peers))
    if results.limits:
        console.print(limits_table(results))
    if args.json:
        text = json.dumps(results.to_json(), indent=1)
        Path(args.json).write_text(text + "\n", encoding="utf-8")


def main() -> int:
    args = parse()
    results = Results()
    try:
        run_all(args, Console(stderr=True), results)
    except KeyboardInterrupt:
        results.faults.append("interrupted")
    report(results, args)
    return 1 if results.faults or not results.cells else 0


if __name__ == "__main__":
    sys.exit(main())
