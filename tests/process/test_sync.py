"""Syncs among real processes that are killed, cut off and lied to: whoever is left holds what was
elected, bit for bit."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process import syncing
from process.syncing import MIB, End, Scene
from process.test_connections import free_port

from pyccl import SharedState
from pyccl.testing import FaultProxy, LocalCluster, PeerProcess, PeerProcessError

PEERS_MIN, PEERS_MAX = 2, 5
SIZE = 6 * MIB

digest_at = functools.lru_cache(maxsize=64)(syncing.digest_at)


class Story:
    """What all peers have reported, checked against each other and against what each revision
    must hold."""

    def __init__(self, cluster: LocalCluster, size: int) -> None:
        self.ends: dict[int, dict[int, End]] = {}
        """By number of the sync, then by index of the peer."""
        self._cluster = cluster
        self._size = size

    def until(self, wanted: Callable[[End], bool], seconds: float = 60.0) -> End:
        """The next sync that is wanted."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for peer in self._cluster.peers:
                if not peer.killed and (end := self._take(peer)) and wanted(end):
                    return end
        alive = [peer.index for peer in self._cluster.peers if peer.alive()]
        last = self.ends[max(self.ends)] if self.ends else {}
        raise AssertionError(f"this did not happen in time; alive: {alive}; last: {last}")

    def drain(self) -> None:
        """Checks what is left when all peers have ended, killed ones too."""
        for peer in self._cluster.peers:
            with contextlib.suppress(PeerProcessError):
                while self._take(peer, 5.0):
                    pass

    def _take(self, peer: PeerProcess, seconds: float = 0.001) -> End | None:
        try:
            end: End = peer.next_report(seconds)
        except TimeoutError:
            return None
        others = self.ends.setdefault(end.number, {})
        assert peer.index not in others, f"peer {peer.index} reports sync {end.number} twice"
        for other in others.values():
            assert end == other
        others[peer.index] = end
        if not end.error:
            assert end.digest == digest_at(end.revision, self._size), end
        return end


def churn(rounds: int, seed: int, size: int) -> None:
    """Kills and joins at any moment."""
    chance = random.Random(seed)
    with LocalCluster(3, syncing.sync_loop, (size,)) as cluster:
        story = Story(cluster, size)
        present = {0, 1, 2}
        story.until(lambda end: end.number == 2)
        for _ in range(rounds):
            joining = len(present) == PEERS_MIN or (
                len(present) < PEERS_MAX and chance.random() < 0.5
            )
            if joining:
                present.add(cluster.add(arguments=(size, True)).index)
                if chance.random() < 0.5 and len(present) > PEERS_MIN + 1:
                    # And a death while it comes or gets its first state.
                    time.sleep(chance.uniform(0.3, 0.6))
                    joining = False
            if not joining:
                victim = chance.choice(sorted(present))
                time.sleep(chance.uniform(0.0, 0.03))
                cluster.kill(victim)
                present.remove(victim)
            expected = tuple(sorted(present))
            story.until(lambda end, expected=expected: end.present == expected)
        cluster.peers[min(present)].send("end")
        assert set(cluster.results().values()) == {"ended"}
        story.drain()
    errors = sum(one.error != "" for ends in story.ends.values() for one in list(ends.values())[:1])
    again = sum(max(one.attempts for one in ends.values()) > 1 for ends in story.ends.values())
    print(f"{rounds} rounds: {len(story.ends)} syncs, {again} began again, {errors} failed")
    # So little is fetched that it is kept aside: a member that dies spoils nothing.
    assert errors == 0


def test_peers_come_and_die_at_any_moment() -> None:
    churn(25, 1, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_peers_come_and_die_very_often(seed: int) -> None:
    churn(125, 10 + seed, (2, 6, 20, 60)[seed] * MIB)


def test_cut_connections_cost_no_sync() -> None:
    """Those of the one that has the newest state among them."""
    count, size = 3, 24 * MIB
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(0, syncing.sync_loop, (size,)))
        proxies = []
        for seed in range(count):
            target = f"127.0.0.1:{free_port()}"
            proxies.append(stack.enter_context(FaultProxy(target, reset_every=0.1, seed=seed)))
            cluster.add(
                connect={
                    "world_size_min": count,
                    "transport": "tcp",
                    "listen": target,
                    "advertise": proxies[-1].address,
                }
            )
        story = Story(cluster, size)
        story.until(lambda end: end.number >= 8 and sum(proxy.resets for proxy in proxies) > 8)
        cluster.peers[0].send("end")
        assert cluster.results() == dict.fromkeys(range(count), "ended")
        story.drain()
    ends = [end for ends in story.ends.values() for end in ends.values()]
    assert {end.attempts for end in ends} == {1}
    assert {end.error for end in ends} == {""}
    # Each sync had something to move.
    assert all(end.behind for end in ends if end.number > 0)


SCENES = [
    Scene(strategy, helped, late)
    for _ in range(2)
    for strategy in ("popular", "send_only")
    for helped in (True, False)
    for late in (True, False)
]


def test_nobody_takes_what_was_not_elected() -> None:
    """The memory of one member is changed all the time while it says that it has the newest."""
    size = 16 * MIB
    with LocalCluster(4, syncing.lie, (SCENES, size)) as cluster:
        ends = cluster.results()
    story = []
    for number, scene in enumerate(SCENES):
        seen = [ends[index][number] for index in range(4)]
        assert len({one[:2] for one in seen}) == 1, (scene, seen)
        error, digest = seen[0][:2]
        story.append((*scene, error or f"{seen[0][4]} refuted"))
        for index in (0, 2, 3):
            _, _, own, revision, _ = ends[index][number]
            assert error or (own, revision) == (digest, 5), (scene, index)
        if scene.helped and scene.late and scene.liar == "popular":
            # Its blocks come from the other one, and all know why.
            assert [(one[0], one[4]) for one in seen] == [("", 1)] * 4
            assert digest == digest_at(5, size)
    print(*story, sep="\n")


def test_a_run_that_was_killed_goes_on_from_its_snapshots(tmp_path: Path) -> None:
    chance = random.Random(4)
    size = 2 * MIB
    arguments = (size, False, str(tmp_path))
    revision = 1
    for life in range(3):
        with LocalCluster(3, syncing.sync_loop, arguments) as cluster:
            story = Story(cluster, size)
            first = story.until(lambda end: end.number == 0)
            assert (first.error, first.revision) == ("", revision), life
            story.until(lambda end, least=4 + life: end.number == least)
            time.sleep(chance.uniform(0.0, 0.05))
            for index in chance.sample(range(3), 3):
                cluster.kill(index)
        saved = [SharedState.load(tmp_path / str(index)).revision for index in range(3)]
        print(f"life {life}: snapshots of revisions {saved}")
        assert len(set(saved)) > 1
        assert max(saved) > revision
        revision = max(saved)


def memory_of_a_sync(size: int, holders: int) -> None:
    world = holders + 1
    with LocalCluster(
        holders, syncing.peak_growth_of_sync, (size, world), timeout=300.0
    ) as cluster:
        cluster.add(arguments=(size, world, True))
        growth = cluster.results()
    print({index: f"{one / MIB:.0f} MiB" for index, one in growth.items()})
    assert all(one <= 256 * MIB for one in growth.values()), growth


def test_a_sync_takes_no_more_memory_than_promised() -> None:
    memory_of_a_sync(512 * MIB, 2)


@pytest.mark.slow
def test_a_sync_of_8_gib_takes_no_more_memory_than_promised() -> None:
    memory_of_a_sync(8192 * MIB, 1)
