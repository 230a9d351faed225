"""What every peer of a run does, and what comes out.

A figure is the mean over the iterations at the slowest peer: all meet at a barrier, each one times
its calls without a pause between them, and the greatest of these times counts. (nccl-tests takes
the average over the ranks, unless told `-a 3`.) Checked are the first call and one after the timed
ones, each with fresh input; that one also tells what quantized calls send.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pyccl import Quantization
from pyccl.cli.bench.collectives import (
    COLLECTIVES,
    Case,
    Collective,
    Peer,
    Placement,
    collective_of,
)
from pyccl.cli.bench.data import FLOATS, Data, numpy_type
from pyccl.cli.bench.moved import Tell, Watch
from pyccl.cli.bench.quantized import QuantizedData, sent_by
from pyccl.errors import InvalidArgumentError, PycclError
from pyccl.quantization import Codec
from pyccl.testing import report


class GroupChangedError(PycclError):
    """A peer was lost while it was measured."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured. All peers need the same one."""

    collectives: tuple[str, ...] = ("all_reduce",)
    min_bytes: int = 8
    max_bytes: int = 128 << 20
    step_factor: int = 2
    dtype: str = "float32"
    op: str = "sum"
    root: int = 0
    placement: str = "both"
    """Where a collective knows both: "both", "out" or "in"."""
    iters: int = 20
    warmup: int = 5
    check: bool = True
    algorithm: str | None = None
    quantization: Codec | None = None
    same: bool = False
    """A sync finds the same states everywhere."""

    def steps(self, world: int) -> list[Step]:
        """Every line of the table. Sizes are rounded down to whole elements of each peer, but not
        to none; those that become equal by that stand there once."""
        itemsize = numpy_type(self.dtype).itemsize
        steps = []
        for name in self.collectives:
            one = collective_of(name)
            if self.quantization is not None:
                self._check_quantization(one)
            if world < one.peers_min:
                raise InvalidArgumentError(f"{one.name} needs at least {one.peers_min} peers")
            unit = itemsize * one.blocks_of(world)
            counts = [max(1, size // unit) for size in self.sizes()] if one.sized else [0]
            steps += [Step(one, count, count * unit) for count in dict.fromkeys(counts)]
        if any(step.collective.rooted for step in steps) and self.root >= world:
            raise InvalidArgumentError(f"the root is {self.root}, but there are {world} peers")
        return steps

    def _check_quantization(self, one: Collective) -> None:
        """Says before any peer is started what can't be quantized."""
        Quantization.of(self.quantization)  # knows its own codecs
        if one.roundings is None:
            able = [other.name for other in COLLECTIVES.values() if other.roundings]
            raise InvalidArgumentError(f"{one.name} can't be quantized, only {', '.join(able)} can")
        if self.dtype not in FLOATS:
            raise InvalidArgumentError(
                f"{self.dtype} can't be quantized, only {', '.join(FLOATS)} can"
            )
        if one.reduces and self.op not in ("sum", "avg"):
            raise InvalidArgumentError(f"{self.op} can't be quantized, only sum and avg can")

    def sizes(self) -> list[int]:
        """From the least to the most, as far as the steps reach it."""
        sizes = [self.min_bytes]
        while (following := sizes[-1] * self.step_factor) <= self.max_bytes:
            sizes.append(following)
        return sizes

    def placements(self, one: Collective) -> tuple[Placement, ...]:
        wanted = tuple(place for place in one.placements if self.placement in (place, "both"))
        return wanted or one.placements


@dataclass(frozen=True)
class Step:
    """One collective at one size."""

    collective: Collective
    count: int
    size: int


@dataclass(frozen=True)
class Figures:
    """What was measured of one step in one placement."""

    seconds: float
    algbw: float
    """1e9 bytes per second, like busbw."""
    busbw: float
    wrong: int | None
    """Elements at all peers together; None: nobody looked."""
    wire_ratio: float = 1.0
    """What all peers sent, to what that would have been without quantization."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    collective: str
    size: int
    count: int
    dtype: str
    op: str
    root: int
    figures: dict[Placement, Figures] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        return sum(one.wrong or 0 for one in self.figures.values())


def run_peer(comm: Any, index: int, plan: Plan, watched: bool = False) -> None:
    """All of it at one peer of a LocalCluster; the first one reports the lines, and if somebody
    looks on, how far a long sync is."""
    for line in measure(comm, plan, report if watched and index == 0 else None):
        if index == 0:
            report(line)


def measure(comm: Any, plan: Plan, tell: Tell = None) -> Iterator[Line]:
    """All of it at one peer; every peer gets the same lines."""
    rank, world = comm.rank, comm.world_size
    _agree(comm, plan, world)
    data = Data(plan.dtype, plan.op, world)
    quantization = Quantization.of(plan.quantization)
    watch = None if tell is None else Watch(tell)
    peer = Peer(comm, rank, data, plan.root, plan.algorithm, quantization, plan.same, watch)
    for step in plan.steps(world):
        one = step.collective
        yield Line(
            one.name,
            step.size,
            step.count,
            plan.dtype if one.sized else "none",
            plan.op if one.reduces else "none",
            plan.root if one.rooted else -1,
            {place: _figures(peer, plan, step, place) for place in plan.placements(one)},
        )


def _figures(peer: Peer, plan: Plan, step: Step, place: Placement) -> Figures:
    one = step.collective
    case = one.prepare(peer, step.count, place == "in")
    seconds, wrong, wire_ratio = _measured(peer, plan, one, case)
    seconds = _reduce_scalar(peer.comm, seconds, "max", peer.world)
    wrong = int(_reduce_scalar(peer.comm, wrong, "sum", peer.world))
    algbw = step.size / seconds / 1e9
    return Figures(
        seconds,
        algbw,
        algbw * one.factor(peer.world),
        wrong if plan.check and one.sized else None,
        wire_ratio,
    )


def _measured(peer: Peer, plan: Plan, one: Collective, case: Case) -> tuple[float, int, float]:
    """Seconds of one call here, how many elements of the checked ones are wrong, and the ratio of
    bytes on the wire."""
    wrong = _watched_call(peer, plan, one, case).wrong if plan.check else 0
    case.fill(peer.data)
    if case.grows and case.x is not None:
        case.x.fill(0)  # stays what it is, however often it is reduced
    for _ in range(plan.warmup):
        case.call()
    peer.comm.barrier()
    began = time.perf_counter()
    for _ in range(plan.iters):
        case.call()
    seconds = (time.perf_counter() - began) / plan.iters
    if not plan.check and peer.quantization is None:
        return seconds, 0, 1.0
    last = _watched_call(peer, plan, one, case)
    return seconds, wrong + last.wrong, last.wire_ratio


class _Seen(NamedTuple):
    """What is learned from a call outside of the timed ones."""

    wrong: int
    """Elements here."""
    wire_ratio: float = 1.0
    """Of all peers together."""


def _watched_call(peer: Peer, plan: Plan, one: Collective, case: Case) -> _Seen:
    data, comm = peer.data, peer.comm
    case.fill(data)
    if peer.quantization is None or one.roundings is None:
        case.call()
        return _Seen(case.wrong(data))
    sent = sent_by(case.call)
    wire, plain = (
        _reduce_scalar(comm, value, "sum", peer.world)
        for value in (sent.wire_bytes, sent.plain_bytes)
    )
    # Each peer knows the blocks that it has seen, and another one's may be the coarsest.
    step = _reduce_scalar(comm, sent.step, "max", peer.world)
    wrong = 0
    if plan.check and peer.world == 1:
        wrong = case.wrong(data)  # who is alone rounds nothing
    elif plan.check:
        rounded = QuantizedData(data.dtype, data.op, data.world, peer.quantization, sent.algorithm)
        terms = data.world if data.op == "sum" else 1  # an average divides their errors, too
        wrong = case.wrong_if_quantized(rounded, data, one.roundings(terms) * step / 2)
    return _Seen(wrong, wire / plain if plain else 1.0)


def _reduce_scalar(comm: Any, value: float, op: str, world: int) -> float:
    """The same at all peers; fails if not all of them take part any more."""
    array = np.array([value], np.float64)
    info = comm.all_reduce(array, op=op)
    if info.world_size != world:
        raise GroupChangedError(
            f"the group has {info.world_size} of {world} members left: a peer was lost"
        )
    return float(array[0])


def _agree(comm: Any, plan: Plan, world: int) -> None:
    """Peers that were started by hand may have been started with different options."""
    mark = float(zlib.crc32(repr(plan).encode()))
    greatest = _reduce_scalar(comm, mark, "max", world)
    if greatest != -_reduce_scalar(comm, -mark, "max", world):
        raise InvalidArgumentError("the peers were started with different options")
