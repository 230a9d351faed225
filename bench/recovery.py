"""What the death of a peer costs: peers all-reduce in a loop, one is killed in mid operation.

One repetition: a fresh group of peers, some operations to warm up, then SIGKILL to one peer at a
random moment of an operation. "recovery" is the time from the kill until the last survivor has the
result of that operation; "undisturbed" is the median operation of the survivors afterwards. Each
result is compared with the sum over exactly those who contributed, and between the survivors.

    python bench/recovery.py --size 256M --repeats 20 --json result.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import pyccl
from pyccl.testing import LocalCluster, next_order, report

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
PERIOD = 1009
"""Elements after which the data repeat; all are small integers, so that sums are exact."""


Array = np.ndarray[Any, Any]


class Step(NamedTuple):
    """One operation at one peer; times are those of time.monotonic()."""

    peer: int
    began: float
    ended: float
    contributors: tuple[int, ...]
    attempts: int
    right: bool
    """Equal to the sum over the contributors, to the last bit."""


class Sample(NamedTuple):
    """One kill; seconds."""

    recovery: float
    undisturbed: float
    attempts: int


def pattern(count: int) -> Array:
    """What peer i contributes, divided by 2 ** i."""
    return np.resize(np.arange(1, PERIOD + 1, dtype=np.float32), count)


def is_scaled(payload: Array, base: Array, scale: np.float32) -> bool:
    """In pieces: what is allocated and freed for each operation would disturb the next one."""
    step = 1 << 16
    return all(
        np.array_equal(payload[at : at + step], base[at : at + step] * scale)
        for at in range(0, base.size, step)
    )


def reduce_loop(comm: pyccl.Communicator, index: int, count: int) -> str:
    """All-reduces `count` float32 and a mask of who took part, until one is told to end."""
    base = pattern(count)
    payload = np.empty_like(base)
    told = False
    while True:
        np.multiply(base, np.float32(2**index), out=payload)
        marks = np.zeros(16, np.float32)
        marks[index] = 1
        marks[15] = told
        comm.barrier()
        report(time.monotonic())
        began = time.monotonic()
        info = comm.all_reduce([payload, marks])
        ended = time.monotonic()
        contributors = tuple(int(i) for i in np.flatnonzero(marks[:15]))
        scale = np.float32(sum(2**i for i in contributors))
        right = info.world_size == len(contributors) and is_scaled(payload, base, scale)
        # As a plain tuple: this module has another name here than where it was started.
        report((index, began, ended, contributors, info.attempts, right))
        if marks[15] > 0:
            return "ended"
        with contextlib.suppress(queue.Empty):
            told = told or next_order(0) == "end"


def next_step(cluster: LocalCluster, index: int) -> Step:
    """The next operation that a peer has finished."""
    while True:
        said = cluster.peers[index].next_report(120.0)
        if isinstance(said, tuple):
            return Step(*said)


def next_begin(cluster: LocalCluster, index: int) -> float:
    """When a peer begins its next operation."""
    while True:
        said = cluster.peers[index].next_report(120.0)
        if isinstance(said, float):
            return said


def agree(steps: list[Step]) -> None:
    """Fails unless all survivors have the same and the right bits."""
    if len({step.contributors for step in steps}) != 1 or not all(step.right for step in steps):
        raise SystemExit(f"WRONG: {steps}")


def measure(peers: int, count: int, dice: random.Random) -> Sample | None:
    """One kill; None if it came when the operation was over."""
    with LocalCluster(peers, reduce_loop, (count,), timeout=120.0) as cluster:
        everybody = range(peers)
        usual = []
        for _ in range(3):
            steps = [next_step(cluster, index) for index in everybody]
            agree(steps)
            usual.append(max(step.ended for step in steps) - max(step.began for step in steps))
        victim = dice.randrange(peers)
        survivors = [index for index in everybody if index != victim]
        began = next_begin(cluster, survivors[0])
        time.sleep(max(0.0, began + dice.uniform(0.1, 0.8) * usual[-1] - time.monotonic()))
        killed = time.monotonic()
        cluster.kill(victim)
        steps = [next_step(cluster, index) for index in survivors]
        agree(steps)
        recovery = max(step.ended for step in steps) - killed
        attempts = steps[0].attempts
        later = []
        for _ in range(5):
            steps = [next_step(cluster, index) for index in survivors]
            agree(steps)
            later.append(max(step.ended for step in steps) - max(step.began for step in steps))
        cluster.peers[survivors[0]].send("end")
        cluster.results()
    if attempts == 1:
        return None
    return Sample(recovery, statistics.median(later), attempts)


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--size", default="256M", help="bytes of float32 (256M)")
    parser.add_argument("--peers", type=int, default=4, choices=range(2, 14), metavar="N")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of who is killed, and when")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    options = parser.parse_args()
    size = int(options.size.rstrip("KMG")) * UNITS.get(options.size[-1], 1)
    dice = random.Random(options.seed)
    console = Console()
    samples: list[Sample] = []
    while len(samples) < options.repeats:
        last = measure(options.peers, size // 4, dice)
        if last is None:
            continue
        samples.append(last)
        console.print(
            f"{len(samples):3}: recovery {last.recovery * 1e3:7.1f} ms, "
            f"undisturbed {last.undisturbed * 1e3:7.1f} ms, attempts {last.attempts}"
        )
    table = Table("", "ms: median (min-max)", title=f"{options.peers} peers, {options.size}B")
    for name in ("recovery", "undisturbed"):
        times = [getattr(sample, name) * 1e3 for sample in samples]
        median = statistics.median(times)
        table.add_row(name, f"{median:.1f} ({min(times):.1f}-{max(times):.1f})")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([sample._asdict() for sample in samples], indent=1))


if __name__ == "__main__":
    main()
