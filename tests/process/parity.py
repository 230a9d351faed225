"""Quantized all-reduces at every peer of a cluster, in the middle of which some kill themselves.
Loaded by file in the peers' processes."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import signal
import threading
import time
from typing import Any, NamedTuple

import numpy as np

import pyccl
from pyccl import Quantization
from pyccl.testing import report

Array = np.ndarray[Any, Any]

BLOCK = 128
# What the operations are by turns. Where members round by seeds of their own, the twin does not
# know whose share of the result a number lies in, and a ring's sums come in an order of its own.
MODES = ("nearest", "stochastic", "own seeds", "ring")
WITH_TWIN = ("nearest", "stochastic")


class Plan(NamedTuple):
    """One run. Peers go by the ranks that they begin with."""

    codec: Any
    peers: int
    size: int
    rounds: int
    deaths: dict[int, int]
    """In which operation a peer kills itself."""


class Outcome(NamedTuple):
    """One operation as one peer saw it."""

    number: int
    contributors: tuple[int, ...]
    """Read off the result itself."""
    world_size: int
    epoch: str
    algorithm: str
    digest: str
    attempts: int


def mode_of(number: int) -> str:
    return MODES[number % len(MODES)]


def op_of(number: int) -> Any:
    return "avg" if number // len(MODES) % 2 else "sum"


def quantization_of(plan: Plan, number: int, rank: int) -> Quantization:
    mode = mode_of(number)
    return Quantization(
        plan.codec,
        block=BLOCK,
        rounding="nearest" if mode == "nearest" else "stochastic",
        seed=number + 1000 * (1 + rank) * (mode == "own seeds"),
    )


@functools.lru_cache(maxsize=16)
def _base(rank: int, size: int) -> Array:
    rng = np.random.default_rng(rank)
    numbers = rng.standard_normal(size) * np.exp(rng.standard_normal(size))
    return numbers.astype(np.float32)


def given(plan: Plan, number: int, rank: int) -> list[Array]:
    """What a peer puts in: numbers that are others in each block and each operation, and a block
    of its own, which is 1 where the others have 0. A block of zeros comes back exactly: what is
    not 0 in the result tells who contributed."""
    places = np.zeros((plan.peers, BLOCK), np.float32)
    places[rank] = 1.0
    return [np.roll(_base(rank, plan.size), 37 * number), places]


def digest(arrays: list[Array]) -> str:
    return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()


def reduce(comm: pyccl.Communicator, index: int, plan: Plan) -> None:
    """The operations of the plan, one after the other; reports the rank, then each outcome."""
    rank = comm.rank
    report(rank)
    usual = []
    for number in range(plan.rounds):
        arrays = given(plan, number, rank)
        dies = plan.deaths.get(rank) == number
        if dies:
            # Of the shortest so far: rather in the operation than behind it.
            delay = random.Random(number).random() * min(usual)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        began = time.monotonic()
        info = comm.all_reduce(
            arrays,
            op=op_of(number),
            algorithm="ring" if mode_of(number) == "ring" else None,
            quantization=quantization_of(plan, number, rank),
        )
        usual.append(time.monotonic() - began)
        if dies:
            threading.Event().wait()
        report(
            Outcome(
                number=number,
                contributors=tuple(np.flatnonzero(arrays[1].any(axis=1)).tolist()),
                world_size=info.world_size,
                epoch=str(info.epoch),
                algorithm=info.algorithm,
                digest=digest(arrays),
                attempts=info.attempts,
            )
        )
