"""Optimizers of torch while peers come and are killed at any moment: nobody waits for who is dead,
and everybody sees the same steps and holds the same bits."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from process import optimizers
from process.forks import ForkedPeer
from process.optimizers import OPTIMIZERS, End, Step, Told
from process.stories import Story

from pyccl.testing import LocalCluster, cluster


class Steps(Story):
    """What all peers have reported, checked against each other."""

    def __init__(self, peers: LocalCluster) -> None:
        super().__init__(peers)
        self.told: dict[int, Step] = {}
        self.compared = self.without_anybody = 0
        self.ends: dict[int, End] = {}
        self.slowest = 0.0
        self._latest: dict[int, int] = {}

    def note(self, index: int, found: Told | End) -> None:
        super().note(index, found)
        if isinstance(found, End):
            self.ends[index] = found
            return
        step = found.step
        assert not found.drifted, found
        assert step.hash in ("", step.state)
        if step.applied:
            assert self.told.setdefault(step.number, step) == step
            assert step.number == self._latest.get(index, step.number - 1) + 1
        else:
            # Newcomers are left alone with what they may not send yet, or there was no window yet.
            assert "nobody contributes" in step.reason
            assert step.number == self._latest.get(index, step.number)
            self.without_anybody += 1
        self._latest[index] = step.number
        self.compared += step.hash != ""
        self.slowest = max(self.slowest, found.seconds)


@pytest.fixture(autouse=True)
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PeerProcess", ForkedPeer)


def churn(name: str, events: int, seed: int, width: int) -> Steps:
    with LocalCluster(3, optimizers.train, (name, width)) as peers:
        steps = Steps(peers)
        steps.shake(events, seed, 2, 4)
        survivors = {peer.index for peer in peers.peers if not peer.killed}
    assert steps.ends.keys() == survivors
    assert sorted(steps.told) == list(range(1, max(steps.told) + 1))
    assert len({(end.number, end.digest) for end in steps.ends.values()}) == 1
    assert [end.warnings for end in steps.ends.values()] == [[]] * len(survivors)
    assert steps.compared > 0
    # Also those that a death has made wait.
    assert steps.slowest < 20
    return steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_peers_come_and_die_at_any_moment(name: str) -> None:
    steps = churn(name, 4, 1, 40)
    print(f"{steps.last} steps, {steps.without_anybody} told of that nobody contributed to")
    assert len({step.contributors for step in steps.told.values()}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_peers_come_and_die_very_often(name: str, seed: int) -> None:
    # Large ones are in the midst of moving when somebody dies.
    churn(name, 30, 20 + seed, (40, 300, 700)[seed])
