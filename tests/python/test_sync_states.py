"""What a state is to its owner around a sync: looked at, kept, loaded, told of."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyccl

from .states import BLOCK, Shapes, state_of

LARGE: Shapes = {"w": ("u1", (48 * BLOCK,)), "step": ("i8", ())}


def test_another_thread_may_look_at_the_state_while_it_is_synced(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> int:
        state = state_of(comm.rank, comm.rank, LARGE)
        over = threading.Event()
        looks = []

        def look() -> None:
            while not over.is_set():
                looks.append((state.revision, state.void, repr(state)))

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        for _ in range(20):
            comm.sync(state)
        over.set()
        looker.join(30)
        assert not looker.is_alive()
        assert looks
        return state.revision

    assert run_peers(2, function) == [1, 1]


def test_progress_may_look_at_the_state_and_not_change_it(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        state = state_of(comm.rank, comm.rank, LARGE)

        def progress(moved: int, to_move: int) -> None:
            assert state.revision in (0, 1)
            with pytest.raises(pyccl.InvalidArgumentError, match="is running"):
                state.revision = 9
            with pytest.raises(pyccl.InvalidArgumentError, match="is running"):
                state.digest()

        comm.sync(state, progress=progress)
        assert state.revision == 1
        with pytest.raises(pyccl.InvalidTypeError, match="progress is 5"):
            comm.sync(state, progress=5)  # type: ignore[arg-type]

    run_peers(2, function)


def test_a_loaded_state_may_go_back(run_peers: Any, tmp_path: Path) -> None:
    def function(comm: pyccl.Communicator) -> int:
        state = pyccl.SharedState({"x": np.zeros(3)}, 5, expect_next=True)
        path = tmp_path / str(comm.rank)
        state.save(path)
        comm.sync(state)
        state.revision = 6
        comm.sync(state)
        state.load(path)
        return comm.sync(state).revision

    assert run_peers(2, function) == [5, 5]


def test_who_was_behind_is_told_of_the_state_that_was_elected_at_last(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> Any:
        newest = comm.rank == 2
        state = state_of(newest, newest, LARGE)

        def die(moved: int, to_move: int) -> None:
            if moved < to_move:
                comm.close()

        try:
            info = comm.sync(state, progress=die if newest else None)
        except pyccl.PycclError:
            return None
        return info.revision, [each.revision for each in info.behind]

    results = run_peers(3, function)
    # It died before the others had all, or behind that; the others agree in any case.
    assert results[0] == results[1]
    assert results[0] in ((0, []), (1, [0, 0]))


def test_a_call_that_was_never_one_moves_no_boundary(run_peers: Any) -> None:
    """Who gives up what nobody else has called is at the same boundary as the others."""

    def function(comm: pyccl.Communicator) -> int:
        comm.update()
        if comm.rank == 0:
            work = comm.all_reduce(np.zeros(3), async_op=True, tag=5)
            comm._core.cancel(work._core)  # as Ctrl-C in a blocking call does
            with pytest.raises(pyccl.CancelledError):
                work.wait(30)
        state = state_of(comm.rank, comm.rank, LARGE)
        return comm.sync(state, timeout=20).revision

    assert run_peers(2, function) == [1, 1]


def test_a_call_that_waited_for_a_number_counts(run_peers: Any) -> None:
    """Who has given up a call of a tag has its next one held back until all know of the first."""
    ready = threading.Barrier(2)

    def function(comm: pyccl.Communicator) -> int:
        comm.update()
        epoch = comm.epoch
        ready.wait(30)
        if comm.rank == 0:
            work = comm.all_reduce(np.zeros(3), async_op=True, tag=5)
            comm._core.cancel(work._core)
        else:  # not before the first one is no operation any more
            limit = time.monotonic() + 30
            while comm.epoch == epoch and time.monotonic() < limit:
                time.sleep(0.001)
        comm.all_reduce(np.zeros(3), tag=5)
        state = state_of(comm.rank, comm.rank, LARGE)
        return comm.sync(state, timeout=20).revision

    assert run_peers(2, function) == [1, 1]
