"""Outer steps while peers come and are killed at any moment: each of them is the step of one set of
peers, everybody has the same bits, and numpy comes to them by itself."""

from __future__ import annotations

import pytest
from process import outer
from process.outer import Replay, Step
from process.stories import Story

from pyccl.testing import LocalCluster


class Steps(Story):
    """What all peers have reported, checked against each other."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self.told: dict[int, Step] = {}
        self.tellers: dict[int, set[int]] = {}
        """By number of the step, who has told of it."""

    def note(self, index: int, found: Step) -> None:
        super().note(index, found)
        assert found.applied, found
        assert self.told.setdefault(found.number, found) == found
        self.tellers.setdefault(found.number, set()).add(index)


def churn(events: int, seed: int, size: int) -> tuple[int, int]:
    """Kills and joins; how many steps there were, and of how many sets of peers."""
    with LocalCluster(3, outer.train, (size,)) as cluster:
        steps = Steps(cluster)
        steps.shake(events, seed, 2, 4)
        everybody = {peer.index for peer in cluster.peers}
    return check(steps, size, everybody)


def check(steps: Steps, size: int, everybody: set[int]) -> tuple[int, int]:
    assert sorted(steps.told) == list(range(1, steps.last + 1))
    replay, worlds = Replay(size), set()
    for number in range(1, steps.last + 1):
        # A victim has told of the step before, or it came in that one and was killed at once.
        told = set().union(*(steps.tellers.get(number - i, set()) for i in (0, 1)))
        worlds.add(replay.step(steps.told[number], told, everybody - told))
    return steps.last, len(worlds)


def test_peers_come_and_die_at_any_moment() -> None:
    steps, worlds = churn(8, 1, 5_000)
    print(f"{steps} steps, of {worlds} sets of peers")
    assert worlds > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_peers_come_and_die_very_often(seed: int) -> None:
    # Large ones are in the midst of moving when somebody dies.
    churn(40, 10 + seed, (1000, 20_000, 100_000, 500_000)[seed])
