"""What the peer processes of these tests do. Loaded by file in each of them."""

from __future__ import annotations

import hashlib
import queue
import re
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pyccl
from pyccl.testing import next_order, report

Array = np.ndarray[Any, Any]


class Outcome(NamedTuple):
    """One all-reduce as one peer saw it."""

    number: int
    contributors: tuple[int, ...]
    """Indices, read off the result itself."""
    world_size: int
    members: int
    attempts: int
    epoch: str
    digest: str
    seconds: float
    ended_at: float


def order() -> Any:
    """What the test has told this peer meanwhile, or None."""
    try:
        return next_order(0)
    except queue.Empty:
        return None


def reduce_loop(comm: pyccl.Communicator, index: int, size: int, joins: bool = False) -> str:
    """All-reduces of `size` f32 and a few numbers, one after the other, each reported, until a
    peer is told "end" (all end), or this one "leave". A newcomer learns the number of the round
    from its first operation, in which it has weight 0.

    The operation says by itself who contributed: each peer adds 1 at its own place.
    """
    payload = np.empty(size, np.float32)
    number, told, newcomer = 0, None, joins
    while True:
        payload.fill(1.0)
        places = np.zeros(4096)
        places[index] = 1.0
        numbers = np.array([float(number), float(told == "end")])
        began = time.monotonic()
        info = comm.all_reduce([payload, places, numbers], weight=0.0 if newcomer else 1.0)
        ended = time.monotonic()
        number = round(numbers[0] / info.world_size)
        assert payload[0] == info.world_size
        assert (payload == payload[0]).all()
        report(
            Outcome(
                number=number,
                contributors=tuple(int(place) for place in np.flatnonzero(places)),
                world_size=info.world_size,
                members=info.members,
                attempts=info.attempts,
                epoch=str(info.epoch),
                digest=hashlib.sha256(places.tobytes() + numbers.tobytes()).hexdigest(),
                seconds=ended - began,
                ended_at=ended,
            )
        )
        if numbers[1] > 0:
            return "ended"
        if comm.peers_pending:
            comm.update()
        newcomer = False
        told = told or order()
        if told == "leave":
            return "left"
        number += 1


def world_size(comm: pyccl.Communicator, index: int) -> int:
    return comm.all_reduce(np.ones(10)).world_size


def fail(comm: pyccl.Communicator, index: int, text: str) -> None:
    comm.barrier()
    raise ValueError(text)


def echo(comm: pyccl.Communicator, index: int) -> Any:
    report(("rank", comm.rank))
    return next_order(30)


def peak_memory() -> int:
    """The most that this process has ever held, in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


def peak_growth(
    comm: pyccl.Communicator, index: int, size: int, dtype: str, arrays: int, in_place: bool
) -> int:
    """What all-reduces of `size` bytes need at their height besides the arrays, in bytes."""
    count = size // np.dtype(dtype).itemsize // arrays
    x = [np.ones(count, dtype) for _ in range(arrays)]
    out = None if in_place else [np.ones(count, dtype) for _ in range(arrays)]
    before = peak_memory()
    for _ in range(3):
        comm.all_reduce(x, op="max", out=out)
    return peak_memory() - before


def peak_growth_quantized(comm: pyccl.Communicator, index: int, size: int) -> int:
    """The same of quantized ones in place."""
    x = np.ones(size // 4, np.float32)
    before = peak_memory()
    for _ in range(3):
        comm.all_reduce(x, op="avg", quantization="int8")
        assert x.min() == x.max() == 1.0
    return peak_memory() - before


def peak_growth_of_broadcast(comm: pyccl.Communicator, index: int, size: int) -> int:
    """What broadcasts of `size` bytes need at their height besides the array, in bytes."""
    x = np.ones(size // 4, np.float32)
    before = peak_memory()
    for _ in range(3):
        comm.broadcast(x, root=0)
    return peak_memory() - before


def without_memory(comm: pyccl.Communicator, index: int, size: int, driven: bool) -> Any:
    """An all-reduce for which the highest rank has no memory, and one of the same tag after it."""
    x = np.full(size // 4, 1.0, np.float32)
    short = comm.rank == comm.world_size - 1
    if short:
        held = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert held
        limit = (int(held[1]) << 10) + size // 2
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    error = None
    try:
        if driven:
            comm.all_reduce(x, timeout=20)
        else:
            comm.all_reduce(x, timeout=20, async_op=True).wait()
    except pyccl.LimitExceededError as caught:
        error = str(caught)
    if short:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept = bool((x == 1.0).all())
    comm.all_reduce(x, timeout=20)
    return error, kept, float(x[-1])
