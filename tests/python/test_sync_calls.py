"""sync() as a call: its arguments, progress, timeouts, ends from outside, and what else a group
does meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl import SharedState

from .states import BLOCK, Shapes, has, state_of

LARGE: Shapes = {"w": ("u1", (48 * BLOCK,)), "step": ("i8", ())}


# ---- arguments


def test_what_is_no_state(alone: pyccl.Communicator) -> None:
    for given in (None, {}, {"x": np.zeros(3)}, np.zeros(3), SharedState):
        with pytest.raises(pyccl.InvalidTypeError, match="not a SharedState"):
            alone.sync(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["", "Popular", "sendonly", None, 0, ["popular"]])
def test_what_is_no_strategy(alone: pyccl.Communicator, strategy: Any) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match="popular, send_only, receive_only"):
        alone.sync(state_of(0, 0), strategy)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "1"])
def test_what_is_no_timeout(alone: pyccl.Communicator, timeout: Any) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match="timeout is"):
        alone.sync(state_of(0, 0), timeout=timeout)


def test_what_can_not_be_told_of_progress(alone: pyccl.Communicator) -> None:
    # Nothing is moved where there is nobody else, and so it is not called.
    alone.sync(state_of(0, 0), progress=lambda: None)  # type: ignore[arg-type,misc]


def test_nothing_works_after_closing(coordinator: pyccl.Coordinator) -> None:
    comm = pyccl.connect(coordinator.address, timeout=30)
    state = state_of(0, 3)
    comm.leave()
    with pytest.raises(pyccl.ClosedError, match="connect"):
        comm.sync(state)
    has(state, 0, 3)


def test_alone_a_sync_is_as_it_was(alone: pyccl.Communicator) -> None:
    state = state_of(4, 3)
    for _ in range(3):
        info = alone.sync(state)
        has(state, 4, 3)
        assert (info.revision, info.digest) == (3, state.digest())
        assert info.sources == info.behind == info.refuted == ()
        assert (info.blocks_fetched, info.bytes_fetched, info.attempts) == (0, 0, 1)
        assert not info.peers_pending
        assert 0 < info.seconds < 30
    with pytest.raises(pyccl.StateSyncError, match=r"rank 0 .*receive_only"):
        alone.sync(state, "receive_only")


# ---- progress


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_progress_is_told_to_all(run_peers: Any, transport: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[tuple[int, int]]:
        rank = comm.rank
        told: list[tuple[int, int]] = []
        state = state_of(rank == 0, rank == 0, LARGE)
        me = threading.get_ident()

        def progress(moved: int, to_move: int) -> None:
            assert threading.get_ident() == me
            # It may ask the state and the communicator, but for another sync.
            assert state.revision in (0, 1)
            assert comm.world_size == 3
            told.append((moved, to_move))

        comm.sync(state, progress=progress)
        has(state, 1, 1, LARGE)
        return told

    everything = 2 * (48 * BLOCK + 8)
    for told in run_peers(3, function, transport=transport):
        assert len(told) > 2
        assert told == sorted(told)
        assert {to_move for _, to_move in told} == {everything}
        assert told[-1] == (everything, everything)


def test_an_error_in_progress_ends_the_sync_for_all(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> str:
        rank = comm.rank
        state = state_of(rank == 0, rank == 0, LARGE)
        calls = []

        def fail(moved: int, to_move: int) -> None:
            calls.append(moved)
            raise LookupError("of the user")

        text = ""
        if rank == 1:
            with pytest.raises(LookupError, match="of the user"):
                comm.sync(state, progress=fail)
            assert len(calls) == 1
        else:
            with pytest.raises(pyccl.CancelledError) as caught:
                comm.sync(state)
            text = str(caught.value)
        # So little was to be fetched that the old bits are still there.
        has(state, rank == 0, rank == 0, LARGE)
        comm.sync(state)
        has(state, 1, 1, LARGE)
        return text

    texts = run_peers(3, function)
    assert "rank 1" in texts[0]


def test_an_error_in_a_later_call_of_progress(run_peers: Any) -> None:
    """Then parts have come already; what was fetched is either all there or not at all."""

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank == 0, rank == 0, LARGE)
        for late in (0.3, 0.6, 1.0):
            if rank != 0:
                state = state_of(0, 0, LARGE)

            def fail(moved: int, to_move: int, late: float = late) -> None:
                if rank == 2 and moved >= late * to_move:
                    raise LookupError("of the user")

            raised = LookupError if rank == 2 else pyccl.CancelledError
            with pytest.raises(raised):
                comm.sync(state, progress=fail)
            assert state.void == ()
            has(state, state.revision, rank == 0 or state.revision, LARGE)
            comm.sync(state)
            has(state, 1, 1, LARGE)

    run_peers(3, function)


# ---- ends from outside


def test_who_does_not_come_is_named(run_peers: Any) -> None:
    timed_out = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 3 + rank)
        if rank == 2:
            assert timed_out.wait(20)
        with pytest.raises(pyccl.OperationTimeout) as caught:
            comm.sync(state, timeout=1.5 if rank != 2 else 20)
        assert "rank 2" in str(caught.value)
        timed_out.set()
        has(state, rank, 3 + rank)
        comm.sync(state)
        has(state, 2, 5)

    run_peers(3, function)


def test_who_does_not_come_to_the_boundary_is_named(run_peers: Any) -> None:
    timed_out = threading.Barrier(2)

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 3 + rank)
        comm.barrier()
        if rank == 0:
            with pytest.raises(pyccl.OperationTimeout, match="rank 1"):
                comm.sync(state, timeout=1.5)
        timed_out.wait(20)
        comm.sync(state)
        has(state, 1, 4)

    run_peers(2, function)


def test_only_one_sync_at_a_time(run_peers: Any) -> None:
    refused = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, rank)
        if rank == 1:
            assert refused.wait(20)
            comm.sync(state)
        else:
            # The first one that comes waits for rank 1, so the second one is refused.
            states, ends = [state, state_of(rank, rank)], []

            def sync(one: SharedState) -> None:
                try:
                    comm.sync(one)
                    has(one, 1, 1)
                    ends.append("well")
                except pyccl.InvalidArgumentError as error:
                    has(one, 0, 0)
                    ends.append(str(error))
                    refused.set()

            threads = [threading.Thread(target=sync, args=(one,)) for one in states]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert "already running" in ends[0]
            assert ends[1:] == ["well"]
        comm.barrier()

    run_peers(2, function)


def test_a_member_that_closes_meanwhile(run_peers: Any) -> None:
    """The others begin again, and what it alone had is gone."""

    def function(comm: pyccl.Communicator) -> pyccl.SyncInfo | None:
        rank = comm.rank
        state = state_of(rank, 5 if rank == 2 else 4, LARGE)

        def progress(moved: int, to_move: int) -> None:
            if rank == 2 and moved > 0:
                comm.close()

        if rank == 2:
            with pytest.raises(pyccl.ClosedError):
                comm.sync(state, progress=progress)
            return None
        info = comm.sync(state, progress=progress)
        comm.barrier()
        # Whether it was too late for it to be missed is a matter of moments.
        content, revision = (2, 5) if info.revision == 5 else (0, 4)
        has(state, content, revision, LARGE)
        return info

    first, second, _ = run_peers(3, function)
    assert (first.revision, first.digest) == (second.revision, second.digest)
    assert first.behind == second.behind
    assert first.attempts == second.attempts >= 1


def test_closing_from_another_thread(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 4)
        if rank == 1:
            threading.Timer(0.2, comm.close).start()
            comm.barrier()
            with pytest.raises(pyccl.ClosedError):
                comm.sync(state)
            return
        comm.barrier()
        # Rank 0 comes when the other one is gone, or going.
        while comm.world_size > 1:
            comm.barrier()
        comm.sync(state)
        has(state, 0, 4)

    run_peers(2, function)


def test_what_was_written_in_part_is_void_until_it_is_vouched_for(run_peers: Any) -> None:
    """More than what is kept aside, and the only holder goes in the middle."""
    huge: Shapes = {"a": ("u1", (70 * BLOCK,)), "b": ("u1", (70 * BLOCK,)), "c": ("i8", (3,))}

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 5 if rank == 2 else 4, huge)

        def progress(moved: int, to_move: int) -> None:
            if rank == 2 and moved > to_move / 4:
                comm.close()

        if rank == 2:
            with pytest.raises(pyccl.ClosedError):
                comm.sync(state, progress=progress)
            return
        with pytest.raises(pyccl.StateSyncError) as caught:
            comm.sync(state, progress=progress)
        assert state.void
        assert set(state.void) <= set(huge)
        assert all(f"'{name}'" in str(caught.value) for name in state.void)
        assert state.revision == 4
        with pytest.raises(pyccl.StateSyncError, match=r"rank 0 .*half overwritten"):
            comm.sync(state)
        with pytest.raises(pyccl.StateFileError, match="not whole"):
            state.save("/nowhere/at/all")
        if rank == 0:
            state = state_of(7, 6, huge)
        comm.sync(state)
        has(state, 7, 6, huge)

    run_peers(3, function)


# ---- groups, subgroups and boundaries


def test_two_groups_of_one_coordinator(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator, content: int) -> None:
        rank = comm.rank
        for turn in range(5):
            state = state_of(content + rank, turn + rank)
            info = comm.sync(state)
            has(state, content + 1, turn + 1)
            assert [each.rank for each in info.behind] == [0]

    failures: list[BaseException] = []

    def group(name: str, content: int) -> None:
        try:
            run_peers(2, lambda comm: function(comm, content), group=name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=group, args=(f"g{i}", 10 * i)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_what_some_members_do_does_not_touch_the_boundary(run_peers: Any) -> None:
    """Operations of a subgroup and of pairs are unknown to the others, who may be at a boundary."""

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        for turn in range(3):
            if rank != 2:
                x = np.ones(5)
                comm.subgroup([0, 1]).all_reduce(x)
                comm.exchange(x.copy(), x, peer=1 - rank)
                assert x[0] == 2
            state = state_of(rank, turn)
            epoch = comm.epoch
            comm.sync(state)
            has(state, 0, turn)
            # Only the last of them has a boundary, after an operation of all.
            assert turn == 2 or comm.epoch == epoch
            if turn == 0:
                comm.update()
            elif turn == 1:
                comm.all_reduce(np.ones(3))

    run_peers(3, function)


def test_pairs_may_talk_meanwhile(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank == 0, rank == 0, LARGE)
        x = np.full(1 << 18, float(rank), np.float32)
        told = []

        def progress(moved: int, to_move: int) -> None:
            if not told:
                told.append(comm.exchange(x.copy(), x, peer=1 - rank, async_op=True))

        comm.sync(state, progress=progress)
        has(state, 1, 1, LARGE)
        told[0].wait(20)
        assert (x == 1 - rank).all()

    run_peers(2, function)


# ---- joiners


@pytest.mark.parametrize("explicit", [False, True])
def test_joiners_get_the_state_in_their_first_sync(
    coordinator: pyccl.Coordinator, explicit: bool
) -> None:
    """Members loop; four newcomers come, one after the other, with zeros."""
    shapes: Shapes = {"w": ("f4", (5000,)), "v": ("u1", (2 * BLOCK + 3,)), "step": ("i8", ())}
    newcomers, failures = 4, []
    joined = threading.Semaphore(0)

    def loop(number: int) -> None:
        with pyccl.connect(
            coordinator.address, timeout=30, world_size_min=2 if number < 2 else 1
        ) as comm:
            joins = number >= 2
            if not joins:
                joined.release()
            state = state_of(0, 0, shapes)
            for one in state.values():
                one.fill(0)
            if not joins:
                state = state_of(1, 1, shapes)
            while True:
                info = comm.sync(state)
                if joins:
                    joins = False
                    assert comm.rank in [each.rank for each in info.behind]
                    assert info.bytes_fetched == state.bytes
                    joined.release()
                has(state, info.revision % 200, info.revision, shapes)
                there = np.array([comm.world_size])
                comm.all_reduce(there, op="min")
                if there[0] == 2 + newcomers:
                    return
                state_next = state_of((info.revision + 1) % 200, 0, shapes)
                for name, one in state.items():
                    one[...] = state_next[name]
                state.revision += 1
                if explicit and comm.peers_pending:
                    comm.update()

    def guarded(number: int) -> None:
        try:
            loop(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    # Else a newcomer might be the first one.
    for _ in threads:
        assert joined.acquire(timeout=30), failures
    for number in range(newcomers):
        threads.append(threading.Thread(target=guarded, args=(2 + number,), daemon=True))
        threads[-1].start()
        assert joined.acquire(timeout=30), failures
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_joiners_that_wait_are_told_of(coordinator: pyccl.Coordinator, run_peers: Any) -> None:
    def join() -> None:
        with pyccl.connect(coordinator.address, timeout=30) as comm:
            state = state_of(0, 0, LARGE)
            comm.sync(state)
            assert state.revision > 0
            comm.barrier()

    joiner = threading.Thread(target=join, daemon=True)

    def function(comm: pyccl.Communicator) -> list[bool]:
        rank, found = comm.rank, []

        def progress(moved: int, to_move: int) -> None:
            # It comes in the middle of a sync, which has operations left to hear of it by.
            if rank == 0 and joiner.ident is None:
                joiner.start()
            if rank == 0:
                joiner.join(0.1)

        for revision in range(1, 1000):
            state = state_of(revision % 200 if rank == 0 else 0, revision * (rank == 0), LARGE)
            info = comm.sync(state, progress=progress)
            has(state, revision % 200, revision, LARGE)
            assert info.peers_pending == comm.peers_pending
            found.append(info.peers_pending)
            if comm.world_size == 3:
                break
            if info.peers_pending:
                comm.update()
                comm.sync(state)
                break
        assert comm.world_size == 3
        assert not comm.peers_pending
        comm.barrier()
        return found

    first, second = run_peers(2, function)
    joiner.join(30)
    assert not joiner.is_alive()
    assert first == second
