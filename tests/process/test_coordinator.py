"""The coordinator is killed and comes back, while the peers reduce."""

from __future__ import annotations

from process import jobs
from process.watch import Watch

from pyccl.testing import LocalCluster


def test_operations_go_on_without_it_and_a_fifth_peer_joins_after_its_return() -> None:
    with LocalCluster(4, jobs.reduce_loop, (1 << 16,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 5)
        cluster.coordinator.kill()
        at_death = max(watch.outcomes)
        watch.until(lambda _, outcome: outcome.number == at_death + 100)
        cluster.coordinator.start()
        watch.add(cluster.add(arguments=(1 << 16, True)))
        joined = watch.until(lambda _, outcome: outcome.contributors == (0, 1, 2, 3, 4))
        cluster.peers[0].send("end")
        assert set(cluster.results().values()) == {"ended"}
        watch.drain()
    before = [
        outcome
        for number, outcomes in watch.outcomes.items()
        for outcome in outcomes.values()
        if number < joined.number - 1
    ]
    assert {outcome.attempts for outcome in before} == {1}
    assert len({outcome.epoch for outcome in before}) == 1
    assert max(outcome.seconds for outcome in before) < 2.0


def test_a_peer_dies_while_it_is_away() -> None:
    with LocalCluster(3, jobs.reduce_loop, (1 << 16,), coordinator=["--recovery-limit", "2"]) as (
        cluster
    ):
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 5)
        cluster.coordinator.kill()
        cluster.kill(2)
        cluster.coordinator.start()
        watch.until(lambda _, outcome: outcome.contributors == (0, 1))
        cluster.peers[0].send("end")
        assert set(cluster.results().values()) == {"ended"}
        watch.drain()


def test_it_dies_again_and_again() -> None:
    with LocalCluster(3, jobs.reduce_loop, (1 << 12,)) as cluster:
        watch = Watch(cluster)
        for _ in range(3):
            last = max(watch.outcomes, default=0)
            watch.until(lambda _, outcome, last=last: outcome.number >= last + 20)
            cluster.coordinator.restart()
        watch.add(cluster.add(arguments=(1 << 12, True)))
        watch.until(lambda _, outcome: len(outcome.contributors) == 4)
        cluster.peers[0].send("end")
        assert set(cluster.results().values()) == {"ended"}
        watch.drain()
    assert cluster.coordinator.address
