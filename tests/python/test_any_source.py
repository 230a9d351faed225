"""Receives that name no source: who was first, what goes beside them, and who is waited for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pyccl

from .values import given, same

TURNS = 9
"""The tag of barriers that put things in order: what a member sent before is known to all."""


def received(comm: Any, tag: int = 0, **options: Any) -> tuple[int | None, int]:
    x = np.zeros(3, int)
    info = comm.recv(x, None, tag, **options)
    assert x.tolist() == [x[0]] * 3
    return info.source, int(x[0])


def test_what_comes_first_is_received_first(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[Any]:
        order, sent = (2, 0, 3), []
        for rank in order:
            if comm.rank == rank:
                sent.append(comm.send(np.full(3, 10 * rank), 1, async_op=True))
            comm.barrier(tag=TURNS)
        got = [received(comm) for _ in order] if comm.rank == 1 else []
        for work in sent:
            info = work.wait()
            assert (info.members, info.source) == (2, None)
        comm.barrier()
        return got

    assert run_peers(4, function, connections=1)[1] == [(2, 20), (0, 0), (3, 30)]


def test_source_is_told_of_receives_only(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        x, other = np.ones(3), 1 - comm.rank
        assert comm.all_reduce(x).source is None
        assert comm.exchange(x, None, other).source is None
        assert comm.barrier().source is None
        if comm.rank == 0:
            assert comm.send(x, 1).source is None
            assert comm.send(x, 1).source is None
        else:
            assert comm.recv(x, 0).source == 0
            assert comm.recv(x, None).source == 0
        comm.barrier()

    run_peers(2, function)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_seven_send_to_one_that_waits_for_all_at_once(run_peers: Any, transport: str) -> None:
    rounds = 6

    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 3:
            arrays = [np.zeros(700, int) for _ in range(7 * rounds)]
            works = [comm.recv(x, None, tag=5, async_op=True) for x in arrays[: 4 * rounds]]
            infos = [comm.recv(x, None, tag=5) for x in arrays[4 * rounds :]]
            infos = [work.wait() for work in works] + infos
            found: dict[int, list[int]] = {}
            for info, x in zip(infos, arrays, strict=True):
                assert (x == x[0]).all()
                assert info.source is not None
                found.setdefault(info.source, []).append(int(x[0]))
            expected = {rank: [100 * rank + i for i in range(rounds)] for rank in range(8)}
            del expected[3]
            assert found == expected
        else:
            sent = [
                comm.send(np.full(700, 100 * comm.rank + i), 3, tag=5, async_op=True)
                for i in range(rounds)
            ]
            for work in sent:
                assert work.wait().members == 2
        comm.barrier()

    run_peers(8, function, transport=transport)


def test_large_arrays_and_lists(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        size = (1 << 20) + 3
        if comm.rank == 0:
            for _ in range(2):
                x, y = np.zeros(size, "f4"), np.zeros(5, "i8")
                source = comm.recv([x, y], None).source
                assert source is not None
                same(x, given(source, size, "f4"))
                same(y, given(source, 5, "i8"))
        else:
            comm.send([given(comm.rank, size, "f4"), given(comm.rank, 5, "i8")], 0)
        comm.barrier()

    run_peers(3, function)


def test_named_ones_beside_it_keep_their_turn(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            arrays = [np.zeros(3, int) for _ in range(4)]
            sources = (None, 1, None, 2)
            works = [
                comm.recv(x, source, async_op=True)
                for x, source in zip(arrays, sources, strict=True)
            ]
            comm.barrier(tag=TURNS)
            # Nothing but the first of rank 2 can have come: who is called behind waits for its own.
            assert works[0].wait().source == 2
            comm.barrier(tag=TURNS)
            assert [work.wait().source for work in works[:3]] == [2, 1, 1]
            comm.barrier(tag=TURNS)
            assert works[3].wait().source == 2
            assert [int(x[0]) for x in arrays] == [20, 10, 11, 21]
        elif comm.rank == 1:
            comm.barrier(tag=TURNS)
            comm.barrier(tag=TURNS)
            comm.send(np.full(3, 10), 0)
            comm.send(np.full(3, 11), 0)
            comm.barrier(tag=TURNS)
        else:
            comm.barrier(tag=TURNS)
            comm.send(np.full(3, 20), 0)
            comm.barrier(tag=TURNS)
            comm.barrier(tag=TURNS)
            comm.send(np.full(3, 21), 0)
        comm.barrier()

    run_peers(3, function)


def test_a_mismatch_is_told_to_both(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> str | None:
        text = None
        if comm.rank < 2:
            with pytest.raises(pyccl.MismatchError, match=r"f64\[3\].*f64\[4\]") as caught:
                comm.recv(np.zeros(4), None) if comm.rank == 0 else comm.send(np.ones(3), 0)
            text = str(caught.value)
        comm.barrier(tag=TURNS)
        if comm.rank == 0:
            assert received(comm) == (2, 22)
        elif comm.rank == 2:
            comm.send(np.full(3, 22), 0)
        comm.barrier()
        return text

    first, second, _ = run_peers(3, function)
    assert first == second


def test_a_timeout_says_that_nobody_sent_and_is_noticed_by_nobody(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            with pytest.raises(pyccl.OperationTimeout, match="no member sent with tag 7"):
                comm.recv(np.zeros(3), None, tag=7, timeout=0.2)
            work = comm.recv(np.zeros(3), None, tag=7, timeout=0.2, async_op=True)
            with pytest.raises(pyccl.OperationTimeout, match="behind a recv from any member"):
                comm.recv(np.zeros(3), 1, tag=7, timeout=0.1)
            with pytest.raises(pyccl.OperationTimeout, match="no member sent with tag 7"):
                work.wait(20)
        comm.barrier(tag=TURNS)
        if comm.rank == 0:
            assert received(comm, tag=7) == (2, 70)
        elif comm.rank == 2:
            comm.send(np.full(3, 70), 0, tag=7)
        assert comm.barrier().attempts == 1

    run_peers(3, function)


def test_a_send_that_has_failed_before_is_told(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 1:
            with pytest.raises(pyccl.OperationTimeout):
                comm.send(np.full(3, 1), 0, timeout=0.1)
        comm.barrier(tag=TURNS)
        if comm.rank == 0:
            with pytest.raises(pyccl.OperationTimeout, match="did not arrive: rank 1"):
                received(comm)
            assert received(comm) == (1, 2)
        elif comm.rank == 1:
            comm.send(np.full(3, 2), 0)
        comm.barrier()

    run_peers(3, function)


def test_it_goes_on_waiting_when_one_is_lost(run_peers: Any) -> None:
    lost = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 1:
            comm.barrier(tag=TURNS)
            comm.close()
            return
        work = comm.recv(x := np.zeros(3, int), None, async_op=True) if comm.rank == 0 else None
        comm.barrier(tag=TURNS)
        if work is not None:
            while comm.world_size == 3:
                pass
            assert not work.done()
            lost.set()
            assert work.wait().source == 2  # of the moment of the call
            assert x.tolist() == [2, 2, 2]
            assert received(comm) == (1, 3)
        else:
            assert lost.wait(20)
            comm.send(np.full(3, 2), 0)
            comm.send(np.full(3, 3), 0)
        comm.barrier()

    run_peers(3, function)


def test_one_that_is_lost_in_the_midst_of_sending_is_none(run_peers: Any) -> None:
    size = 8 << 20
    gone = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 1:
            comm.send(np.full(size, 1.0), 0, async_op=True)
            comm.barrier(tag=TURNS)
            comm.close()
            gone.set()
            return
        comm.barrier(tag=TURNS)
        if comm.rank == 0:
            x = np.zeros(size)
            source = comm.recv(x, None).source
            if x[0] == 1.0:  # it was quick
                assert source == 1
                assert (x == 1.0).all()
                source = comm.recv(x, None).source
            assert source in (1, 2)  # by whether the view had changed when it was called
            assert (x == 2.0).all()
        else:
            assert gone.wait(20)
            comm.send(np.full(size, 2.0), 0)
        comm.barrier()

    run_peers(3, function)


def test_when_all_others_are_lost(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        if comm.rank > 0:
            comm.barrier(tag=TURNS)
            comm.close()
            return
        work = comm.recv(np.zeros(3), None, tag=4, async_op=True)
        comm.barrier(tag=TURNS)
        with pytest.raises(pyccl.PeerLostError, match=r"none of those is left .* tag 4") as caught:
            work.wait(20)
        assert caught.value.peer is not None
        with pytest.raises(pyccl.PeerLostError, match="no other member any more"):
            comm.recv(np.zeros(3), None)

    run_peers(3, function)


def test_nobody_else_was_ever_there(alone: pyccl.Communicator) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match="no other member"):
        alone.recv(np.zeros(3), None)
    with pytest.raises(pyccl.InvalidArgumentError, match="to"):
        alone.send(np.zeros(3), None)  # type: ignore[call-overload]


def test_closing_ends_it(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        work = comm.recv(np.zeros(3), None, async_op=True)
        comm.barrier(tag=TURNS)
        if rank == 0:
            comm.close()
            with pytest.raises(pyccl.ClosedError):
                work.wait(20)
        else:
            with pytest.raises(pyccl.PeerLostError):
                work.wait(20)

    run_peers(2, function)


def test_subgroups_are_apart_and_count_by_themselves(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        sub, sent = comm.subgroup([3, 0, 2]) if comm.rank != 1 else None, []
        if comm.rank == 1:
            sent = [comm.send(np.full(3, 1), 0, async_op=True)]
        elif sub is not None and comm.rank == 2:
            sent = [sub.send(np.full(3, 2), 1, async_op=True)]
        comm.barrier(tag=TURNS)
        if comm.rank == 0:
            assert sub is not None
            assert received(sub) == (2, 2)
            assert received(comm) == (1, 1)
            assert received(sub) == (0, 3)
        elif sub is not None and comm.rank == 3:
            sent = [sub.send(np.full(3, 3), 1, async_op=True)]
        for work in sent:
            work.wait()
        comm.barrier()

    run_peers(4, function)


def test_a_subgroup_goes_on_with_those_who_live(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank, sub = comm.rank, comm.subgroup([1, 0, 2])
        work = sub.recv(np.zeros(3, int), None, async_op=True) if rank == 0 else None
        comm.barrier(tag=TURNS)
        if rank == 1:
            comm.close()
            return
        while sub.valid:
            pass
        comm.barrier(tag=TURNS)
        if work is not None:
            assert not work.done()
            comm.barrier(tag=TURNS)
            assert work.wait().source == 2
            assert received(sub) == (2, 4)
        else:
            comm.barrier(tag=TURNS)
            sub.send(np.full(3, 3), 1)
            sub.send(np.full(3, 4), 1)
        comm.barrier()

    run_peers(3, function)


def test_who_joins_later_is_for_later_calls(coordinator: pyccl.Coordinator) -> None:
    first = pyccl.connect(coordinator.address, timeout=30)
    others: list[pyccl.Communicator] = []

    def join(world: int) -> None:
        joined = pyccl.connect(coordinator.address, world_size_min=world, timeout=30)
        others.append(joined)

    def admit() -> None:
        world = 2 + len(others)
        threads = [threading.Thread(target=join, args=[world], daemon=True)]
        threads += [
            threading.Thread(target=admitting, args=[comm, world], daemon=True)
            for comm in (first, *others)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(others) == world - 1

    def admitting(comm: pyccl.Communicator, world: int) -> None:
        while comm.world_size < world:
            comm.update(30)

    admit()
    x = np.zeros(3, int)
    work = first.recv(x, None, async_op=True, timeout=30)
    admit()
    sent = others[1].send(np.full(3, 5), first.rank, async_op=True, timeout=30)
    assert received(first, timeout=30) == (others[1].rank, 5)
    sent.wait(30)
    assert not work.done()
    sent = others[0].send(np.full(3, 6), first.rank, async_op=True, timeout=30)
    assert work.wait(30).source == others[0].rank
    assert x.tolist() == [6, 6, 6]
    sent.wait(30)
    for comm in (first, *others):
        comm.close()
