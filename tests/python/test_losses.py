"""A member that closes while the others are in an operation: begun again, or an error for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

PEERS = 3

Start = Callable[[pyccl.Communicator], "pyccl.Work[Any]"]


@pytest.fixture
def lose_the_last(run_peers: Any) -> Any:
    """lose_the_last(start, then): each survivor starts an operation, into which the last member
    closes without having called it; what then(comm, rank, work) gives at them, by rank."""

    def run(start: Start, then: Callable[[pyccl.Communicator, int, Any], Any]) -> list[Any]:
        started = threading.Barrier(PEERS)

        def function(comm: pyccl.Communicator) -> Any:
            rank = comm.rank
            if rank == PEERS - 1:
                started.wait(20)
                comm.close()
                return None
            work = start(comm)
            started.wait(20)
            result = then(comm, rank, work)
            comm.barrier()
            return result

        return list(run_peers(PEERS, function))[: PEERS - 1]

    return run


def test_gatherings_begin_again_with_the_rows_that_are_left(lose_the_last: Any) -> None:
    def start(comm: pyccl.Communicator) -> Any:
        x = np.full((2, 3), float(comm.rank))
        return comm.all_gather([x, x[:1]], async_op=True)

    def then(comm: pyccl.Communicator, rank: int, work: Any) -> None:
        first, second = work.wait(20)
        assert (first.shape, second.shape) == ((2, 2, 3), (2, 1, 3))
        assert first[:, 0, 0].tolist() == second[:, 0, 0].tolist() == [0, 1]
        assert work.info().members == 2

    lose_the_last(start, then)


def test_a_gathering_at_the_root_begins_again_if_asked(lose_the_last: Any) -> None:
    def start(comm: pyccl.Communicator) -> Any:
        return comm.gather(np.full(4, float(comm.rank)), 1, on_loss="retry", async_op=True)

    def then(comm: pyccl.Communicator, rank: int, work: Any) -> None:
        found = work.wait(20)
        if rank == 1:
            assert found.shape == (2, 4)
            assert found[:, 0].tolist() == [0, 1]
        else:
            assert found is None

    lose_the_last(start, then)


def test_a_given_result_may_keep_old_rows(lose_the_last: Any) -> None:
    def start(comm: pyccl.Communicator) -> Any:
        out = np.full((PEERS, 2), 9.0)
        x = np.full(2, float(comm.rank))
        return comm.all_gather(x, out=out, on_loss="retry", async_op=True)

    def then(comm: pyccl.Communicator, rank: int, work: Any) -> None:
        out = work.wait(20)
        assert out.shape == (PEERS, 2)
        assert out[:2, 0].tolist() == [0, 1]
        assert work.info().members == 2

    lose_the_last(start, then)


def test_rooted_ones_begin_again_without_an_ordinary_member(lose_the_last: Any) -> None:
    arrays: dict[int, Any] = {}

    def start(comm: pyccl.Communicator) -> Any:
        arrays[comm.rank] = np.full(4, float(comm.rank + 1))
        return [
            comm.broadcast(arrays[comm.rank], 1, async_op=True),
            comm.reduce(np.full(4, 2.0), 0, tag=1, async_op=True),
        ]

    def then(comm: pyccl.Communicator, rank: int, works: Any) -> None:
        assert [work.wait(20).members for work in works] == [2, 2]
        assert arrays[rank].tolist() == [2.0] * 4

    lose_the_last(start, then)


RAISING: dict[str, Callable[..., Any]] = {
    "broadcast without its root": lambda c, **k: c.broadcast(np.ones(4), 2, **k),
    "reduce without its root": lambda c, **k: c.reduce(np.ones(4), 2, **k),
    "broadcast that raises": lambda c, **k: c.broadcast(np.ones(4), on_loss="raise", **k),
    "all_gather into out": lambda c, **k: c.all_gather(np.ones(4), out=np.ones((3, 4)), **k),
    "all_gather with counts": lambda c, **k: c.all_gather(np.ones(4), counts=[4] * 3, **k),
    "gather": lambda c, **k: c.gather(np.ones(4), **k),
    "reduce_scatter": lambda c, **k: c.reduce_scatter(np.ones(6), **k),
    "scatter": lambda c, **k: c.scatter(np.ones(6), **k),
    "all_to_all": lambda c, **k: c.all_to_all(np.ones(6), **k),
    # Rows that can be divided among three members and among two, in different ways.
    "all_to_all of twelve": lambda c, **k: c.all_to_all(np.ones(12), **k),
    "all_to_all with counts": lambda c, **k: c.all_to_all(
        np.ones(3), send_counts=[1] * 3, recv_counts=[1] * 3, **k
    ),
    "all_reduce of a subgroup": lambda c, **k: c.subgroup([2, 1, 0]).all_reduce(np.ones(4), **k),
    "gathering of a subgroup": lambda c, **k: c.subgroup(range(3)).all_gather(np.ones(4), **k),
}


@pytest.mark.parametrize("call", RAISING.values(), ids=RAISING.keys())
def test_all_survivors_hear_of_it(lose_the_last: Any, call: Any) -> None:
    def then(comm: pyccl.Communicator, rank: int, work: Any) -> str:
        with pytest.raises(pyccl.PeerLostError) as caught:
            work.wait(20)
        assert comm.all_reduce(np.ones(2)).world_size == PEERS - 1
        return str(caught.value)

    first, second = lose_the_last(lambda comm: call(comm, async_op=True), then)
    assert first == second
    assert first


def test_a_lost_partner_is_told_and_disturbs_nobody_else(lose_the_last: Any) -> None:
    x = np.arange(5.0)

    def start(comm: pyccl.Communicator) -> Any:
        if comm.rank == 0:
            return comm.exchange(x, None, 2, async_op=True)
        return comm.recv(np.ones(3), 2, async_op=True)

    def then(comm: pyccl.Communicator, rank: int, work: Any) -> None:
        y = np.full(2, float(rank))
        comm.exchange(y, None, 1 - rank)
        assert y[0] == 1 - rank
        with pytest.raises(pyccl.PeerLostError):
            work.wait(20)
        assert x.tolist() == [0, 1, 2, 3, 4]
        # From now on there is no such rank, which is as good an answer.
        with pytest.raises(pyccl.PeerLostError, match="rank 2"):
            comm.send(x, 2)

    lose_the_last(start, then)


def test_ranks_that_there_were_are_lost_ones(lose_the_last: Any) -> None:
    def then(comm: pyccl.Communicator, rank: int, work: Any) -> None:
        assert work.wait(20).members == 2
        for call in (comm.send, comm.recv):
            with pytest.raises(pyccl.PeerLostError, match="rank 2"):
                call(np.ones(2), 2)
            with pytest.raises(pyccl.InvalidArgumentError, match="rank 3"):
                call(np.ones(2), 3)
        # Cut anew, with an eye to those that are there.
        assert comm.reduce_scatter(np.arange(12.0)).shape == (6,)

    lose_the_last(lambda comm: comm.barrier(async_op=True), then)
