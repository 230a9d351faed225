"""On a machine that has a device of CUDA, with its streams; see test_staging.py for the others."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import distributed as dist

from pyccl.torch import ProcessGroup, chunks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

# Smaller than they are, and so are the tensors that have several of them.
CHUNK_BYTES = 4 << 20
MANY = 5 * CHUNK_BYTES // 4 + 1000
# Of an operation that is not divided; it takes milliseconds to the device.
LARGE = 32 << 20


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", CHUNK_BYTES)


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, device="cuda")


@pytest.mark.parametrize("count", [1, 1000, MANY])
def test_operations(run_ranks: Any, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank, world = group.rank(), group.size()
        x = ones(count) * (rank + 1)
        group.allreduce([x]).wait()
        assert torch.equal(x, ones(count) * 3)
        out = torch.empty(world * count, device="cuda")
        group.all_gather_single(out, x * (rank + 1)).wait()
        assert torch.equal(out, torch.cat([x, 2 * x]))
        group.reduce_scatter_single(x, out).wait()
        assert torch.equal(x, ones(count) * 6 * (rank + 1))
        group.all_to_all_single(out, torch.cat([x, 10 * x])).wait()
        scale = 10.0 if rank == 1 else 1.0
        assert torch.equal(out, torch.cat([ones(count) * 6 * scale, ones(count) * 12 * scale]))
        group.broadcast([x], root=1).wait()
        assert torch.equal(x, ones(count) * 12)
        strided = ones(count, 2)
        group.allreduce([strided[:, 1]]).wait()
        assert torch.equal(strided, torch.tensor([[1.0, 2.0]], device="cuda").expand(count, 2))
        if rank == 0:
            group.send([x], 1).wait()
        else:
            group.recv([x.zero_()], 0).wait()
            assert torch.equal(x, ones(count) * 12)

    run_ranks(2, function)


@pytest.mark.parametrize("count", [7, MANY])
@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64],
)
def test_types(run_ranks: Any, dtype: torch.dtype, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        x = (torch.arange(count, device="cuda") % 5 * (rank + 1)).to(dtype)
        sent = x.clone()
        group.allreduce([x]).wait()
        of_zero = (torch.arange(count, device="cuda") % 5).to(dtype)
        other = (torch.arange(count, device="cuda") % 5 * 2).to(dtype)
        assert torch.equal(x, of_zero + other)
        outs = [torch.empty_like(x) for _ in range(2)]
        group.allgather([outs], [sent]).wait()
        assert torch.equal(outs[0], of_zero)
        assert torch.equal(outs[1], other)

    run_ranks(2, function)


def test_types_that_are_only_moved(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        x = torch.full((MANY,), 1.5 + group.rank(), device="cuda").to(torch.float8_e4m3fn)
        group.broadcast([x], root=1).wait()
        assert bool((x.float() == 2.5).all())

    run_ranks(2, function)


@pytest.mark.parametrize("count", [300, MANY // 8])
def test_tensors_with_gaps(run_ranks: Any, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        whole = torch.arange(8.0 * count, device="cuda").reshape(count, 8) * (rank + 1)
        alone = torch.arange(8.0 * count, device="cuda").reshape(count, 8)
        for x, expected in (
            (whole.clone().t(), alone.t()),
            (whole.clone()[::2, 1::3], alone[::2, 1::3]),
            (whole.clone()[1:, :], alone[1:, :]),
            (whole.clone().view(-1)[3:], alone.view(-1)[3:]),
        ):
            group.allreduce([x]).wait()
            assert torch.equal(x, 3 * expected)
        out = torch.zeros(8, 2 * count, device="cuda").t()
        group.all_gather_single(out, whole.t().t()).wait()
        assert torch.equal(out, torch.cat([alone, 2 * alone]))

    run_ranks(2, function)


@pytest.mark.parametrize("count", [300, MANY])
def test_conjugates(run_ranks: Any, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        alone = torch.arange(float(count), device="cuda")
        z = torch.complex(alone, alone) * (group.rank() + 1)
        group.allreduce([z.conj()]).wait()
        assert torch.equal(z, torch.complex(3 * alone, 3 * alone))

    run_ranks(2, function)


def test_lists_of_tensors(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        sizes = (1, 1000, MANY)
        many = [ones(size) * (rank + 1) for size in sizes]
        group.allreduce_coalesced(many).wait()
        assert all(torch.equal(one, ones(size) * 3) for one, size in zip(many, sizes, strict=True))
        outs = [torch.empty(3 + one, dtype=torch.bfloat16, device="cuda") for one in range(2)]
        given = [torch.full((3 + rank,), 10.0 * rank + to).bfloat16().cuda() for to in range(2)]
        group.alltoall(outs, given).wait()
        assert [one.tolist() for one in outs] == [[10.0 * one + rank] * (3 + one) for one in (0, 1)]
        gathered = [[torch.empty(MANY, device="cuda") for _ in range(2)]] if rank == 0 else []
        group.gather(gathered, [ones(MANY) * (rank + 1)], root=0).wait()
        assert all(bool((one == i + 1).all()) for each in gathered for i, one in enumerate(each))
        x = torch.empty(MANY, device="cuda")
        group.scatter([x], gathered, root=0).wait()
        assert torch.equal(x, ones(MANY) * (rank + 1))
        shares = [ones(5) * (rank + 1), ones(5) * 10]
        group.reduce_scatter([out := torch.empty(5, device="cuda")], [shares]).wait()
        assert out.tolist() == [[3.0] * 5, [20.0] * 5][rank]

    run_ranks(2, function)


def test_256_mib(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        x = torch.arange(64 << 20, dtype=torch.int32, device="cuda")
        expected = 2 * x
        group.allreduce([x]).wait()
        assert torch.equal(x, expected)

    run_ranks(2, function)


def test_it_comes_behind_what_the_device_has_to_do(run_ranks: Any) -> None:
    """And what it is asked for later comes behind it, with nobody waiting in between."""

    def function(group: ProcessGroup) -> list[float]:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            found = []
            for _ in range(20):
                x = torch.zeros(MANY, device="cuda")
                torch.cuda._sleep(5_000_000)
                x += 1
                group.allreduce([x]).wait()
                found.append((x * 2).sum() / MANY)
                del x
            return [one.item() for one in found]

    assert run_ranks(2, function) == [[4.0] * 20] * 2


def test_streams(run_ranks: Any) -> None:
    """Each operation comes behind what its own stream has to do, and not behind another's; what
    the stream is asked for later comes behind the operation."""

    def function(group: ProcessGroup) -> list[float]:
        streams = [torch.cuda.Stream() for _ in range(4)]  # type: ignore[no-untyped-call]
        found = []
        for turn in range(5):
            works = []
            for i, stream in enumerate(streams):
                with torch.cuda.stream(stream):
                    x = torch.zeros(MANY if i % 2 else 1000, device="cuda")
                    torch.cuda._sleep(3_000_000 * (4 - i))
                    x += i + turn
                    works.append((x, group.allreduce([x])))
            for stream, (x, work) in zip(streams, works, strict=True):
                with torch.cuda.stream(stream):
                    work.wait()
                    found.append((x / x.numel()).sum())
        torch.cuda.synchronize()
        return [round(one.item(), 3) for one in found]

    expected = [2.0 * (i + turn) for turn in range(5) for i in range(4)]
    assert run_ranks(2, function) == [expected] * 2


def test_calls_that_wait(run_ranks: Any) -> None:
    """For the operation, of which the stream's work is not done yet; others are on their way."""

    def function(group: ProcessGroup) -> list[float]:
        options = dist.AllreduceOptions()
        options.asyncOp = False
        found = []
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for turn in range(10):
                for count in (1000, MANY):
                    x, before = torch.zeros(count, device="cuda"), ones(count)
                    work = group.allreduce([before])
                    torch.cuda._sleep(2_000_000)
                    x += turn
                    group.allreduce([x], options)
                    found += torch.aminmax(x * 2)
                    work.wait()
                    found += torch.aminmax(before)
            return [one.item() for one in found]

    expected = [value for i in range(10) for value in (4.0 * i, 4.0 * i, 2.0, 2.0) * 2]
    assert run_ranks(2, function) == [expected] * 2


def test_many_in_flight(run_ranks: Any) -> None:
    """More than may be under way; waited for in another order, and by some not at all."""

    def function(group: ProcessGroup) -> None:
        works = []
        for i in range(300):
            x = torch.full((1 + 997 * (i % 50),), float(i), device="cuda")
            works.append((i, x, group.allreduce([x])))
        for i, x, work in reversed(works):
            if i % 3 == 0:
                work.wait()
                assert torch.equal(x, torch.full_like(x, 2.0 * i))
        deadline = time.monotonic() + 20
        while not all(work.is_completed() for _, _, work in works):
            assert time.monotonic() < deadline
        assert all(torch.equal(x, torch.full_like(x, 2.0 * i)) for i, x, _ in works)

    run_ranks(2, function)


def test_memory_is_not_given_away_before_it_was_read(run_ranks: Any) -> None:
    """The sender forgets the tensor at once, and asks for as much memory as it had."""

    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for turn in range(10):
                x = torch.full((MANY,), float(turn), device="cuda")
                if rank == 0:
                    torch.cuda._sleep(2_000_000)
                    work = group.send([x], 1)
                    del x
                    work = None if turn % 2 else work
                    again = torch.full((MANY,), -1.0, device="cuda")
                    assert again[0].item() == -1.0
                    del work
                else:
                    group.recv([x], 0).wait()
                    assert torch.equal(x, torch.full_like(x, float(turn)))
            group.barrier().wait()

    run_ranks(2, function)


def test_what_is_received_comes_behind_what_was_written_before(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for turn in range(5):
                x = torch.full((1000,), float(turn), device="cuda")
                if rank == 0:
                    group.send([x], 1).wait()
                else:
                    torch.cuda._sleep(50_000_000)
                    x.fill_(-1.0)
                    group.recv([x], 0).wait()
                    assert torch.equal(x, torch.full_like(x, float(turn)))

    run_ranks(2, function)


def test_it_passes_what_another_stream_computes(run_ranks: Any) -> None:
    """And what has to come behind it does not hold up the caller."""

    def function(group: ProcessGroup) -> None:
        busy, side = torch.cuda.Event(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        x, y = ones(MANY), ones(MANY)
        group.allreduce([x]).wait()  # the first one has its memory to pin
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            group.barrier().wait()
            torch.cuda._sleep(2_000_000_000)
            busy.record()
            with torch.cuda.stream(side):
                group.allreduce([x]).wait()
                side.synchronize()
            late = group.allreduce([y])
            assert not late.is_completed()
            assert not busy.query()
            late.wait()
            assert torch.equal(y, 2 * ones(MANY))
            assert torch.equal(x, 4 * ones(MANY))

    run_ranks(2, function)


def test_futures(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> float:
        def doubled(done: Any) -> torch.Tensor:
            return done.value()[0] * 2

        future = group.allreduce([ones(MANY)]).get_future().then(doubled)
        return float(future.wait().mean().item())

    assert run_ranks(2, function) == [4.0] * 2


def test_futures_of_what_is_long_on_its_way(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> list[float]:
        found = []
        for _ in range(5):
            future = group.allreduce_coalesced([torch.ones(LARGE, device="cuda")]).get_future()
            doubled = future.then(lambda done: done.value()[0] * 2)
            found += [one.item() for one in torch.aminmax(doubled.wait())]
        return found

    assert run_ranks(2, function) == [[4.0] * 10] * 2


def test_callbacks_of_futures(run_ranks: Any) -> None:
    """Begin operations, and what they give is there for the stream that asks for it."""

    def function(group: ProcessGroup) -> list[float]:
        def again(done: Any) -> torch.Tensor:
            (x,) = done.value()
            group.allreduce([x]).wait()
            return x * 3

        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            futures = []
            for count in (MANY, 3, 1000) * 3:
                x = torch.zeros(count, device="cuda")
                torch.cuda._sleep(1_000_000)
                futures.append(group.allreduce([x.add_(1)]).get_future().then(again))
            return [one.item() for future in futures for one in torch.aminmax(future.wait())]

    assert run_ranks(2, function) == [[12.0] * 18] * 2


def test_averages_of_whole_numbers(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        x = torch.full((MANY,), 3 + 2 * group.rank(), device="cuda")
        group.allreduce([x], op=dist.ReduceOp.AVG).wait()
        assert torch.equal(x, torch.full_like(x, 4))

    run_ranks(2, function)


def test_errors(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        x = ones(MANY)
        with pytest.raises(RuntimeError, match="7"):
            group.send([x], 7).get_future().wait()
        group.allreduce([x]).wait()
        if group.rank() == 1:
            group.abort()
            return
        work = group.allreduce([x])
        with pytest.raises(dist.DistBackendError, match="rank 1 lost"):
            work.wait()
        assert not work.is_success()
        torch.cuda.synchronize()

    run_ranks(2, function)
