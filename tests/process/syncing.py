"""Syncs at every peer of a cluster, of states that follow from their revision. Loaded by file in
the peers' processes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from process.jobs import order, peak_memory

import pyccl
from pyccl import SharedState
from pyccl.testing import report

Array = np.ndarray[Any, Any]

MIB = 1 << 20
PLACES = 4096


class End(NamedTuple):
    """How one sync ended at one peer."""

    number: int
    error: str
    """The class of what it raised, or ""."""
    revision: int
    digest: str
    behind: tuple[Any, ...]
    attempts: int
    present: tuple[int, ...]
    """Indices of those who came to the operation after it."""


def tensors_at(revision: int, size: int) -> dict[str, Array]:
    """What a state of that revision holds: parts that change at each revision, and others that
    change now and then."""
    parts = {"often": (1, size // 4 + 5), "seldom": (3, size // 2), "rarely": (7, size // 4)}
    made = {
        name: np.frombuffer(
            bytearray(np.random.default_rng([revision // every, every]).bytes(bytes_of)), np.uint8
        )
        for name, (every, bytes_of) in parts.items()
    }
    return {**made, "step": np.array(revision), "none": np.zeros((0, 3))}


def fill(state: SharedState, revision: int, size: int) -> None:
    for name, one in tensors_at(revision, size).items():
        state[name][...] = one
    state.revision = revision


def digest_at(revision: int, size: int) -> str:
    return SharedState(tensors_at(revision, size)).digest()


def zeros(size: int) -> SharedState:
    made = {name: np.zeros_like(one) for name, one in tensors_at(0, size).items()}
    return SharedState(made, 0)


def sync_loop(
    comm: pyccl.Communicator, index: int, size: int, joins: bool = False, snapshots: str = ""
) -> str:
    """Syncs, one after the other, each reported, until a peer is told "end"; between them one of
    the members goes on by a revision, and the others are behind.

    A newcomer comes with zeros, or with the snapshot that it once saved.
    """
    path = Path(snapshots) / str(index)
    if snapshots and path.exists():
        state = SharedState.load(path)
    else:
        state = zeros(size)
        if not joins:
            fill(state, 1, size)
    number, told = -1 if joins else 0, None
    while True:
        error, info = "", None
        try:
            info = comm.sync(state)
        except pyccl.StateSyncError:
            error = "StateSyncError"
        if not state.void:
            assert state.digest() == digest_at(state.revision, size) or state.revision == 0
        told = told or order()
        agreed = np.zeros(2 + PLACES)
        agreed[:2] = number, told == "end"
        agreed[2 + index] = 1
        comm.all_reduce(agreed, op="max")
        number = round(agreed[0])
        present = tuple(int(one) for one in np.flatnonzero(agreed[2:]))
        behind = tuple((one.peer, one.revision, one.drifted) for one in info.behind) if info else ()
        report(
            End(number, error, state.revision, info.digest if info else "", behind,
                info.attempts if info else 0, present)
        )  # fmt: skip
        if agreed[1] > 0:
            return "ended"
        if state.void:
            fill(state, state.revision, size)
        if snapshots and number % 3 == index % 3:
            state.save(path)
        number += 1
        # Another one each time, so that who has the newest is anybody.
        if number % len(present) == present.index(index):
            fill(state, state.revision + 1, size)


class Scene(NamedTuple):
    """A sync in which the peer of index 1 lies. Peer 0 has what the liar says it has if `helped`,
    and peers 2 and 3 lack it."""

    liar: Any
    """Its strategy."""
    helped: bool
    late: bool
    """It begins once it is known what is to be moved, so its report was true."""


class Liar:
    """Changes memory without end."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._change)

    def begin(self, *_: int) -> None:
        if self._thread.ident is None:
            self._memory += 1
            self._thread.start()

    def end(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _change(self) -> None:
        rng = np.random.default_rng(1)
        while not self._stop.is_set():
            begin = int(rng.integers(0, self._memory.size))
            self._memory[begin : begin + 5000] += 1


def lie(comm: pyccl.Communicator, index: int, scenes: list[Scene], size: int) -> list[Any]:
    """By scene: the error, or the digests of what was elected and of what is here after it."""
    ends: list[Any] = []
    for scene in scenes:
        state = zeros(size)
        if index == 1 or (index == 0 and scene.helped):
            fill(state, 5, size)
        liar = Liar(state["seldom"])
        if index == 1 and not scene.late:
            liar.begin()
        try:
            info = comm.sync(
                state,
                scene.liar if index == 1 else "popular",
                timeout=30,
                progress=liar.begin if index == 1 else None,
            )
            end = ("", info.digest, state.digest(), state.revision, len(info.refuted))
        except pyccl.StateSyncError as error:
            end = ("StateSyncError", str(error).partition(". Here parts")[0], "", 0, 0)
        liar.end()
        ends.append(end)
    # The same group syncs well when nobody lies.
    state = zeros(size)
    if index == 2:
        fill(state, 9, size)
    info = comm.sync(state)
    assert info.digest == state.digest() == digest_at(9, size)
    return ends


def peak_growth_of_sync(
    comm: pyccl.Communicator, index: int, size: int, world: int, joins: bool = False
) -> int:
    """What a sync of `size` bytes, all of which a joiner lacks, needs at its height besides the
    state, in bytes."""
    x = np.full(size, 0 if joins else 1, np.uint8)
    state = SharedState({"x": x, "step": np.array(0)}, 0 if joins else 1)
    while comm.world_size < world:
        comm.barrier()
        if comm.peers_pending:
            comm.update()
    before = peak_memory()
    info = comm.sync(state, timeout=120)
    growth = peak_memory() - before
    assert info.bytes_fetched == (size if joins else 0)
    assert all(int(x[at]) == 1 for at in range(0, size, MIB // 2))
    comm.barrier(timeout=120)
    return growth
