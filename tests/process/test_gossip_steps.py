"""NoLoCo's steps while peers come and are killed at any moment: each is that of a group, or of
those of it who lived, nobody waits for who is dead, and numpy comes to the same bits. (X-6)"""

from __future__ import annotations

import pytest
from process import gossip
from process.gossip import Replay, Step
from process.stories import Story

from pyccl.testing import LocalCluster


class Steps(Story):
    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self.told: list[Step] = []

    def note(self, index: int, found: Step) -> None:
        super().note(index, found)
        self.told.append(found)


def churn(events: int, seed: int, size: int) -> Replay:
    with LocalCluster(4, gossip.train, (size,)) as cluster:
        steps = Steps(cluster)
        steps.shake(events, seed, 3, 6)
    replay = Replay(steps.told, size)
    replay.run()
    # Also of those that a death has made wait.
    assert max(one.seconds for one in steps.told) < 20
    return replay


def test_partners_come_and_die_at_any_moment() -> None:
    replay = churn(6, 1, 20_000)
    print(f"{len(replay.told)} steps, {replay.alone} of them alone")
    assert replay.alone > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_partners_come_and_die_very_often(seed: int) -> None:
    # Large ones are in the midst of moving when somebody dies.
    churn(40, 10 + seed, (1000, 50_000, 200_000, 500_000)[seed])
