"""One rank of one launch: every size in turn, timed between barriers, written to a file.

Started by comparison.launch as `python -m comparison.rank`. Imports no library but its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from comparison.cases import Case
from comparison.libraries import Membership, join


def calls_of(size: int) -> int:
    """Calls in a batch: enough for a steady mean, few enough for the large sizes."""
    return max(3, min(200, 2**26 // max(1, size)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--library", "--collective", "--address", "--results"):
        parser.add_argument(name, required=True)
    for name in ("--ranks", "--connections", "--spin-us"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--rank", type=int, help="where the library does not give it")
    parser.add_argument("--algorithm")
    parser.add_argument("sizes", type=int, nargs="+")
    return parser.parse_args()


def main() -> None:
    args = parse()
    with join(args) as membership:
        measured = {
            size: measure(membership, args.collective, size, args.ranks) for size in args.sizes
        }
        membership.barrier()
    file = Path(args.results) / f"rank-{membership.rank}.json"
    file.write_text(json.dumps(measured), encoding="utf-8")


def measure(membership: Membership, collective: str, size: int, ranks: int) -> dict[str, float]:
    """Seconds of one call at this rank, and of the processor in this process per call."""
    case = Case.of(collective, size, membership.rank, ranks)
    call = membership.call_of(case) or (lambda: None)
    call()
    if wrong := case.wrong():
        raise RuntimeError(f"wrong result at {size} bytes: {wrong}")
    case.settle()
    calls = calls_of(size)
    for _ in range(calls // 10 + 1):
        call()
    membership.barrier()
    cpu_before = _cpu_seconds()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    seconds = (time.perf_counter() - began) / calls
    # What a rank does for the others after its own last call is a cost, too.
    membership.barrier()
    return {"seconds": seconds, "cpu_seconds": (_cpu_seconds() - cpu_before) / calls}


def _cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
