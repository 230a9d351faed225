"""The reports of all peers of a cluster as one stream, checked against each other on the way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from process.jobs import Outcome

from pyccl.testing import LocalCluster, PeerProcess, PeerProcessError


class Watch:
    """Collects what `jobs.reduce_loop` reports. Whenever two peers disagree about an operation, or
    one has a contributor twice, taking the report fails the test."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.outcomes: dict[int, dict[int, Outcome]] = {}
        """By number of the operation, then by index of the peer."""
        self._reports: queue.Queue[tuple[int, Outcome]] = queue.Queue()
        self._cluster = cluster
        for peer in cluster.peers:
            self.add(peer)

    def add(self, peer: PeerProcess) -> None:
        """Listens to one more."""

        def forward() -> None:
            try:
                while True:
                    self._reports.put((peer.index, peer.next_report(600.0)))
            except (PeerProcessError, TimeoutError):
                pass  # it ended, which is for the test to judge

        threading.Thread(target=forward, daemon=True).start()

    def until(self, wanted: Callable[[int, Outcome], bool], seconds: float = 40.0) -> Outcome:
        """The next outcome that is wanted."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                index, outcome = self._reports.get(timeout=max(0.01, left))
            except queue.Empty:
                raise AssertionError(self._story()) from None
            self._check(index, outcome)
            if wanted(index, outcome):
                return outcome

    def drain(self) -> None:
        """Checks what is left when all peers have ended."""
        while not self._reports.empty():
            self._check(*self._reports.get())

    def _check(self, index: int, outcome: Outcome) -> None:
        assert len(outcome.contributors) == outcome.world_size, outcome
        others = self.outcomes.setdefault(outcome.number, {})
        assert index not in others, f"peer {index} reports operation {outcome.number} twice"
        for other in others.values():
            for field in ("contributors", "world_size", "members", "epoch", "digest"):
                assert getattr(outcome, field) == getattr(other, field), (outcome, other)
        others[index] = outcome

    def _story(self) -> str:
        last = self.outcomes[max(self.outcomes)] if self.outcomes else {}
        alive = [peer.index for peer in self._cluster.peers if peer.alive()]
        return (
            f"what was waited for did not happen in time; alive: {alive}; last: {last}\n"
            f"{self._cluster.coordinator.log()[-3000:]}"
        )
