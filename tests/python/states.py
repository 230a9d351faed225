"""What the tests of sync() have in common: contents that follow from a number, who must be elected,
and peers that live through many examples."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import pyccl
from pyccl import SharedState

from .values import Array, type_of

BLOCK = 1 << 20
LIMIT_SECONDS = 30.0

Shapes = dict[str, tuple[str, tuple[int, ...]]]
SHAPES: Shapes = {"w": ("f4", (300, 7)), "step": ("i8", ()), "none": ("f8", (0, 3))}


@functools.lru_cache(maxsize=8)
def _noise(size: int) -> Array:
    return np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8)


def tensors_of(content: int, shapes: Shapes = SHAPES) -> dict[str, Array]:
    """Bits that follow from the number of the content. Those of two numbers below 256 differ in
    each byte; of bool, if one of them is even and the other odd."""
    made = {}
    for name, (dtype, shape) in shapes.items():
        kind = type_of(dtype)
        whole = _noise(int(np.prod(shape)) * kind.itemsize) + np.uint8(content * 37 % 256)
        made[name] = (whole & 1 if dtype == "?" else whole).view(kind).reshape(shape)
    return made


def state_of(
    content: int, revision: int, shapes: Shapes = SHAPES, *, expect_next: bool = False
) -> SharedState:
    return SharedState(tensors_of(content, shapes), revision, expect_next=expect_next)


def bits(state: SharedState) -> dict[str, bytes]:
    return {name: np.asarray(one).tobytes() for name, one in state.items()}


def has(state: SharedState, content: int, revision: int, shapes: Shapes = SHAPES) -> None:
    """Asserts it, by the bits themselves."""
    assert state.revision == revision
    assert state.void == ()
    found = bits(state)
    for name, one in tensors_of(content, shapes).items():
        assert found[name] == one.tobytes(), name


class Peer(NamedTuple):
    """What a peer brings to a sync."""

    revision: int
    content: int
    strategy: Any = "popular"


def elected(peers: Sequence[Peer]) -> tuple[int, int] | None:
    """Revision and content, or None where there can be no election. The rules of sync() anew."""
    senders = [one for one in peers if one.strategy != "receive_only"]
    only = {one[:2] for one in peers if one.strategy == "send_only"}
    if not senders or len(only) > 1:
        return None
    newest = max(one.revision for one in senders)
    if only:
        chosen = only.pop()
        return chosen if chosen[0] == newest else None
    candidates = [one[:2] for one in senders if one.revision == newest]
    have = [one[:2] for one in peers]
    # max() takes the first of equals, which is that of the lowest rank.
    return max(candidates, key=have.count)


def check_sync(
    state: SharedState, info: pyccl.SyncInfo, peers: Sequence[Peer], shapes: Shapes = SHAPES
) -> None:
    """All that must hold at a peer after a sync of such peers, by rank, that has succeeded."""
    found = elected(peers)
    assert found is not None
    revision, content = found
    has(state, content, revision, shapes)
    assert info.revision == revision
    assert info.digest == state.digest() == state_of(content, revision, shapes).digest()
    behind = [
        (rank, one.revision, one.revision == revision)
        for rank, one in enumerate(peers)
        if one[:2] != found and (one.revision != revision or state_differs(one, content, shapes))
    ]
    assert [(one.rank, one.revision, one.drifted) for one in info.behind] == behind
    assert info.refuted == ()
    assert info.attempts == 1
    assert sum(one.bytes for one in info.sources) == info.bytes_fetched
    senders = {rank for rank, one in enumerate(peers) if one.strategy != "receive_only"}
    assert {one.rank for one in info.sources} <= senders


def state_differs(one: Peer, content: int, shapes: Shapes) -> bool:
    return one.content != content and any(np.prod(shape) > 0 for _, shape in shapes.values())


class Crew:
    """Peers on threads that do one function after the other."""

    def __init__(self, address: str, count: int, **connect: Any) -> None:
        self.count = count
        self._orders: list[queue.Queue[Any]] = [queue.Queue() for _ in range(count)]
        self._results: queue.Queue[tuple[int, Any, BaseException | None]] = queue.Queue()
        # A first order may end a peer, after which others would read another rank as theirs.
        self._ranked = threading.Barrier(count)
        self._threads = [
            threading.Thread(target=self._live, args=(address, connect), daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[[pyccl.Communicator, int], Any]) -> list[Any]:
        """What function(comm, rank) gives, by rank. Raises what the first one has raised."""
        for orders in self._orders:
            orders.put(function)
        results: list[Any] = [None] * self.count
        errors = []
        for _ in range(self.count):
            rank, result, error = self._results.get(timeout=4 * LIMIT_SECONDS)
            results[rank] = result
            if error is not None:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    def close(self) -> None:
        for orders in self._orders:
            orders.put(None)
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)

    def _live(self, address: str, connect: dict[str, Any]) -> None:
        with pyccl.connect(
            address,
            world_size_min=self.count,
            timeout=LIMIT_SECONDS,
            operation_timeout=LIMIT_SECONDS,
            **connect,
        ) as comm:
            rank = comm.rank
            self._ranked.wait(LIMIT_SECONDS)
            while (function := self._orders[rank].get()) is not None:
                try:
                    self._results.put((rank, function(comm, rank), None))
                except BaseException as error:
                    self._results.put((rank, None, error))
