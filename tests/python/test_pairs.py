"""Operations between two members, of whom nobody else takes notice."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyccl

from .values import DTYPES, SIZES, given, same


def ring_of_sends(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    world, rank = comm.world_size, comm.rank
    if world == 1:
        return
    x, after, before = given(rank, size, dtype), (rank + 1) % world, (rank - 1) % world
    out = np.empty_like(x)
    sent = comm.send(x, after, async_op=True)
    assert comm.recv(out, before).members == 2
    sent.wait()
    same(out, given(before, size, dtype))
    same(x, given(rank, size, dtype))


def exchange(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    # With the other end of the row; who stands in the middle swaps with itself.
    peer = comm.world_size - 1 - comm.rank
    x = given(comm.rank, size, dtype)
    out = np.empty_like(x)
    comm.exchange(x, out, peer)
    same(out, given(peer, size, dtype))
    same(x, given(comm.rank, size, dtype))
    comm.exchange(x, None, peer)
    same(x, out)


@pytest.mark.parametrize("world", range(1, 9))
def test_every_size_and_type(run_peers: Any, world: int) -> None:
    def function(comm: pyccl.Communicator) -> None:
        for dtype in DTYPES:
            for size in SIZES:
                ring_of_sends(comm, size, dtype)
                exchange(comm, size, dtype)
        comm.barrier()

    run_peers(world, function)


def test_a_mebi_and_three(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        ring_of_sends(comm, (1 << 20) + 3, "f4")
        exchange(comm, (1 << 20) + 3, "f8")
        comm.barrier()

    run_peers(3, function)


def test_lists(run_peers: Any) -> None:
    def lists(of: int) -> list[Any]:
        return [given(of, 5, "f4"), given(of, 0, "i8"), given(of, 9, "u2"), given(of, 4, "f4")]

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        out = [np.empty_like(one) for one in lists(0)]
        comm.exchange(lists(rank), out, 1 - rank)
        for found, expected in zip(out, lists(1 - rank), strict=True):
            same(found, expected)
        x = lists(rank)
        if rank == 0:
            comm.send(x)
        else:
            comm.recv(x, 0)
        for found, expected in zip(x, lists(0), strict=True):
            same(found, expected)
        comm.barrier()

    run_peers(2, function)


def test_sends_of_one_tag_keep_their_order_in_both_directions(run_peers: Any) -> None:
    rounds = 20

    def function(comm: pyccl.Communicator) -> None:
        rank, other = comm.rank, 1 - comm.rank
        sent = [comm.send(np.full(3, 100 * rank + i), other, async_op=True) for i in range(rounds)]
        for i in range(rounds):
            x = np.zeros(3, int)
            comm.recv(x, other)
            assert x.tolist() == [100 * other + i] * 3
        for work in sent:
            assert work.wait().members == 2
        comm.barrier()

    run_peers(2, function)


def test_tags_are_apart(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            first = comm.send(np.full(2, 1), 1, tag=1, async_op=True)
            comm.send(np.full(2, 2), 1, tag=2)
            first.wait()
        else:
            x, y = np.zeros(2, int), np.zeros(2, int)
            comm.recv(x, 0, tag=2)  # the later one first
            comm.recv(y, 0, tag=1)
            assert (x.tolist(), y.tolist()) == ([2, 2], [1, 1])
        comm.barrier()

    run_peers(2, function)


def test_pairs_and_the_group_share_tags_without_meeting(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank, world = comm.rank, comm.world_size
        order = random.Random(rank)
        for i in range(20):
            x, y, out = np.full(50, float(rank + i)), np.full(4, float(rank)), np.empty(4)
            calls = [
                partial(comm.barrier, async_op=True),
                partial(comm.all_reduce, x, async_op=True),
            ]
            swap = partial(comm.exchange, y, out, rank ^ 1, async_op=True)
            calls.insert(order.randrange(3), swap)
            for work in [call() for call in calls]:
                work.wait()
            assert x[0] == sum(each + i for each in range(world))
            assert out[0] == float(rank ^ 1)
        comm.barrier()

    run_peers(4, function)


def test_the_others_need_not_come(run_peers: Any) -> None:
    """Two swap while a third one is in the midst of something else with a fourth."""
    done = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        x = np.full(100, float(comm.rank))
        if comm.rank < 2:
            for _ in range(10):
                comm.exchange(x, None, 1 - comm.rank)
            assert x[0] == comm.rank
            done.set()
        else:
            assert done.wait(20)
        comm.barrier()

    run_peers(4, function)


def test_a_mismatch_is_told_to_both_and_to_nobody_else(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> str | None:
        text = None
        if comm.rank == 2:
            with pytest.raises(pyccl.MismatchError) as caught:
                comm.send(np.ones(3), 0)
            text = str(caught.value)
        elif comm.rank == 0:
            x = np.zeros(4)
            with pytest.raises(pyccl.MismatchError) as caught:
                comm.recv(x, 2)
            text = str(caught.value)
        assert comm.all_reduce(np.ones(2)).world_size == 3
        return text

    first, second, third = run_peers(3, function)
    assert second is None
    assert first == third
    assert first is not None
    assert "f64[3]" in first
    assert "f64[4]" in first


def test_a_partner_that_does_not_come_is_named(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            with pytest.raises(pyccl.OperationTimeout, match="rank 1"):
                comm.send(np.ones(3), 1, timeout=0.2)
        comm.barrier(tag=1)

    run_peers(2, function)


def test_works_of_pairs(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        x = np.full(7, float(comm.rank))
        work = comm.exchange(x, None, 1 - comm.rank, async_op=True)
        info = work.wait(20)
        assert work.done()
        assert info == work.info()
        assert (info.members, info.attempts) == (2, 1)
        assert x[0] == 1 - comm.rank
        comm.barrier()

    run_peers(2, function)
