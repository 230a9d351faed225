"""Works of collectives that give arrays."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import numpy as np
import pytest

import pyccl

PEERS = 3


def test_waiting_gives_what_the_call_would_have_given(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x, out = np.full(4, float(rank)), np.empty((PEERS, 4))
        gathered = comm.all_gather(x, async_op=True)
        into = comm.all_gather(x, out=out, async_op=True)
        shares = comm.reduce_scatter(np.arange(3.0), async_op=True)
        at_root = comm.gather(x, 1, async_op=True)
        own = comm.scatter(np.arange(6.0).reshape(3, 2), async_op=True)
        swapped = comm.all_to_all([np.arange(3) + 10 * rank] * 2, async_op=True)
        plain = comm.broadcast(x.copy(), async_op=True)
        reached = comm.barrier(async_op=True)

        y = gathered.wait(20)
        assert y[:, 0].tolist() == [0, 1, 2]
        assert gathered.result() is y
        assert gathered.info().members == PEERS
        assert gathered.exception() is None
        assert "world_size=3" in repr(gathered)
        assert into.wait(20) is out
        assert shares.wait(20).tolist() == [3.0 * rank]
        assert (at_root.wait(20) is None) == (rank != 1)
        assert own.wait(20).tolist() == [2 * rank, 2 * rank + 1]
        assert [one.tolist() for one in swapped.wait(20)] == [[rank, 10 + rank, 20 + rank]] * 2
        assert isinstance(plain.wait(20), pyccl.OperationInfo)
        assert reached.wait(20) == reached.info()
        comm.barrier()

    run_peers(PEERS, function)


def test_await_gives_it_too(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        async def main() -> None:
            works = [comm.all_gather(np.full(2, float(i)), async_op=True) for i in range(5)]
            for i, work in enumerate(works):
                assert (await work).tolist() == [[i, i]] * PEERS
            with pytest.raises(pyccl.InvalidArgumentError):
                await comm.reduce_scatter(np.ones(4), async_op=True)
            assert (await comm.barrier(async_op=True)).members == PEERS

        asyncio.run(main())
        comm.barrier()

    run_peers(PEERS, function)


def test_callbacks_can_ask_for_it(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        found: list[Any] = []
        told = threading.Event()

        def callback(work: pyccl.Work[Any]) -> None:
            found.append(work.result())
            told.set()

        comm.all_gather(np.full(2, 5.0), async_op=True).add_done_callback(callback)
        assert told.wait(20)
        assert found[0].tolist() == [[5, 5]] * PEERS
        comm.barrier()

    run_peers(PEERS, function)


def test_an_error_comes_out_of_all_of_them(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        work = comm.all_gather(np.ones(3 + comm.rank % 2), async_op=True)
        with pytest.raises(pyccl.MismatchError):
            work.wait(20)
        for ask in (work.result, work.info):
            with pytest.raises(pyccl.MismatchError):
                ask()
        assert isinstance(work.exception(), pyccl.MismatchError)
        comm.barrier()

    run_peers(PEERS, function)


def test_asked_too_early(run_peers: Any) -> None:
    go = threading.Event()

    def function(comm: pyccl.Communicator) -> None:
        if comm.rank == 0:
            assert go.wait(20)
        work = comm.all_gather(np.ones(2), async_op=True)
        if comm.rank == 1:
            for ask in (work.result, work.info, work.exception):
                with pytest.raises(pyccl.OperationTimeout, match="not ended"):
                    ask()
            go.set()
        assert work.wait(20).shape == (PEERS, 2)
        comm.barrier()

    run_peers(PEERS, function)


def test_a_dropped_work_keeps_its_new_arrays(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        for _ in range(5):
            comm.all_gather(np.ones(100_000), async_op=True)
            comm.all_to_all(np.ones(99_999), async_op=True)
        gc.collect()
        comm.barrier()

    run_peers(PEERS, function)


@pytest.mark.parametrize(
    ("peers", "tags", "rounds"), [(3, 4, 20), pytest.param(4, 8, 200, marks=pytest.mark.slow)]
)
def test_threads_mix_collectives_on_tags_of_their_own(
    run_peers: Any, peers: int, tags: int, rounds: int
) -> None:
    total = sum(range(peers))

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        failures: list[BaseException] = []

        def loop(tag: int) -> None:
            try:
                for i in range(rounds):
                    x = np.full(30 + tag, float(rank + i))
                    kind = (tag + i) % 5
                    if kind == 0:
                        comm.all_reduce(x, tag=tag)
                        assert x[0] == peers * i + total
                    elif kind == 1:
                        found = comm.all_gather(x, tag=tag)
                        assert found[:, -1].tolist() == [each + i for each in range(peers)]
                    elif kind == 2:
                        comm.broadcast(x, i % peers, tag=tag)
                        assert x[0] == i % peers + i
                    elif kind == 3:
                        share = comm.reduce_scatter(np.repeat(x[:1], 2 * peers), tag=tag)
                        assert share.tolist() == [peers * i + total] * 2
                    else:
                        found = comm.all_to_all(np.repeat(x[:1], peers), tag=tag)
                        assert found.tolist() == [each + i for each in range(peers)]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=loop, args=(tag,)) for tag in range(tags)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        comm.barrier()

    run_peers(peers, function)
