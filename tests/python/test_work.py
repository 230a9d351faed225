"""Operations that go on by themselves: wait, ask, await, be told, forget."""

from __future__ import annotations

import array
import asyncio
import gc
import logging
import threading
from typing import Any

import numpy as np
import pytest

import pyccl

PEERS = 2


def test_several_operations_at_once(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[float]:
        arrays = [np.full(1000 + i, float(i)) for i in range(20)]
        works = [comm.all_reduce(x, async_op=True) for x in arrays]
        for work in works:
            info = work.wait(20)
            assert work.done()
            assert work.exception() is None
            assert work.result() == info
        return [x[-1] for x in arrays]

    assert run_peers(PEERS, function) == [[2.0 * i for i in range(20)]] * PEERS


def test_a_wait_may_end_before_the_operation(run_peers: Any) -> None:
    go = threading.Event()

    def function(comm: pyccl.Communicator) -> float:
        x = np.ones(3)
        if comm.rank == 1:
            assert go.wait(20)
        work = comm.all_reduce(x, async_op=True)
        if comm.rank == 0:
            with pytest.raises(pyccl.OperationTimeout, match="goes on"):
                work.wait(0.05)
            assert not work.done()
            with pytest.raises(pyccl.OperationTimeout, match="not ended"):
                work.result()
            assert "under way" in repr(work)
            go.set()
        work.wait(20)
        assert "world_size=2" in repr(work)
        return x[0]

    assert run_peers(PEERS, function) == [2.0, 2.0]


def test_works_can_be_awaited(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[float]:
        async def main() -> list[float]:
            arrays = [np.full(10, float(i)) for i in range(5)]
            works = [comm.all_reduce(x, async_op=True) for x in arrays]

            async def one(work: pyccl.Work) -> pyccl.OperationInfo:
                return await work

            infos = await asyncio.gather(*(one(work) for work in works))
            assert [info.world_size for info in infos] == [PEERS] * 5
            assert await works[0] == infos[0]  # one that has ended, again
            return [x[0] for x in arrays]

        return asyncio.run(main())

    assert run_peers(PEERS, function) == [[0.0, 2.0, 4.0, 6.0, 8.0]] * PEERS


def test_awaiting_raises_the_error(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        async def main() -> None:
            with pytest.raises(pyccl.MismatchError):
                await comm.all_reduce(np.ones(2 + comm.rank), async_op=True)

        asyncio.run(main())

    run_peers(PEERS, function)


def test_a_cancelled_task_leaves_the_operation_alone(run_peers: Any) -> None:
    go = threading.Event()

    def function(comm: pyccl.Communicator) -> float:
        x = np.ones(3)
        if comm.rank == 1:
            assert go.wait(20)
            comm.all_reduce(x)
            return x[0]

        async def main() -> pyccl.Work:
            work = comm.all_reduce(x, async_op=True)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(work, 0.05)
            return work

        work = asyncio.run(main())
        go.set()
        work.wait(20)
        return x[0]

    assert run_peers(PEERS, function) == [2.0, 2.0]


def test_callbacks_are_told_once(run_peers: Any, caplog: pytest.LogCaptureFixture) -> None:
    def function(comm: pyccl.Communicator) -> int:
        told: list[pyccl.Work] = []
        both = threading.Event()

        def failing(_: pyccl.Work) -> None:
            raise RuntimeError("from the callback")

        def callback(work: pyccl.Work) -> None:
            told.append(work)
            if len(told) == 2:
                both.set()

        work = comm.all_reduce(np.ones(3), async_op=True)
        work.add_done_callback(failing)
        work.add_done_callback(callback)
        work.wait(20)
        work.add_done_callback(callback)  # it has ended: told all the same
        assert both.wait(20)
        assert told == [work, work]
        return len(told)

    with caplog.at_level(logging.ERROR, "pyccl"):
        assert run_peers(PEERS, function) == [2, 2]
    assert "from the callback" in caplog.text


def test_what_a_program_raises_stops_nobody_elses_callbacks(
    alone: pyccl.Communicator, caplog: pytest.LogCaptureFixture
) -> None:
    def exits(_: pyccl.Work) -> None:
        raise SystemExit("from the callback")

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("from the handler")

    raising = Raising()
    logging.getLogger("pyccl").addHandler(raising)
    try:
        with caplog.at_level(logging.DEBUG, "pyccl"), pyccl.Coordinator("127.0.0.1:0") as other:
            alone.all_reduce(np.ones(3), async_op=True).add_done_callback(exits)
            pyccl.connect(other.address, timeout=20).close()
    finally:
        logging.getLogger("pyccl").removeHandler(raising)

    async def main() -> int:
        return (await alone.all_reduce(np.ones(3), async_op=True)).world_size

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 1


def test_a_dropped_work_keeps_its_memory_until_it_has_ended(run_peers: Any) -> None:
    go = threading.Event()

    def function(comm: pyccl.Communicator) -> float:
        memory = array.array("d", [1.0] * 100_000)
        if comm.rank == 1:
            assert go.wait(20)
            comm.all_reduce(memory, tag=1)
            comm.barrier()
            return memory[-1]
        comm.all_reduce(memory, tag=1, async_op=True)
        gc.collect()
        # An array that is lent can't grow, since that would move it.
        with pytest.raises(BufferError):
            memory.append(0.0)
        go.set()
        comm.barrier()
        comm.leave()
        memory.append(0.0)
        return memory[-2]

    assert run_peers(PEERS, function) == [2.0, 2.0]


def test_closing_ends_what_is_open(run_peers: Any) -> None:
    closed = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        closes = comm.rank == 0  # with the next view the other one has that rank
        comm.barrier()
        if closes:
            work = comm.all_reduce(np.ones(3), async_op=True)
            comm.close()
            closed.set()
            with pytest.raises(pyccl.ClosedError):
                work.wait(20)
        else:
            assert closed.wait(20)  # alone the operation would succeed

    run_peers(PEERS, function)
