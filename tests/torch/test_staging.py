"""Tensors of another device, which here is one of the tests' own."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from devices import Device
from torch import distributed as dist

import pyccl
from pyccl.torch import ProcessGroup, calls, chunks, staging
from pyccl.torch.errors import MismatchError
from pyccl.torch.staging import Copies, Stager

# Smaller than they are, and so are the tensors that have several of them.
CHUNK_BYTES = 4 << 20
MANY = 2 * CHUNK_BYTES // 4 + 1000  # three chunks of f32


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(delay=0.0005)
    monkeypatch.setattr(staging, "elsewhere", device.has)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(staging, "stream_of", lambda _: device)
    yield device
    device.close()


def counting(count: int, *, step: float = 1.0) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32).mul_(step)


@pytest.mark.parametrize("count", [0, 1, 1000, MANY])
def test_reductions(run_ranks: Any, device: Device, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank, world = group.rank(), group.size()
        whole = counting(world * count)
        x = device.put(counting(count, step=rank + 1))
        group.allreduce([x]).wait()
        assert torch.equal(x, counting(count, step=3))
        x = device.put(counting(count, step=rank + 1))
        group.reduce([x], root=1).wait()
        assert torch.equal(x, counting(count, step=3 if rank == 1 else rank + 1))
        x, out = device.put(whole * (rank + 1)), device.put(torch.zeros(count))
        group.reduce_scatter_single(out, x).wait()
        assert torch.equal(out, 3 * whole[rank * count : (rank + 1) * count])
        x, out = device.put(whole * (rank + 1)), device.put(torch.zeros(count))
        group.reduce_scatter([out], [list(x.chunk(world))] if count else [[out] * 2]).wait()
        assert torch.equal(out, 3 * whole[rank * count : (rank + 1) * count])

    run_ranks(2, function)


@pytest.mark.parametrize("count", [0, 1, 1000, MANY])
def test_movements(run_ranks: Any, device: Device, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank, other = group.rank(), 1 - group.rank()
        x = device.put(counting(count, step=rank + 1))
        group.broadcast([x], root=1).wait()
        assert torch.equal(x, counting(count, step=2))
        x = device.put(counting(count, step=rank + 1))
        out = device.put(torch.zeros(2 * count))
        group.all_gather_single(out, x).wait()
        both = torch.cat([counting(count), counting(count, step=2)])
        assert torch.equal(out, both)
        outs = [device.put(torch.zeros(count)) for _ in range(2)]
        group.allgather([outs], [x]).wait()
        assert torch.equal(torch.cat(outs), both)
        out.zero_()
        group.all_to_all_single(out, device.put(both * (rank + 1))).wait()
        own = counting(count, step=rank + 1)
        assert torch.equal(out, torch.cat([own, 2 * own]))
        if rank == 0:
            group.send([x], 1, 3).wait()
        else:
            group.recv([x], 0, 3).wait()
            assert torch.equal(x, counting(count))
        gathered = [device.put(torch.zeros(count)) for _ in range(2)] if rank == 0 else []
        group.gather([gathered] if gathered else [], [x], root=0).wait()
        if gathered:
            assert torch.equal(gathered[other], counting(count))
        group.scatter([x], [gathered] if gathered else [], root=0).wait()
        assert torch.equal(x, counting(count))

    run_ranks(2, function)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.complex64, torch.int64])
def test_types(run_ranks: Any, device: Device, dtype: torch.dtype) -> None:
    def function(group: ProcessGroup) -> None:
        x = device.put(torch.ones(7).to(dtype))
        group.allreduce([x]).wait()
        assert torch.equal(x, torch.full((7,), 1 if dtype == torch.bool else 2).to(dtype))
        outs = [device.put(torch.zeros(7).to(dtype)) for _ in range(2)]
        group.allgather([outs], [x]).wait()
        assert torch.equal(outs[0], x)
        assert torch.equal(outs[1], x)

    run_ranks(2, function)


def test_other_forms(run_ranks: Any, device: Device) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        # Strided, and in chunks.
        x = device.put(torch.ones(MANY, 2))[:, 0]
        group.allreduce([x]).wait()
        assert torch.equal(x, torch.full((MANY,), 2.0))
        out = device.put(torch.zeros(4, MANY))[::2]
        group.all_gather_single(out, x.mul_(rank + 1)).wait()
        assert torch.equal(out, torch.tensor([[2.0], [4.0]]).expand(2, MANY))
        # Whole numbers are divided behind their sum.
        x = device.put(torch.full((5,), 3 + 2 * rank))
        group.allreduce([x], op=dist.ReduceOp.AVG).wait()
        assert x.tolist() == [4] * 5
        x = device.put(counting(5))
        group.allreduce([x], op=dist._make_nccl_premul_sum(0.5)).wait()
        assert x.tolist() == counting(5).tolist()
        # Some of one operation here, others there, of lengths that put pieces at odd places.
        many = [device.put(torch.full((3,), True)), torch.full((2,), True)]
        outs = [[device.put(torch.zeros(3, dtype=torch.bool)), torch.zeros(2, dtype=torch.bool)]]
        outs.append([torch.zeros(3, dtype=torch.bool), device.put(torch.zeros(2).bool())])
        group.allgather_coalesced(outs, many).wait()
        assert all(one.all() for of_rank in outs for one in of_rank)
        uneven = [device.put(torch.ones(1, dtype=torch.uint8)), device.put(torch.ones(3))]
        outs2 = [device.put(torch.zeros_like(uneven[rank])) for _ in range(2)]
        group.alltoall(outs2, uneven).wait()
        assert all((one == 1).all() for one in outs2)

    run_ranks(2, function)


def test_waiting_is_for_the_device_too(run_ranks: Any, device: Device) -> None:
    device.delay = 0.05

    def function(group: ProcessGroup) -> None:
        for x in (torch.ones(3), torch.ones(MANY), torch.ones(MANY, 2)[:, 1]):
            work = group.allreduce([device.put(x)])
            assert not work.is_completed()
            work.wait()
            assert torch.equal(x, torch.full_like(x, 2.0))
            assert work.is_success()
            assert work.result()[0] is x
            work = group.allreduce([device.put(x)])
            until(work.is_completed)
            assert torch.equal(x, torch.full_like(x, 4.0))

    run_ranks(2, function)


def test_it_comes_behind_what_the_caller_asks_of_the_device(run_ranks: Any, device: Device) -> None:
    """Also where nothing is fetched."""

    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        for call in (
            lambda x: group.broadcast([x], root=0),
            lambda x: group.recv([x], 0) if rank == 1 else group.send([x], 1),
            lambda x: group.scatter([x], [[x, x]] if rank == 0 else [], root=0),
        ):
            followed = device.followed
            call(device.put(torch.ones(3))).wait()
            assert device.followed > followed

    run_ranks(2, function)


def test_nothing_is_kept(run_ranks: Any, device: Device) -> None:
    def function(group: ProcessGroup) -> None:
        # The first one is torch's: its modes remember where they were used first.
        group.allreduce([device.put(torch.ones(3))]).wait()
        gone = []
        for count in (3, MANY, 3):
            x = device.put(torch.ones(count))
            gone.append(weakref.ref(x))
            group.allreduce([x]).wait()
            device.forget(x)
            del x
        group.barrier().wait()
        until(lambda: not any(one() is not None for one in gone))

    gc.disable()
    try:
        run_ranks(2, function)
    finally:
        gc.enable()


@pytest.mark.parametrize("more", [CHUNK_BYTES // 4, -CHUNK_BYTES // 4, 1])
def test_unlike_sizes_are_refused(run_ranks: Any, device: Device, more: int) -> None:
    """By all, whether the numbers of chunks are alike or not."""

    def function(group: ProcessGroup) -> None:
        count = MANY + more * group.rank()
        with pytest.raises(MismatchError):
            group.allreduce([device.put(torch.ones(count))]).wait()

    run_ranks(2, function)


def test_callbacks_do_not_wait_for_each_others_room(
    run_ranks: Any, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They begin in another order on each rank, so no bound on what is under way may hold them."""
    monkeypatch.setattr(calls, "_OPEN_MAX", 2)

    def function(group: ProcessGroup) -> list[float]:
        met = threading.Barrier(2)

        def again(first: bool) -> Callable[[Any], torch.Tensor]:
            def run(done: Any) -> torch.Tensor:
                met.wait(20)
                time.sleep(0.05 if first == (group.rank() == 0) else 0.0)
                group.allreduce([x := device.put(torch.ones(MANY))]).wait()
                return x

            return run

        futures = [group.allreduce([torch.ones(3)]).get_future() for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:  # where they have ended, then() calls it at once
            chained = threads.map(lambda one, first: one.then(again(first)), futures, (True, False))
            return [future.wait()[-1].item() for future in chained]

    assert run_ranks(2, function) == [[2.0, 2.0]] * 2


def test_the_order_of_calls_is_kept_beside_other_tensors(run_ranks: Any, device: Device) -> None:
    device.delay = 0.02

    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        here, there = torch.ones(3), device.put(torch.full((3,), 5.0))
        works = [group.allreduce([there]), group.allreduce([here])]
        if rank == 0:
            sent = device.put(torch.full((3,), 7.0)), torch.full((3,), 8.0)
            works += [group.send([one], 1) for one in sent]
        else:
            got = [torch.zeros(3), device.put(torch.zeros(3))]
            works += [group.recv([one], 0) for one in got]
        for work in works:
            work.wait()
        assert (here.tolist(), there.tolist()) == ([2.0] * 3, [10.0] * 3)
        if rank == 1:
            assert [one[0].item() for one in got] == [7.0, 8.0]

    run_ranks(2, function)


def test_calls_that_wait(run_ranks: Any, device: Device) -> None:
    """Begin behind those that are on their way."""
    device.delay = 0.005

    def function(group: ProcessGroup) -> None:
        options = dist.AllreduceOptions()
        options.asyncOp = False
        for count in (3, MANY):
            before, x = device.put(torch.ones(count)), device.put(counting(count))
            work = group.allreduce([before])
            group.allreduce([x], options)
            assert torch.equal(x, counting(count, step=2))
            work.wait()
            assert torch.equal(before, torch.full((count,), 2.0))
        device.forget(x)
        x = device.put(torch.ones(3 + group.rank()))
        with pytest.raises(MismatchError):
            group.allreduce([x], options)

    run_ranks(2, function)


def test_futures(run_ranks: Any, device: Device) -> None:
    def function(group: ProcessGroup) -> list[float]:
        def again(done: Any) -> torch.Tensor:
            (x,) = done.value()
            device.ask(lambda: x.mul_(3), x)
            mark = device.mark()
            mark.synchronize()
            group.allreduce([x]).wait()
            return x

        futures = []
        for count in (MANY, 3):
            futures.append(group.allreduce([device.put(torch.ones(count))]).get_future())
        return [future.then(again).wait()[-1].item() for future in futures]

    assert run_ranks(2, function) == [[12.0] * 2] * 2


def test_copies_run_while_the_network_works(
    run_ranks: Any, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first chunk travels before the last one is fetched, and is put back before the last one
    has begun: each waits for the other here."""
    began, put = threading.Event(), threading.Event()
    fetched: list[int] = []
    waited: list[bool] = []

    def before_copy(target: torch.Tensor) -> None:
        if device.has(target):
            put.set()
            return
        fetched.append(1)
        if len(fetched) == 2:
            waited.append(began.wait(20))

    def function(group: ProcessGroup) -> None:
        x = torch.ones(MANY)
        if group.rank() == 0:
            core, calls = group._group, []

            def all_reduce(*args: Any, **options: Any) -> Any:
                calls.append(1)
                if len(calls) == 3:
                    waited.append(put.wait(20))
                work = core.all_reduce(*args, **options)
                began.set()
                return work

            monkeypatch.setattr(group, "_group", Watched(core, all_reduce))
            device.put(x)
            device.before = before_copy
            group.allreduce([x]).wait()
        else:
            for piece in group._slices(device.put(torch.empty(MANY))):
                group.allreduce([x[piece]]).wait()
        assert torch.equal(x, torch.full((MANY,), 2.0))

    run_ranks(2, function)
    assert waited == [True, True]


class Watched:
    def __init__(self, group: Any, all_reduce: Callable[..., Any]) -> None:
        self.all_reduce = all_reduce
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


def test_errors(run_ranks: Any, device: Device) -> None:
    def function(group: ProcessGroup) -> None:
        x = device.put(torch.ones(3))
        work = group.send([x], 5)
        with pytest.raises(dist.DistBackendError, match="5"):
            work.wait()
        with pytest.raises(RuntimeError, match="5"):
            work.get_future().wait()
        group.allreduce([x]).wait()
        if group.rank() == 1:
            group.abort()
            return
        large = device.put(torch.ones(MANY))
        work = group.allreduce([large])
        with pytest.raises(dist.DistBackendError, match="rank 1 lost"):
            work.wait()
        assert isinstance(group.errored(), dist.DistBackendError)
        assert not work.is_success()

    run_ranks(2, function)


class Operation:
    """What a stager sees of one: pyccl.Work."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []

    def end(self) -> None:
        self.ended.set()
        for callback in self._callbacks:
            callback(self)

    def wait(self, timeout: float | None = None) -> str:
        if not self.ended.wait(timeout):
            raise pyccl.OperationTimeout("still under way")
        return "ended"

    def done(self) -> bool:
        return self.ended.is_set()

    def exception(self) -> None:
        return None

    info = wait

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)


def test_no_more_are_begun_than_may_be_under_way(device: Device) -> None:
    stager, operations = Stager(open_max=2), [Operation() for _ in range(4)]
    begun: list[int] = []

    def begin(i: int) -> Operation:
        begun.append(i)
        return operations[i]

    staged = [stager.begin(Copies(device), partial(begin, i)) for i in range(4)]
    until(lambda: begun == [0, 1])
    assert not staged[0].done()
    with pytest.raises(pyccl.OperationTimeout):
        staged[3].wait(0.05)
    with pytest.raises(pyccl.OperationTimeout):
        staged[0].wait(0.05)
    operations[1].end()
    until(lambda: begun == [0, 1, 2])
    assert staged[1].done()
    assert staged[1].wait() == "ended"
    operations[0].end()
    stager.drain()
    assert begun == [0, 1, 2, 3]
    stager.stop()


def test_one_that_can_not_begin_leaves_room_for_others(device: Device) -> None:
    stager, told = Stager(open_max=1), threading.Event()

    def fail() -> None:
        raise LookupError("of the beginning")

    first = stager.begin(Copies(device), fail)
    first.add_done_callback(lambda _: told.set())
    assert told.wait(20)
    with pytest.raises(LookupError):
        first.wait()
    with pytest.raises(LookupError):
        first.info()
    assert isinstance(first.exception(), LookupError)
    operation = Operation()
    second = stager.begin(Copies(device), lambda: operation)
    stager.drain()
    operation.end()
    assert second.done()
    stager.stop()
    with pytest.raises(pyccl.ClosedError):
        stager.begin(Copies(device), lambda: operation)
    stager.drain()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.02)  # and stays so
    assert holds()
