"""Outer steps while peers come and are killed at any moment: each of them is the step of one set of
peers, everybody has the same bits, and numpy comes to them by itself."""

from __future__ import annotations

import random
import time

import pytest
from process import outer
from process.outer import Replay, Step

from pyccl.testing import LocalCluster, PeerProcessError

PEERS_MIN, PEERS_MAX = 2, 4


class Story:
    """What all peers have reported, checked against each other."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.steps: dict[int, Step] = {}
        self.tellers: dict[int, set[int]] = {}
        """By number of the step, who has told of it."""
        self.ending = False
        self._cluster = cluster

    def take(self) -> int:
        """How many reports there were: at most one of each peer, or those who go on would keep
        this busy for ever."""
        count = 0
        for peer in self._cluster.peers:
            try:
                found: Step = peer.next_report(0.001)
            except TimeoutError:
                continue
            except PeerProcessError:
                if not peer.killed and not self.ending:
                    raise
                continue
            count += 1
            assert found.applied, found
            assert self.steps.setdefault(found.number, found) == found
            self.tellers.setdefault(found.number, set()).add(peer.index)
        return count

    def until_step(self, number: int, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while max(self.steps, default=0) < number:
            assert time.monotonic() < deadline, f"no step {number} in time"
            self.take()


def churn(events: int, seed: int, size: int) -> tuple[int, int]:
    """Kills and joins; how many steps there were, and of how many of them a victim was a part."""
    chance = random.Random(seed)
    with LocalCluster(3, outer.train, (size,)) as cluster:
        story = Story(cluster)
        present = {0, 1, 2}
        story.until_step(2)
        for _ in range(events):
            joining = len(present) == PEERS_MIN or (
                len(present) < PEERS_MAX and chance.random() < 0.5
            )
            if joining:
                peer = cluster.add()
                peer.wait_connected()
                present.add(peer.index)
            else:
                victim = chance.choice(sorted(present))
                time.sleep(chance.uniform(0.0, 0.02))
                cluster.kill(victim)
                present.remove(victim)
            story.until_step(max(story.steps) + 2)
        story.ending = True
        cluster.peers[min(present)].send("end")
        assert set(cluster.results().values()) == {"ended"}
        while story.take():
            pass
        everybody = {peer.index for peer in cluster.peers}
    return check(story, size, everybody)


def check(story: Story, size: int, everybody: set[int]) -> tuple[int, int]:
    last = max(story.steps)
    assert sorted(story.steps) == list(range(1, last + 1))
    replay, worlds = Replay(size), set()
    for number in range(1, last + 1):
        # A victim has told of the step before, or it came in that one and was killed at once.
        told = set().union(*(story.tellers.get(number - i, set()) for i in (0, 1)))
        worlds.add(replay.step(story.steps[number], told, everybody - told))
    return last, len(worlds)


def test_peers_come_and_die_at_any_moment() -> None:
    steps, worlds = churn(8, 1, 5_000)
    print(f"{steps} steps, of {worlds} sets of peers")
    assert worlds > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_peers_come_and_die_very_often(seed: int) -> None:
    # Large ones are in the midst of moving when somebody dies.
    churn(40, 10 + seed, (1000, 20_000, 100_000, 500_000)[seed])
