"""One run: a coordinator, and peers in processes of their own, of which one is killed and one
comes later."""

from __future__ import annotations

import contextlib
import math
import queue
import statistics
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pyccl.testing import LocalCluster, PeerProcess, PeerProcessError, report

_WITNESS, _VICTIM = 0, 1
_KILL_AT, _JOIN_AT = 0.35, 0.5
_BEGIN_SECONDS = 300.0
_JOIN_SECONDS = 3600.0
"""A newcomer waits for the end of a window."""


class Row(NamedTuple):
    """Where a peer is behind a step."""

    index: int
    inner_step: int
    outer_step: int
    loss: float
    contributors: int
    """To the last outer step, this peer among them or not."""
    bytes_sent: int
    """In outer steps, since this peer began."""
    sync_seconds: float
    """Of the last outer step."""
    held_out: float | None
    """The loss of the outer parameters, now and then."""
    at: float
    """On the clock that all processes of a machine share."""


class Reporter:
    """On a peer's side: tells who has started it how it goes.

    every: inner steps between two looks at the text that is held out. One of the peers looks, and
        all look at the end.
    held_out_loss: of the outer parameters.
    """

    def __init__(
        self,
        index: int,
        optimizer: Any,
        every: int,
        held_out_loss: Callable[[], float],
    ) -> None:
        self._index, self._every = index, every
        self._optimizer, self._held_out_loss = optimizer, held_out_loss
        self._sync = optimizer.last_sync
        self._bytes = 0
        self._loss = math.nan

    def tell(self, loss: float) -> None:
        """Behind each inner step."""
        self._loss = loss
        step = self._step()
        looks = self._index == _WITNESS and step % self._every == 0
        self._report(step, self._held_out_loss() if looks else None)

    def end(self) -> float:
        """Behind all of them; the held-out loss."""
        step, held_out = self._step(), self._held_out_loss()
        self._report(step, held_out)
        return held_out

    def _step(self) -> int:
        sync = self._optimizer.last_sync
        if sync.fresh and sync is not self._sync:
            self._sync = sync
            self._bytes += sync.bytes_sent
        return int(self._optimizer.steps)

    def _report(self, step: int, held_out: float | None) -> None:
        sync = self._sync
        report(
            Row(
                self._index, step, sync.step, self._loss, sync.contributors, self._bytes,
                sync.seconds, held_out, time.monotonic(),
            )
        )  # fmt: skip


class Point(NamedTuple):
    """Of the curves, as the first peer has seen it, which is there from beginning to end."""

    seconds: float
    bytes_sent: int
    held_out: float


@dataclass
class Run:
    """What is known of a run."""

    method: str
    steps: int
    began: float = 0.0
    states: dict[int, str] = field(default_factory=dict)
    """What each peer does, in a word."""
    rows: dict[int, Row] = field(default_factory=dict)
    """The last one of each peer."""
    points: list[Point] = field(default_factory=list)
    held_out: float | None = None
    """The loss at the end, as a mean over the peers."""

    def take(self, row: Row) -> None:
        self.rows[row.index] = row
        if row.index == _WITNESS and row.held_out is not None:
            self.points.append(Point(self.seconds, row.bytes_sent, row.held_out))

    @property
    def step(self) -> int:
        return self.rows[_WITNESS].inner_step if _WITNESS in self.rows else 0

    @property
    def seconds(self) -> float:
        return self.rows[_WITNESS].at - self.began if _WITNESS in self.rows else 0.0

    @property
    def bytes_sent(self) -> int:
        return self.rows[_WITNESS].bytes_sent if _WITNESS in self.rows else 0


class View(Protocol):
    """Whoever shows it."""

    def changed(self, run: Run) -> None: ...
    def happened(self, run: Run, what: str) -> None: ...


class Supervisor:
    """Has each peer call train(comm, index, method, options), hurts them, and takes notes."""

    def __init__(
        self, train: Callable[..., float], method: str, options: Namespace, view: View
    ) -> None:
        self._train, self._options, self._view = train, options, view
        self._run = Run(method, options.steps)
        self._rows: queue.Queue[Row] = queue.Queue()
        self._threads: list[threading.Thread] = []

    def run(self) -> Run:
        """Raises PeerProcessError, whose text has the traceback, if a peer fails."""
        count = self._options.peers
        arguments = (self._run.method, self._options)
        with LocalCluster(0, self._train, arguments) as self._cluster:
            for _ in range(count):
                self._add(world_size_min=count, timeout=_BEGIN_SECONDS)
            if self._options.churn:
                self._add(timeout=_JOIN_SECONDS)
            self._view.changed(self._run)
            for peer in self._cluster.peers:
                peer.wait_ready(_BEGIN_SECONDS)  # so that nobody waits for imports later
            self._run.began = time.monotonic()
            for peer in self._cluster.peers[:count]:
                self._start(peer, "trains")
            while self._lives(count):
                with contextlib.suppress(queue.Empty):
                    self._take(self._rows.get(timeout=0.1))
            self._end()
        return self._run

    def _add(self, **connect: Any) -> None:
        peer = self._cluster.add(wait_for_order=True, connect=connect)
        self._run.states[peer.index] = "waits"

        def forward() -> None:
            with contextlib.suppress(PeerProcessError):  # its end is seen elsewhere
                while True:
                    self._rows.put(peer.next_report(math.inf))

        self._threads.append(threading.Thread(target=forward, daemon=True))
        self._threads[-1].start()

    def _lives(self, count: int) -> bool:
        for peer in self._cluster.peers:
            if not peer.alive() and not peer.killed:
                peer.result()  # raises if it has failed
        return any(peer.alive() for peer in self._cluster.peers[:count])

    def _start(self, peer: PeerProcess, state: str) -> None:
        self._run.states[peer.index] = state
        peer.send("go")

    def _take(self, row: Row) -> None:
        run = self._run
        if run.states[row.index] == "killed":
            return
        run.take(row)
        if run.states[row.index] == "joins":
            run.states[row.index] = "trains"
            self._view.happened(run, f"peer {row.index} is in, from step {row.inner_step - 1}")
        if self._options.churn and row.index == _WITNESS:
            self._hurt()
        self._view.changed(run)

    def _hurt(self) -> None:
        run = self._run
        if run.step >= _KILL_AT * run.steps and run.states[_VICTIM] == "trains":
            self._cluster.kill(_VICTIM)
            run.states[_VICTIM] = "killed"
            self._view.happened(run, f"peer {_VICTIM} is killed")
        newcomer = self._cluster.peers[-1]
        if run.step >= _JOIN_AT * run.steps and run.states[newcomer.index] == "waits":
            self._start(newcomer, "joins")
            self._view.happened(run, f"peer {newcomer.index} comes")

    def _end(self) -> None:
        newcomer = self._cluster.peers[-1]
        if newcomer.peer is None:
            newcomer.kill()  # alone it would begin a run of its own
            self._view.happened(self._run, f"peer {newcomer.index} has come too late")
        losses = self._cluster.results()
        for thread in self._threads:
            thread.join()
        while not self._rows.empty():
            self._take(self._rows.get())
        self._run.states.update(dict.fromkeys(losses, "done"))
        self._run.held_out = statistics.fmean(losses.values())
        self._view.changed(self._run)
