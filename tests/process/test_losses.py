"""A peer is killed in the middle of every collective: no call hangs, the survivors see the same,
and what they do next is right."""

from __future__ import annotations

import random
import time

import pytest
from process import kinds
from process.kinds import EXACT, KINDS, QUANTIZED, Round

from pyccl.testing import LocalCluster

PEERS = 4
SIZE = 8 << 18  # f32: 8 MiB
# What ends with an error: its arrays are cut by rank, or its root is gone.
RAISES = {"all_to_all", "reduce_scatter", "gather", "scatter"}
ROOTED = {"broadcast", "reduce", "gather", "scatter"}


def rounds_of(cluster: LocalCluster, indices: list[int], wanted: int) -> dict[int, list[Round]]:
    """What each of these peers reports until it has said how `wanted` rounds have ended, and one
    more in a group without the peer that is lost."""
    rounds: dict[int, list[Round]] = {}
    for index in indices:
        mine = rounds[index] = []
        while len(mine) < wanted or mine[-1].members != PEERS - 1:
            mine.append(cluster.peers[index].next_report(40.0))
    return rounds


def lose(kind: str, rank: int, seed: int, codec: str | None = None) -> None:
    random.seed(seed)
    with LocalCluster(PEERS, kinds.loop, (kind, SIZE, codec)) as cluster:
        ranks = {peer.next_report(40.0): index for index, peer in enumerate(cluster.peers)}
        for peer in cluster.peers:
            peer.next_report(40.0)
        # Anywhere in an operation that takes some milliseconds.
        time.sleep(random.uniform(0.0, 0.02))
        cluster.kill(ranks[rank])
        survivors = [index for index in range(PEERS) if index != ranks[rank]]
        rounds = rounds_of(cluster, survivors, 3)
        cluster.peers[survivors[0]].send("end")
        assert set(cluster.results().values()) == {"ended"}
    by_number: dict[int, set[tuple[bool, int]]] = {}
    for index in survivors:
        for each in rounds[index]:
            by_number.setdefault(each.number, set()).add((each.lost, each.members))
    # Only where they may have meant different partners.
    for number in {each.number for mine in rounds.values() for each in mine if each.timed_out}:
        epochs = {each.epoch for mine in rounds.values() for each in mine if each.number == number}
        assert len(epochs) > 1 or "" in epochs, (number, rounds)
    pairwise = kind == "exchange"
    for number, ends in by_number.items():
        assert pairwise or len(ends) == 1, (kind, number, ends)
    lost = sum((True, 0) in ends for ends in by_number.values())
    # The first operation without the peer may be one that it has not called at all.
    assert lost <= (1 if kind in RAISES or pairwise or rank == 0 else 0), by_number


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_is_killed_in_the_middle(kind: str) -> None:
    lose(kind, 1, 0)


@pytest.mark.parametrize("kind", sorted(ROOTED))
def test_the_root_is_killed_in_the_middle(kind: str) -> None:
    lose(kind, 0, 0)


def test_a_peer_is_killed_in_the_middle_of_a_quantized_one() -> None:
    lose("all_gather", 1, 0, EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_times(kind: str, seed: int) -> None:
    lose(kind, 1, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_ones_five_times(kind: str, seed: int) -> None:
    lose(kind, 1, seed, EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_root_of_a_quantized_broadcast(seed: int) -> None:
    lose("broadcast", 0, seed, EXACT)
