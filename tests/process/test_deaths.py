"""Peers that die, hang or leave while the others reduce."""

from __future__ import annotations

import statistics

import pytest
from process import jobs
from process.watch import Watch

import pyccl
from pyccl.testing import LocalCluster

MIB = 1 << 18  # f32


def end(cluster: LocalCluster, watch: Watch, survivor: int = 0) -> None:
    cluster.peers[survivor].send("end")
    ended = cluster.results()
    watch.drain()
    assert set(ended.values()) <= {"ended", "left"}, ended


def test_a_peer_is_killed_in_a_loop_of_large_operations() -> None:
    with LocalCluster(4, jobs.reduce_loop, (64 * MIB,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 2)
        cluster.kill(1)
        first = watch.until(lambda _, outcome: outcome.world_size == 3)
        assert first.contributors == (0, 2, 3)
        watch.until(lambda _, outcome: outcome.number == first.number + 2)
        end(cluster, watch, survivor=3)
    usual = statistics.median(
        outcome.seconds
        for number, outcomes in watch.outcomes.items()
        for outcome in outcomes.values()
        if number > first.number
    )
    # Far above what it takes, far below any timeout that would have to end a hang.
    assert max(outcome.seconds for outcome in watch.outcomes[first.number].values()) < usual + 3


def test_two_peers_are_killed_at_once() -> None:
    with LocalCluster(5, jobs.reduce_loop, (4 * MIB,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        cluster.peers[1].stop()
        cluster.kill(4)
        cluster.kill(1)
        watch.until(lambda _, outcome: outcome.contributors == (0, 2, 3))
        end(cluster, watch)


def test_only_one_is_left() -> None:
    with LocalCluster(3, jobs.reduce_loop, (1000,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        cluster.kill(0)
        watch.until(lambda _, outcome: outcome.contributors == (1, 2))
        cluster.kill(2)
        watch.until(lambda _, outcome: outcome.contributors == (1,))
        end(cluster, watch, survivor=1)


def test_a_stopped_peer_is_evicted_and_told_so() -> None:
    with LocalCluster(3, jobs.reduce_loop, (1000,), heartbeat_limit=1.0) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        cluster.stop(1)
        shrunk = watch.until(lambda _, outcome: outcome.contributors == (0, 2), 20.0)
        assert shrunk.seconds < 4.0
        cluster.cont(1)
        assert isinstance(cluster.peers[1].exception(20.0), pyccl.EvictedError)
        cluster.peers[1].killed = True  # it gave no result, and was not meant to
        end(cluster, watch)


def test_one_leaves_and_the_others_go_on() -> None:
    with LocalCluster(4, jobs.reduce_loop, (1 * MIB,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        cluster.peers[2].send("leave")
        after = watch.until(lambda _, outcome: outcome.contributors == (0, 1, 3))
        assert max(one.seconds for one in watch.outcomes[after.number].values()) < 2.0
        assert cluster.peers[2].result() == "left"
        end(cluster, watch)


def test_a_new_peer_takes_the_place_of_a_dead_one() -> None:
    with LocalCluster(3, jobs.reduce_loop, (1 * MIB,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        cluster.kill(0)
        watch.add(cluster.add(arguments=(1 * MIB, True)))
        watch.until(lambda _, outcome: outcome.contributors == (1, 2, 3))
        end(cluster, watch, survivor=3)


@pytest.mark.parametrize("joiner_ends", ["killed", "stopped"])
def test_a_joiner_that_fails_disturbs_nobody(joiner_ends: str) -> None:
    with LocalCluster(2, jobs.reduce_loop, (1000,)) as cluster:
        watch = Watch(cluster)
        watch.until(lambda _, outcome: outcome.number == 3)
        joiner = cluster.add(wait_for_order=True)
        joiner.wait_ready()
        joiner.send("go")
        if joiner_ends == "killed":
            joiner.kill()
        else:
            joiner.stop()
            joiner.killed = True
        last = max(watch.outcomes)
        watch.until(lambda _, outcome: outcome.number >= last + 200)
        end(cluster, watch)
    assert all(
        set(outcome.contributors) >= {0, 1}
        for outcomes in watch.outcomes.values()
        for outcome in outcomes.values()
    )
