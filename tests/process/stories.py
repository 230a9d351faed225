"""Runs in which peers come and are killed at any moment, and what all of them tell of it."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from pyccl.testing import LocalCluster, PeerProcessError


class Story:
    """What all peers have reported."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.last = 0
        """The latest step that somebody has told of."""
        self._cluster = cluster

    def note(self, index: int, found: Any) -> None:
        """A peer has reported this."""
        self.last = max(self.last, found.number)

    def take(self) -> None:
        """At most one report of each peer, or those who go on would keep this busy for ever."""
        for peer in self._cluster.peers:
            try:
                found = peer.next_report(0.001)
            except TimeoutError:
                continue
            except PeerProcessError:
                if not peer.killed:
                    raise
                continue
            self.note(peer.index, found)

    def until_step(self, number: int, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while self.last < number:
            assert time.monotonic() < deadline, f"no step {number} in time"
            self.take()

    def shake(self, events: int, seed: int, least: int, most: int) -> None:
        """So many kills and joins, with two steps or more between them, among `least` to `most`
        peers; then the end, of which one peer is told."""
        chance = random.Random(seed)
        present = {peer.index for peer in self._cluster.peers}
        self.until_step(2)
        for _ in range(events):
            if len(present) == least or (len(present) < most and chance.random() < 0.5):
                peer = self._cluster.add()
                peer.wait_connected()
                present.add(peer.index)
            else:
                victim = chance.choice(sorted(present))
                time.sleep(chance.uniform(0.0, 0.02))
                self._cluster.kill(victim)
                present.remove(victim)
            self.until_step(self.last + 2)
        self._cluster.peers[min(present)].send("end")
        assert set(self._cluster.results().values()) == {"ended"}
        for peer in self._cluster.peers:
            with contextlib.suppress(PeerProcessError):
                while True:
                    self.note(peer.index, peer.next_report(0.001))
