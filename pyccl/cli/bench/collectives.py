"""One adapter per collective: how it is called, what must come out, and how it is counted.

Sizes and bandwidths are those of nccl-tests. Where the result or the input of a collective consists
of one block per peer, its size is that of all blocks, and its count that of one. busbw is algbw
times a factor that makes the figure comparable with what a link can carry: 2 (n - 1) / n for
all-reduce, (n - 1) / n where each peer keeps one of n blocks, 1 for the rest. A sync is counted
like a broadcast to one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pyccl import Quantization, SharedState
from pyccl.cli.bench.data import Array, Data
from pyccl.cli.bench.moved import Watch
from pyccl.cli.bench.quantized import QuantizedData
from pyccl.errors import InvalidArgumentError

Placement = Literal["out", "in"]

# Calls between two peers keep off the tag of the calls of all.
_PAIR_TAG = 1
# A sync fetches whole blocks.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Peer:
    """One rank of a run, with what its calls have in common."""

    comm: Any
    """A Communicator, or what behaves like one."""
    rank: int
    data: Data
    root: int = 0
    algorithm: str | None = None
    quantization: Quantization | None = None
    same: bool = False
    watch: Watch | None = None

    @property
    def world(self) -> int:
        return self.data.world

    @property
    def options(self) -> dict[str, Any]:
        return {
            **({} if self.algorithm is None else {"algorithm": self.algorithm}),
            **self.rounding,
        }

    @property
    def rounding(self) -> dict[str, Any]:
        return {} if self.quantization is None else {"quantization": self.quantization}

    @property
    def reduction(self) -> dict[str, Any]:
        return {"op": self.data.op, **self.options}


@dataclass
class Case:
    """One collective at one size, ready to be called over and over."""

    call: Callable[..., object]
    """What can be quantized hands options on to its collective; "async_op" asks for a Work."""
    x: Array | None = None
    given: Callable[[], Array] | None = None
    """What x holds before the call; None: it is overwritten."""
    result: Array | None = None
    """Where the result is at this peer, if it gets one. May be x."""
    expected: Callable[[Data], Array] | None = None
    grows: bool = False
    """The result replaces the input, which would grow with each call."""
    agrees: Callable[[], bool] | None = None
    """Whether the result is what the last call said that it is."""

    def fill(self, data: Data) -> None:
        """Puts the input in and spoils what is to be overwritten."""
        if self.result is not None:
            data.poison(self.result)
        if self.x is None:
            return
        if self.given is None:
            data.poison(self.x)
        else:
            self.x[...] = self.given().reshape(self.x.shape)

    def wrong(self, data: Data) -> int:
        """How many elements of the result are not what they must be."""
        if self.result is None or self.expected is None:
            return 0
        wrong = data.wrong(self.result.reshape(-1), self.expected(data))
        return 1 if wrong == 0 and self.agrees is not None and not self.agrees() else wrong

    def wrong_if_quantized(self, data: QuantizedData, plain: Data, allowed: float) -> int:
        """The same where nothing may be farther than `allowed` from the plain result."""
        if self.result is None or self.expected is None:
            return 0
        got = self.result.reshape(-1)
        return data.wrong_by(got, self.expected(data), self.expected(plain), allowed)


@dataclass(frozen=True)
class Collective:
    """How one collective is measured."""

    name: str
    prepare: Callable[[Peer, int, bool], Case]
    """Of a peer, the count, and whether in place."""
    factor: Callable[[int], float]
    """Of the number of peers: busbw / algbw."""
    blocks: bool = False
    """One side of it has a block of `count` elements for each peer."""
    reduces: bool = False
    rooted: bool = False
    placements: tuple[Placement, ...] = ("out",)
    peers_min: int = 1
    sized: bool = True
    roundings: Callable[[int], int] | None = None
    """Of the contributions that add up: how often something is rounded that adds to the error of a
    quantized result. None: it can't be quantized."""

    def blocks_of(self, world: int) -> int:
        return world if self.blocks else 1


def _all_reduce(peer: Peer, count: int, in_place: bool) -> Case:
    x = peer.data.empty(count)
    out = None if in_place else peer.data.empty(count)
    return Case(
        lambda **how: peer.comm.all_reduce(x, out=out, **peer.reduction, **how),
        x, lambda: peer.data.given(peer.rank, count),
        x if out is None else out, lambda data: data.all_reduced(count),
        grows=in_place,
    )  # fmt: skip


def _all_gather(peer: Peer, count: int, _: bool) -> Case:
    x, out = peer.data.empty(count), peer.data.empty(peer.world, count)
    return Case(
        lambda **how: peer.comm.all_gather(x, out=out, **peer.options, **how),
        x, lambda: peer.data.given(peer.rank, count),
        out, lambda data: _all_received(data, count),
    )  # fmt: skip


def _reduce_scatter(peer: Peer, count: int, _: bool) -> Case:
    x, out = peer.data.empty(peer.world, count), peer.data.empty(count)
    return Case(
        lambda **how: peer.comm.reduce_scatter(x, out=out, **peer.reduction, **how),
        x, lambda: peer.data.given(peer.rank, peer.world * count),
        out, lambda data: data.reduced(count, at=peer.rank * count),
    )  # fmt: skip


def _all_to_all(peer: Peer, count: int, _: bool) -> Case:
    x, out = peer.data.empty(peer.world, count), peer.data.empty(peer.world, count)
    return Case(
        lambda: peer.comm.all_to_all(x, out=out, **peer.options),
        x, lambda: peer.data.given(peer.rank, peer.world * count),
        out, lambda data: _all_received(data, count, at=peer.rank * count),
    )  # fmt: skip


def _broadcast(peer: Peer, count: int, _: bool) -> Case:
    x = peer.data.empty(count)
    return Case(
        lambda **how: peer.comm.broadcast(x, root=peer.root, **peer.options, **how),
        x, (lambda: peer.data.given(peer.root, count)) if peer.rank == peer.root else None,
        x, lambda data: data.received(peer.root, count),
    )  # fmt: skip


def _reduce(peer: Peer, count: int, _: bool) -> Case:
    x = peer.data.empty(count)
    return Case(
        lambda: peer.comm.reduce(x, root=peer.root, **peer.reduction),
        x, lambda: peer.data.given(peer.rank, count),
        x if peer.rank == peer.root else None, lambda data: data.reduced(count),
        grows=True,
    )  # fmt: skip


def _gather(peer: Peer, count: int, _: bool) -> Case:
    x = peer.data.empty(count)
    out = peer.data.empty(peer.world, count) if peer.rank == peer.root else None
    return Case(
        lambda: peer.comm.gather(x, root=peer.root, out=out, **peer.options),
        x, lambda: peer.data.given(peer.rank, count),
        out, lambda data: _all_received(data, count),
    )  # fmt: skip


def _scatter(peer: Peer, count: int, _: bool) -> Case:
    # Elsewhere than at the root only the shape of x counts.
    x, out = peer.data.empty(peer.world, count), peer.data.empty(count)
    is_root = peer.rank == peer.root
    return Case(
        lambda: peer.comm.scatter(x, root=peer.root, out=out, **peer.options),
        x if is_root else None, lambda: peer.data.given(peer.root, peer.world * count),
        out, lambda data: data.received(peer.root, count, at=peer.rank * count),
    )  # fmt: skip


def _send_recv(peer: Peer, count: int, _: bool) -> Case:
    """Around a ring: each peer sends to the next one and receives from the one before."""
    x, out = peer.data.empty(count), peer.data.empty(count)
    to, source = (peer.rank + 1) % peer.world, (peer.rank - 1) % peer.world

    def call() -> None:
        sending = peer.comm.send(x, to=to, tag=_PAIR_TAG, async_op=True)
        peer.comm.recv(out, source=source, tag=_PAIR_TAG)
        sending.wait()

    return Case(
        call,
        x, lambda: peer.data.given(peer.rank, count),
        out, lambda data: data.received(source, count),
    )  # fmt: skip


def _exchange(peer: Peer, count: int, _: bool) -> Case:
    """Between 0 and 1, 2 and 3 and so on; with an odd number the last one looks on."""
    partner = peer.rank ^ 1
    if partner >= peer.world:
        return Case(lambda **_: None)
    x, out = peer.data.empty(count), peer.data.empty(count)
    return Case(
        lambda **how: peer.comm.exchange(
            x, out, peer=partner, tag=_PAIR_TAG, **peer.rounding, **how
        ),
        x, lambda: peer.data.given(peer.rank, count),
        out, lambda data: data.received(partner, count),
    )  # fmt: skip


class _Sync:
    """A state that the last peer lacks altogether before each call, unless all have the same."""

    def __init__(self, peer: Peer, x: Array) -> None:
        self.lacks = not peer.same and peer.rank == peer.world - 1
        self._peer = peer
        self._state = SharedState({"x": x})
        self._blocks = x.view(np.uint8)[::_BLOCK_BYTES]
        self._digest = ""

    def __call__(self) -> None:
        # One byte of each block and a revision: that takes no time.
        if self.lacks:
            self._blocks ^= 0xFF
        elif not self._peer.same:
            self._state.revision += 1
        if self._peer.watch is not None:
            self._peer.watch.begin()
        self._digest = self._peer.comm.sync(self._state, progress=self._peer.watch).digest

    def agrees(self) -> bool:
        return self._state.digest() == self._digest


def _sync(peer: Peer, count: int, _: bool) -> Case:
    x = peer.data.empty(count)
    sync = _Sync(peer, x)
    return Case(
        sync,
        x, None if sync.lacks else lambda: peer.data.given(0, count),
        x, lambda data: data.received(0, count),
        agrees=sync.agrees,
    )  # fmt: skip


def _barrier(peer: Peer, _: int, __: bool) -> Case:
    return Case(peer.comm.barrier)


def _all_received(data: Data, count: int, at: int = 0) -> Array:
    """The same piece of what each peer gives, one after the other."""
    blocks = data.empty(data.world, count)
    for rank in range(data.world):
        blocks[rank] = data.received(rank, count, at)
    return blocks.reshape(-1)


def _twice(world: int) -> float:
    return 2 * (world - 1) / world


def _once(world: int) -> float:
    return (world - 1) / world


def _whole(_: int) -> float:
    return 1.0


COLLECTIVES = {
    one.name: one
    for one in (
        Collective(
            "all_reduce", _all_reduce, _twice, reduces=True, placements=("out", "in"),
            roundings=lambda terms: terms + 1,
        ),
        Collective("all_gather", _all_gather, _once, blocks=True, roundings=lambda _: 1),
        Collective(
            "reduce_scatter", _reduce_scatter, _once, blocks=True, reduces=True,
            roundings=lambda terms: terms,
        ),
        Collective("all_to_all", _all_to_all, _once, blocks=True),
        Collective(
            "broadcast", _broadcast, _whole, rooted=True, placements=("in",),
            roundings=lambda _: 1,
        ),
        Collective("reduce", _reduce, _whole, reduces=True, rooted=True, placements=("in",)),
        Collective("gather", _gather, _once, blocks=True, rooted=True),
        Collective("scatter", _scatter, _once, blocks=True, rooted=True),
        Collective("send_recv", _send_recv, _whole, peers_min=2),
        Collective("exchange", _exchange, _whole, peers_min=2, roundings=lambda _: 1),
        Collective("sync", _sync, _whole, placements=("in",), peers_min=2),
        Collective("barrier", _barrier, _whole, sized=False),
    )
}  # fmt: skip
_OTHER_NAMES = {"sendrecv": "send_recv", "alltoall": "all_to_all", "allreduce": "all_reduce"}


def collective_of(name: str) -> Collective:
    """The collective of that name, as people write it."""
    plain = name.lower().replace("-", "_")
    try:
        return COLLECTIVES[_OTHER_NAMES.get(plain, plain)]
    except KeyError:
        raise InvalidArgumentError(
            f"there is no collective {name!r}; there are {', '.join(COLLECTIVES)}"
        ) from None
