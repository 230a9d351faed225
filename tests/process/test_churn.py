"""Random joins, kills and leaves among two to eight peers: nobody hangs, all agree, always."""

from __future__ import annotations

import random

import pytest
from process import jobs
from process.watch import Watch

from pyccl.testing import LocalCluster

PEERS_MIN, PEERS_MAX = 2, 8
SIZE = 1 << 14


def test_churn(request: pytest.FixtureRequest) -> None:
    rounds = request.config.getoption("--churn-rounds", default=15)
    chance = random.Random(20)
    with LocalCluster(3, jobs.reduce_loop, (SIZE,)) as cluster:
        watch = Watch(cluster)
        present = {0, 1, 2}
        for _ in range(rounds):
            joining = len(present) < PEERS_MAX and (
                len(present) == PEERS_MIN or chance.random() < 0.5
            )
            if joining:
                newcomer = cluster.add(arguments=(SIZE, True))
                watch.add(newcomer)
                present.add(newcomer.index)
            else:
                victim = chance.choice(sorted(present))
                present.remove(victim)
                if chance.random() < 0.5:
                    cluster.kill(victim)
                else:
                    cluster.peers[victim].send("leave")
            expected = tuple(sorted(present))
            watch.until(lambda _, outcome, expected=expected: outcome.contributors == expected)
        cluster.peers[min(present)].send("end")
        assert set(cluster.results().values()) <= {"ended", "left"}
        watch.drain()
