"""Operations among some of the members: who takes part, who is apart, and how it ends."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pyccl

from .values import given, same, total


def test_what_it_says_of_itself(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        if rank < 3:
            sub = comm.subgroup([2, 0, 1], name="turned")
            assert (sub.rank, sub.world_size) == ([1, 2, 0][rank], 3)
            assert sub.ranks == (2, 0, 1)
            assert sub.peers == (comm.peers[2], comm.peers[0], comm.peers[1])
            assert sub.name == "turned"
            assert sub.valid
            assert repr(sub) == f"<pyccl.Subgroup 'turned' rank {sub.rank} of 3>"
        comm.barrier()

    run_peers(4, function)


@pytest.mark.parametrize(
    ("ranks", "name", "text"),
    [
        ([], "", "at least one rank"),
        ([1], "", "no rank 1 among 1"),
        ([0, 0], "", "rank 0 comes twice"),
        ([-1], "", "a rank is -1"),
        (["0"], "", "a rank is '0'"),
        (3, "", "no sequence"),
        ([0], None, "name is None"),
        ([0], "n" * 300, "at most 255 bytes"),
    ],
)
def test_bad_ranks_are_refused(alone: pyccl.Communicator, ranks: Any, name: Any, text: str) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=text):
        alone.subgroup(ranks, name)


def test_a_stranger_can_not_make_one(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            with pytest.raises(pyccl.InvalidArgumentError, match="own rank is not among"):
                comm.subgroup([1])
        comm.barrier()

    run_peers(2, function)


def test_every_collective_among_some(run_peers: Any) -> None:
    world = 5
    groups = [[4, 1, 2], [3, 0]]

    def function(comm: pyccl.Communicator) -> None:
        mine = next(ranks for ranks in groups if comm.rank in ranks)
        sub = comm.subgroup(mine)
        size, rank = sub.world_size, sub.rank
        for _ in range(3):
            x = given(rank, 30, "f4")
            info = sub.all_reduce(x)
            assert (info.world_size, info.members) == (size, size)
            same(x, total(size, 30, "f4"))
            same(
                sub.all_gather(given(rank, 5, "i4")),
                np.stack([given(each, 5, "i4") for each in range(size)]),
            )
            same(
                sub.reduce_scatter(given(rank, 4 * size, "f8")),
                total(size, 4 * size, "f8").reshape(size, 4)[rank],
            )
            y = given(rank, 9, "u1")
            sub.broadcast(y, 1)
            same(y, given(1, 9, "u1"))
            found = sub.gather(given(rank, 2, "i8"), size - 1)
            assert (found is not None) == (rank == size - 1)
            same(
                sub.scatter(given(rank, 3 * size, "f4"), 1),
                given(1, 3 * size, "f4").reshape(size, 3)[rank],
            )
            swapped = sub.all_to_all(np.arange(size) + 10 * rank)
            assert swapped.tolist() == [10 * each + rank for each in range(size)]
            z = given(rank, 6, "i2")
            sub.reduce(z, 0)
            if rank == 0:
                same(z, total(size, 6, "i2"))
            assert sub.barrier().members == size
            one = np.full(2, float(rank))
            sub.exchange(one, None, (size - 1) - rank)
            assert one[0] == size - 1 - rank
            if rank == 0:
                sub.send(np.full(3, 7.0), 1)
            elif rank == 1:
                got = np.zeros(3)
                sub.recv(got, 0)
                assert got[0] == 7
        assert comm.all_reduce(np.ones(1)).members == world
        comm.barrier()

    run_peers(world, function)


def test_subgroups_and_the_group_do_not_wait_for_each_other(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x, y = np.ones(1000), np.full(1000, 2.0)
        if rank < 2:
            sub = comm.subgroup([0, 1])
            # Numbers of one tag count apart, so the order between the two does not matter.
            if rank == 0:
                works = [comm.all_reduce(x, async_op=True), sub.all_reduce(y, async_op=True)]
            else:
                works = [sub.all_reduce(y, async_op=True), comm.all_reduce(x, async_op=True)]
            for work in works:
                work.wait(20)
            assert (x[0], y[0]) == (3, 4)
        else:
            comm.all_reduce(x)
            assert x[0] == 3
        comm.barrier()

    run_peers(3, function)


def test_names_tell_subgroups_of_the_same_members_apart(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        subs = {name: comm.subgroup(range(3), name) for name in ("", "a", "send", "exchange")}
        works = {}
        for name in sorted(subs, reverse=rank == 1):
            x = np.full(10, float(len(name)))
            works[name] = (subs[name].all_reduce(x, async_op=True), x)
        for name, (work, x) in works.items():
            work.wait(20)
            assert x[0] == 3 * len(name)
        comm.barrier()

    run_peers(3, function)


def test_another_order_is_another_subgroup(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        one, other = comm.subgroup([0, 1]), comm.subgroup([1, 0])
        first, second = (one, other) if comm.rank == 0 else (other, one)
        works = [first.barrier(async_op=True), second.barrier(async_op=True)]
        assert [work.wait(20).members for work in works] == [2, 2]
        comm.barrier()

    run_peers(2, function)


def test_a_subgroup_of_a_subgroup(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        if rank:
            sub = comm.subgroup([3, 2, 1], "outer")
            if rank != 2:
                inner = sub.subgroup([2, 0])
                assert inner.peers == (comm.peers[1], comm.peers[3])
                x = np.full(4, float(rank))
                assert inner.all_reduce(x).members == 2
                assert x[0] == 4
            with pytest.raises(pyccl.InvalidArgumentError, match="no rank 3 among 3"):
                sub.subgroup([3])
        comm.barrier()

    run_peers(4, function)


def test_of_one(alone: pyccl.Communicator) -> None:
    sub = alone.subgroup([0])
    x = np.ones(3)
    assert sub.all_reduce(x, weight=2.0).members == 1
    assert x.tolist() == [2, 2, 2]
    assert sub.all_gather(x).tolist() == [[2, 2, 2]]
    sub.barrier()


def test_the_hint_is_the_groups(coordinator: pyccl.Coordinator) -> None:
    """Others do not see the operations of a subgroup, so they must not lead to an update()."""
    with pyccl.connect(coordinator.address, timeout=30) as comm:
        sub = comm.subgroup([0])
        joined = threading.Event()

        def join() -> None:
            with pyccl.connect(coordinator.address, timeout=30):
                joined.set()

        thread = threading.Thread(target=join, daemon=True)
        thread.start()
        for _ in range(100_000):
            sub.barrier()
            comm.exchange(np.ones(1), None, 0)
            assert not comm.peers_pending
            if comm.barrier().peers_pending:
                break
        assert comm.peers_pending
        sub.barrier()
        assert comm.peers_pending
        comm.update(30)
        assert joined.wait(30)
        # Joiners do not end it.
        assert sub.valid
        assert sub.barrier().members == 1
        thread.join(30)


def test_it_ends_with_its_first_member(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        broken, kept = None, None
        if rank != 3:
            kept = comm.subgroup([0, 1, 2])
        if rank != 2:
            broken = comm.subgroup([0, 1, 3])
        comm.barrier()
        if rank == 3:
            comm.close()
            return
        x = np.arange(5.0)
        if broken is not None:
            with pytest.raises(pyccl.PeerLostError):
                broken.all_reduce(x, timeout=20)
            assert x.tolist() == [0, 1, 2, 3, 4]
        # The view without that member comes to all before this ends.
        assert comm.all_reduce(np.ones(1)).members == 3
        if broken is not None:
            assert not broken.valid
            assert "no longer valid" in repr(broken)
            for _ in range(2):
                with pytest.raises(pyccl.PeerLostError, match="subgroup"):
                    broken.barrier()
            with pytest.raises(pyccl.PeerLostError, match="subgroup"):
                broken.broadcast(x, async_op=True).wait(20)
        assert kept is not None
        assert kept.valid
        assert kept.all_reduce(np.ones(1)).members == 3
        again = comm.subgroup(range(3), "again")
        assert again.all_reduce(np.ones(1)).members == 3
        comm.barrier()

    run_peers(4, function)


def test_threads_on_subgroups_and_tags(run_peers: Any) -> None:
    rounds = 15

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        failures: list[BaseException] = []

        def work(tag: int) -> None:
            try:
                everybody = comm.subgroup(range(3), f"thread {tag}")
                for i in range(rounds):
                    x = np.full(200 + tag, float(i + rank))
                    comm.all_reduce(x, tag=tag)
                    assert x[-1] == 3 * i + 3
                    assert everybody.all_gather(x[:2], tag=tag).shape == (3, 2)
                    assert comm.all_to_all(np.arange(3) + 10 * rank, tag=tag).tolist() == [
                        rank, 10 + rank, 20 + rank
                    ]  # fmt: skip
                    y = np.full(3, float(rank))
                    everybody.broadcast(y, i % 3, tag=tag)
                    assert y[0] == i % 3
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(tag,)) for tag in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        comm.barrier()

    run_peers(3, function)
