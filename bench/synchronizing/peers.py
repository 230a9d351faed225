"""What each peer does: it makes a state, and synchronizes it again and again; the last peer lacks
all of it, or a single number, or nothing. Each time is taken between barriers."""

from __future__ import annotations

import resource
import time
from typing import Any, NamedTuple

import numpy as np

import pyccl
from pyccl.testing import LocalCluster
from synchronizing.tables import Sample

ALL, ONE, NOTHING = "all", "one", "nothing"
_LIMIT_SECONDS = 300.0


class Job(NamedTuple):
    """Of one launch of fresh processes."""

    size: int
    """Of the state, in bytes."""
    tensors: int
    lacking: tuple[str, ...]
    """What the last peer lacks, in this order, time and again."""
    turns: int = 1
    """Of all of these; one more before them warms up."""


Took = dict[str, list[tuple[float, int, float]]]


def launch(job: Job, peers: int, transport: str) -> dict[str, list[Sample]]:
    """Samples by what was lacking."""
    connect = {"transport": transport, "operation_timeout": _LIMIT_SECONDS}
    with LocalCluster(
        peers, sync_here, (job, peers), connect=connect, timeout=_LIMIT_SECONDS
    ) as cluster:
        by_peer: list[Took] = list(cluster.results().values())
    return {
        lacking: [
            Sample(each[-1][0], sum(one[1] for one in each), sum(one[2] for one in each))
            for each in zip(*(took[lacking] for took in by_peer), strict=True)
        ]
        for lacking in job.lacking
    }


def sync_here(comm: pyccl.Communicator, index: int, job: Job, peers: int) -> Took:
    """At one peer. Plain tuples: this module may have another name where it was started."""
    job = Job(*job)
    state = pyccl.SharedState(make(job.size, job.tensors))
    made = state.digest()
    took: Took = {lacking: [] for lacking in job.lacking}
    for turn in range(job.turns + 1):
        for lacking in job.lacking:
            spoil(state, lacking, lacks=index == peers - 1)
            cpu_before = _cpu_seconds()
            seconds, info = timed_sync(comm, state)
            # What a peer does for the others after its own end is a cost, too.
            comm.barrier()
            if turn:
                took[lacking].append((seconds, info.bytes_sent, _cpu_seconds() - cpu_before))
    check(state, made)
    return took


def make(size: int, tensors: int) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of float32 without any pattern, so that nothing gets shorter by compression."""
    count = size // 4 // tensors
    held = {}
    for number in range(tensors):
        x = np.random.default_rng(number).integers(0, 1 << 32, count, np.uint32).view(np.float32)
        x[-1:] = 0.5  # a number that can be counted up
        held[f"tensor {number}"] = x
    return held


def check(state: pyccl.SharedState, made: str) -> None:
    """Fails unless it holds what it held when that was its digest."""
    if state.digest() != made:
        raise RuntimeError("the state is not what it was")


def spoil(state: pyccl.SharedState, lacking: str, *, lacks: bool) -> None:
    """Makes the others' state newer, and the own one another."""
    if lacking == NOTHING:
        return
    if not lacks:
        state.revision += 1
    elif lacking == ONE:
        state[next(reversed(list(state)))][-1] += 1
    else:
        for x in state.values():
            x.fill(-1)


def timed_sync(
    comm: pyccl.Communicator, state: pyccl.SharedState, strategy: Any = "popular"
) -> tuple[float, pyccl.SyncInfo]:
    comm.barrier()
    began = time.perf_counter()
    info = comm.sync(state, strategy)
    return time.perf_counter() - began, info


def _cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
