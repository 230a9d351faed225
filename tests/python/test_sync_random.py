"""Random states, revisions and strategies on peers that live through all examples: each sync ends
as the rules say, and the next one is not the worse for it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyccl
from pyccl import SharedState

from .states import BLOCK, Crew, Peer, Shapes, bits, check_sync, elected, has, state_of
from .values import DTYPES

RELAXED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=[2, 3, 4])
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    with pyccl.Coordinator("127.0.0.1:0") as coordinator:
        crew = Crew(coordinator.address, request.param)
        yield crew
        crew.close()


STRATEGIES = st.sampled_from(["popular"] * 4 + ["send_only", "receive_only"])
PEERS = st.builds(Peer, st.integers(0, 3), st.integers(0, 2), STRATEGIES)


def shapes_of(sizes: list[int], dtype: str, tail: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {f"t{i}": ("u1", (size,)) for i, size in enumerate(sizes)}
    # Contents that are odd and even differ in a bool.
    shapes["tail"] = (dtype, tail)
    return shapes


SIZES = st.one_of(st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1]), st.integers(0, 5000))
SHAPES = st.builds(
    shapes_of,
    st.lists(SIZES, min_size=1, max_size=4),
    st.sampled_from([*DTYPES, "c8", "c16"]),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)


@given(data=st.data())
@RELAXED
def test_random_elections(crew: Crew, data: st.DataObject) -> None:
    peers = data.draw(st.lists(PEERS, min_size=crew.count, max_size=crew.count))
    shapes = data.draw(SHAPES)
    expected = elected(peers)
    # Without a byte all contents are alike, and so are states of one revision.
    bare = not any(np.prod(shape) for _, shape in shapes.values())
    if bare:
        peers = [one._replace(content=0) for one in peers]
        expected = elected(peers)

    def sync(comm: pyccl.Communicator, rank: int) -> Any:
        me = peers[rank]
        state = state_of(me.content, me.revision, shapes)
        if expected is None:
            with pytest.raises(pyccl.StateSyncError, match="rank ") as caught:
                comm.sync(state, me.strategy)
            has(state, me.content, me.revision, shapes)
            return str(caught.value)
        info = comm.sync(state, me.strategy)
        check_sync(state, info, peers, shapes)
        return info.revision, info.digest, info.behind, info.refuted

    assert len(set(crew.run(sync))) == 1


FLIPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3 * BLOCK + 6)), max_size=6)


@given(flips=FLIPS, newer=st.sets(st.integers(0, 3), max_size=2))
@RELAXED
def test_random_damage(crew: Crew, flips: list[tuple[int, int]], newer: set[int]) -> None:
    """Bits that flip at some members, of whom some have gone on by a revision."""
    shapes: Shapes = {"a": ("u1", (3 * BLOCK + 7,)), "b": ("i8", ())}

    def sync(comm: pyccl.Communicator, rank: int) -> Any:
        state = state_of(1, 5 + (rank in newer), shapes)
        for who, at in flips:
            if who == rank:
                state["a"][at] ^= 1
        before = bits(state)
        info = comm.sync(state)
        return before, 5 + (rank in newer), bits(state), state.revision, info

    found = crew.run(sync)
    newest = max(revision for _, revision, *_ in found)
    candidates = [before for before, revision, *_ in found if revision == newest]
    # Only who has the newest revision has a vote.
    winner = max(candidates, key=candidates.count)
    infos = [info for *_, info in found]
    behind = [
        (rank, revision, revision == newest)
        for rank, (before, revision, *_) in enumerate(found)
        if (before, revision) != (winner, newest)
    ]
    for before, _, after, revision, info in found:
        assert after == winner
        assert revision == info.revision == newest
        assert [(one.rank, one.revision, one.drifted) for one in info.behind] == behind
        assert (info.digest, info.behind) == (infos[0].digest, infos[0].behind)
        differing = sum(
            before["a"][at : at + BLOCK] != winner["a"][at : at + BLOCK]
            for at in range(0, 3 * BLOCK + 7, BLOCK)
        )
        assert info.blocks_fetched == differing


def sync_over_a_loss(comm: pyccl.Communicator, rank: int, seconds: float) -> int:
    """Syncs without a pause, some of them after rank 0 has closed, which is chance; how many."""
    if rank == 0:
        threading.Timer(seconds, comm.close).start()
    count = after = 0
    while after < 3:
        x = np.full(8, rank, np.uint8)
        try:
            info = comm.sync(SharedState({"x": x}, int(rank == 2)))
        except pyccl.ClosedError:
            assert rank == 0
            return count
        assert (x == 2).all()
        # All count alike, as they hear the same of who was behind.
        after += len(info.behind) == 2 and info.attempts == 1
        count += 1
    return count


def test_a_member_that_goes_at_any_moment() -> None:
    """Between two operations of a sync as well, where ranks are others after it than before."""
    chance = random.Random(3)
    for _ in range(120):
        with pyccl.Coordinator("127.0.0.1:0") as coordinator:
            crew = Crew(coordinator.address, 4)
            seconds = chance.uniform(0.003, 0.03)
            counts = crew.run(lambda comm, rank, s=seconds: sync_over_a_loss(comm, rank, s))
            crew.close()
            assert len(set(counts[1:])) == 1
