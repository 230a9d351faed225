"""Every operation of a process group, in each of torch's forms, on tensors of all kinds."""

from __future__ import annotations

import math
import threading
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.distributed import ReduceOp

import pyccl
from pyccl.torch import (
    ClosedError,
    InvalidArgumentError,
    MismatchError,
    OperationTimeout,
    PeerLostError,
    ProcessGroup,
)

REDUCED = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
MOVED = [*REDUCED, torch.float8_e4m3fn, torch.uint16, torch.uint32, torch.uint64]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (5, 3), (2, 0, 3), (4099,)]


def numbers(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Small whole ones, whose sums and products any type holds exactly, and that tell ranks
    apart."""
    count = math.prod(shape)
    flat = (torch.arange(count) + rank) % 3 + 1
    if dtype == torch.bool:
        return (flat == 2).reshape(shape)
    if dtype.is_complex:
        return torch.complex(flat.double(), (flat + 1).double()).to(dtype).reshape(shape)
    return flat.to(torch.float32).to(dtype).reshape(shape)


def options_of(kind: str, **values: Any) -> Any:
    options = getattr(dist.distributed_c10d, kind)()
    for name, value in values.items():
        setattr(options, name, value)
    return options


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    as_bytes = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
    assert torch.equal(*as_bytes)


@pytest.mark.parametrize("dtype", REDUCED, ids=str)
def test_sums(run_ranks: Any, dtype: torch.dtype) -> None:
    def function(group: ProcessGroup) -> None:
        for shape in SHAPES:
            every = [numbers(rank, shape, dtype) for rank in range(3)]
            total = sum(every[1:], start=every[0])
            x = every[group.rank()].clone()
            work = group.allreduce([x])
            assert work.wait()
            same(x, total)
            assert work.result()[0] is x
            y = every[group.rank()].clone()
            group.reduce([y], options_of("ReduceOptions", rootRank=1)).wait()
            same(y, total if group.rank() == 1 else every[group.rank()])

    run_ranks(3, function)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (ReduceOp.PRODUCT, lambda x: x.prod(0)),
        (ReduceOp.MIN, lambda x: x.amin(0)),
        (ReduceOp.MAX, lambda x: x.amax(0)),
        (ReduceOp.AVG, lambda x: x.mean(0)),
    ],
)
def test_other_reductions(run_ranks: Any, op: Any, expected: Any) -> None:
    def function(group: ProcessGroup) -> None:
        for dtype in (torch.float32, torch.float64, torch.int32, torch.int64):
            if op == ReduceOp.AVG and not dtype.is_floating_point:
                continue  # test_averages.py
            every = torch.stack([numbers(rank, (5, 3), dtype) for rank in range(2)])
            x = every[group.rank()].clone()
            group.allreduce([x], options_of("AllreduceOptions", reduceOp=op)).wait()
            torch.testing.assert_close(x, expected(every).to(dtype), rtol=0, atol=0)

    run_ranks(2, function)


@pytest.mark.parametrize(
    ("op", "fold"),
    [
        (ReduceOp.SUM, torch.logical_or),
        (ReduceOp.MAX, torch.logical_or),
        (ReduceOp.BOR, torch.logical_or),
        (ReduceOp.PRODUCT, torch.logical_and),
        (ReduceOp.MIN, torch.logical_and),
        (ReduceOp.BAND, torch.logical_and),
        (ReduceOp.BXOR, torch.logical_xor),
    ],
)
def test_truth_stays_truth(run_ranks: Any, op: Any, fold: Any) -> None:
    """A sum of bools is no 2."""
    every = [torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])]

    def function(group: ProcessGroup) -> None:
        x = every[group.rank()].clone()
        group.allreduce([x], op).wait()
        same(x, fold(*every))
        assert set(x.view(torch.uint8).tolist()) <= {0, 1}

    run_ranks(2, function)


def test_bits(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        for op, expected in ((ReduceOp.BAND, 0b1000), (ReduceOp.BOR, 0b1110)):
            x = torch.tensor([0b1100, 0b1010][group.rank()])
            group.allreduce([x], op).wait()
            assert x.item() == expected
        with pytest.raises(InvalidArgumentError, match="integers"):
            group.allreduce([torch.ones(2)], ReduceOp.BXOR)

    run_ranks(2, function)


def test_plain_arguments(run_ranks: Any) -> None:
    """As torch's own classes take them, besides options."""

    def function(group: ProcessGroup) -> None:
        rank, limit = group.rank(), timedelta(seconds=20)
        x = torch.tensor([rank + 2.0])
        group.allreduce(x, ReduceOp.PRODUCT, limit).wait()
        group.allreduce([x], op=ReduceOp.MAX).wait()
        assert x.item() == 6
        y = torch.tensor([float(rank)])
        group.broadcast(y, 1, limit).wait()
        group.broadcast(y, root=1).wait()
        assert y.item() == 1
        group.reduce(x, 1, ReduceOp.SUM, limit).wait()
        group.reduce([x], root=1, op=ReduceOp.MAX).wait()
        assert x.item() == (12 if rank == 1 else 6)
        outs = [torch.zeros(1), torch.zeros(1)]
        group.gather(outs if rank == 0 else [], y, 0, limit).wait()
        group.scatter(y, [torch.ones(1), torch.full((1,), 5.0)] if rank == 0 else [], root=0).wait()
        assert y.item() == (1 if rank == 0 else 5)
        group.reduce_scatter(y, outs, op=ReduceOp.MAX).wait()
        group.barrier(limit).wait()

    run_ranks(2, function)


def test_premultiplied_sums(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        for factor in (0.5, torch.tensor(0.5)):
            op = dist._make_nccl_premul_sum(factor)
            x = torch.full((4,), float(rank + 1))
            group.allreduce([x], op).wait()
            assert x.tolist() == [1.5] * 4
            whole, part = torch.full((4,), float(rank + 1)), torch.empty(2)
            group.reduce_scatter_single(
                part, whole, options_of("ReduceScatterOptions", reduceOp=op)
            ).wait()
            assert part.tolist() == [1.5] * 2
            assert whole.tolist() == [rank + 1] * 4

    run_ranks(2, function)


def test_complex_numbers_have_sums_only(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        with pytest.raises(InvalidArgumentError, match="complex"):
            group.allreduce([torch.ones(2, dtype=torch.complex64)], ReduceOp.PRODUCT)
        with pytest.raises(InvalidArgumentError, match="float8"):
            group.allreduce([torch.ones(2).to(torch.float8_e4m3fn)])
        x = torch.tensor([1 + 2j, 3 - 1j]).conj()
        assert x.is_conj()
        group.allreduce([x]).wait()
        assert x.tolist() == [2 - 4j, 6 + 2j]
        z = torch.tensor([1 + 2j, 3 - 1j])
        imaginary = z.conj().imag
        assert imaginary.is_neg()
        group.allreduce([imaginary]).wait()
        assert z.tolist() == [1 + 4j, 3 - 2j]
        assert imaginary.tolist() == [-4, 2]
        group.broadcast([z.conj() if group.rank() else x], root=0).wait()
        assert z.tolist() == ([2 + 4j, 6 - 2j] if group.rank() else [1 + 4j, 3 - 2j])

    run_ranks(2, function)


def test_strided_tensors(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        base = torch.zeros(6, 8)
        x = base.t()[::2]
        x.fill_(rank + 1)
        group.allreduce([x]).wait()
        assert (x == 3).all()
        assert (base[:, 1::2] == 0).all()
        out = torch.zeros(4, 2).t()
        group.all_gather_single(out, torch.full((4,), float(rank))).wait()
        assert out.tolist() == [[0.0] * 4, [1.0] * 4]
        y = torch.full((3, 2), float(rank)).t()
        group.broadcast([y], options_of("BroadcastOptions", rootRank=1)).wait()
        assert (y == 1).all()
        future = torch.zeros(4, 4)[:, 1]
        work = group.allreduce([future.add_(1)])
        work.get_future().wait()
        assert future.tolist() == [2.0] * 4

    run_ranks(2, function)


@pytest.mark.parametrize("dtype", MOVED, ids=str)
def test_movements(run_ranks: Any, dtype: torch.dtype) -> None:
    def function(group: ProcessGroup) -> None:
        rank, size = group.rank(), group.size()
        for shape in SHAPES:
            every = [numbers(each, shape, dtype) for each in range(size)]
            x = every[rank].clone()
            group.broadcast([x], options_of("BroadcastOptions", rootRank=2)).wait()
            same(x, every[2])
            gathered = [torch.empty_like(every[0]) for _ in range(size)]
            group.allgather([gathered], [every[rank]]).wait()
            for one, other in zip(gathered, every, strict=True):
                same(one, other)
            at_root = [torch.empty_like(every[0]) for _ in range(size)] if rank == 1 else []
            group.gather(
                [at_root] if rank == 1 else [], [every[rank]],
                options_of("GatherOptions", rootRank=1),
            ).wait()  # fmt: skip
            for one, other in zip(at_root, every, strict=False):
                same(one, other)
            share = torch.empty_like(every[0])
            group.scatter(
                [share], [every] if rank == 1 else [], options_of("ScatterOptions", rootRank=1)
            ).wait()
            same(share, every[rank])
            swapped = [torch.empty_like(every[0]) for _ in range(size)]
            group.alltoall(swapped, every).wait()
            for one in swapped:
                same(one, every[rank])

    run_ranks(3, function)


def test_whole_tensors(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank, size = group.rank(), group.size()
        whole = torch.arange(size * 4.0).reshape(size, 4)
        out = torch.empty(size * 4)
        group._allgather_base(out, whole[rank]).wait()
        assert torch.equal(out, whole.flatten())
        part = torch.empty(4)
        group._reduce_scatter_base(part, whole.flatten()).wait()
        assert torch.equal(part, size * whole[rank])
        group.reduce_scatter([part], [list(whole + rank)]).wait()
        assert torch.equal(part, size * whole[rank] + 3)
        outs = [torch.empty(size * 2), torch.empty(size, dtype=torch.int64)]
        ins = [torch.full((2,), float(rank)), torch.tensor([rank])]
        group.all_gather_single_coalesced(outs, ins).wait()
        assert outs[0].tolist() == [0, 0, 1, 1, 2, 2]
        assert outs[1].tolist() == [0, 1, 2]
        parts = [torch.empty(1), torch.empty(2)]
        group.reduce_scatter_single_coalesced(parts, [torch.ones(3), torch.ones(6)]).wait()
        assert [one.tolist() for one in parts] == [[3.0], [3.0, 3.0]]
        many = [torch.ones(3), torch.ones(2, dtype=torch.float64)]
        group.allreduce_coalesced(many).wait()
        assert [one.tolist() for one in many] == [[3.0] * 3, [3.0] * 2]

    run_ranks(3, function)


def test_uneven_splits(run_ranks: Any) -> None:
    """Rank r sends s + 1 rows to rank s."""

    def function(group: ProcessGroup) -> None:
        rank, size = group.rank(), group.size()
        x = torch.cat([torch.full((to + 1, 2), 10.0 * rank + to) for to in range(size)])
        out = torch.empty(size * (rank + 1), 2)
        sends, receives = [1, 2, 3], [rank + 1] * size
        group.all_to_all_single(out, x, receives, sends).wait()
        expected = [10.0 * source + rank for source in range(size) for _ in range(rank + 1)]
        assert out[:, 0].tolist() == expected
        outs = [torch.empty(source) for source in range(size)]
        group.allgather([outs], [torch.full((rank,), float(rank))]).wait()
        assert [one.tolist() for one in outs] == [[], [1.0], [2.0, 2.0]]
        with pytest.raises(InvalidArgumentError, match="Split sizes"):
            group.all_to_all_single(out, x, receives, [1, 1, 1])
        # Equal shares may be said, or not.
        sizes = [1, 1, 1] if rank == 0 else []
        swapped = torch.empty(3)
        group.all_to_all_single(swapped, torch.full((3,), float(rank)), sizes, sizes).wait()
        assert swapped.tolist() == [0.0, 1.0, 2.0]

    run_ranks(3, function)


def test_pairs(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        sent, got = torch.full((3, 3), float(rank)).t(), torch.empty(3, 3)
        works = [group.send([sent], 1 - rank, 7), group.recv([got], 1 - rank, 7)]
        for work in works:
            work.wait()
        assert (got == 1 - rank).all()
        assert works[1]._source_rank() == 1 - rank

    run_ranks(2, function)


def test_receiving_from_any_source(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        if group.rank() > 0:
            group.send([torch.full((2,), float(group.rank()))], 0, 3).wait()
            return
        seen = set()
        for _ in range(group.size() - 1):
            got = torch.empty(2)
            work = group.recv_anysource([got], 3)
            work.wait()
            assert got.tolist() == [work._source_rank()] * 2
            seen.add(work._source_rank())
        assert seen == {1, 2, 3}

    run_ranks(4, function)


def test_sparse_sums(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        indices = torch.tensor([[0, rank + 1]])
        x = torch.sparse_coo_tensor(indices, torch.ones(2, 3), (5, 3))
        empty = torch.sparse_coo_tensor(torch.empty((1, 0)), torch.empty((0,)), (4,))
        group.allreduce([x]).wait()
        group.allreduce([empty]).wait()
        dense = torch.zeros(5, 3)
        dense[0], dense[1], dense[2] = 2, 1, 1
        assert torch.equal(x.to_dense(), dense)
        assert empty.to_dense().tolist() == [0.0] * 4
        with pytest.raises(InvalidArgumentError, match="sparse"):
            group.broadcast([x])

    run_ranks(2, function)


def test_works(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        tensors = [torch.full((1000,), float(i)) for i in range(20)]
        works = [group.allreduce([one]) for one in tensors]
        doubled = works[3].get_future().then(lambda done: 2 * done.value()[0])
        assert doubled.wait()[0] == 12
        for i, work in enumerate(works):
            work.wait()
            assert work.is_completed()
            assert work.is_success()
            assert work.exception() is None
            assert tensors[i][0] == 2 * i
        assert works[0].get_future().done() or works[0].get_future().wait()
        group._start_coalescing(torch.device("cpu"))
        some = [torch.ones(2), torch.ones(3)]
        for one in some:
            group.allreduce([one])
        work = group._end_coalescing(torch.device("cpu"))
        assert work.get_future().wait()
        assert work.wait()
        assert [one[0].item() for one in some] == [2.0, 2.0]
        assert group._get_sequence_number_for_group() == 22

    run_ranks(2, function)


def test_what_does_not_fit_is_told_to_both(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> str:
        with pytest.raises(MismatchError) as caught:
            group.allreduce([torch.ones(3 + group.rank())]).wait()
        assert isinstance(caught.value, dist.DistBackendError)
        assert isinstance(caught.value, pyccl.MismatchError)
        with pytest.raises(InvalidArgumentError, match="2 times"):
            group.all_gather_single(torch.empty(5), torch.ones(2))
        with pytest.raises(InvalidArgumentError, match="has 2 ranks"):
            group.allgather([[torch.empty(2)]], [torch.ones(2)])
        group.barrier().wait()
        return str(caught.value)

    texts = run_ranks(2, function)
    assert all("all_reduce, rank" in text for text in texts)


def test_who_does_not_come_in_time_is_named(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        if group.rank() == 0:
            options = options_of("BarrierOptions", timeout=timedelta(milliseconds=200))
            with pytest.raises(OperationTimeout, match=r"Timed out waiting 200ms.*rank 1"):
                group.barrier(options).wait()

    run_ranks(2, function)


def test_monitored_barrier(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        group.monitored_barrier()
        group.monitored_barrier(timedelta(seconds=20), wait_all_ranks=True)
        if group.rank() == 0:
            with pytest.raises(OperationTimeout, match=r"Ranks 1, 3 failed to pass") as caught:
                group.monitored_barrier(timedelta(seconds=0.3), wait_all_ranks=True)
            assert caught.value.ranks == (1, 3)
        elif group.rank() == 2:
            with pytest.raises(dist.DistBackendError, match="Rank 2 successfully reached"):
                group.monitored_barrier(timedelta(seconds=0.3))

    run_ranks(4, function)


def test_a_lost_rank_is_named_and_ends_the_group(run_ranks: Any) -> None:
    gone = threading.Event()

    def function(group: ProcessGroup) -> str | None:
        group.barrier().wait()
        if group.rank() == 1:
            group.abort()
            gone.set()
            with pytest.raises(ClosedError):
                group.barrier()
            return None
        with pytest.raises(PeerLostError, match="rank 1 lost") as caught:
            group.allreduce([torch.ones(3)]).wait()
        assert caught.value.ranks == (1,)
        with pytest.raises(PeerLostError, match="rank 1 lost"):
            group.barrier().wait()
        # Who lives can go on without it.
        rest = group._run.subgroup([0, 2], "rest")
        assert rest.all_reduce(torch.ones(1)).world_size == 2
        return str(caught.value)

    run_ranks(3, function)


def test_groups_of_groups(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        if group.rank() == 1:
            return
        chosen = [2, 0]
        part = ProcessGroup(
            group._run, group._run.subgroup(chosen, "two"), timedelta(seconds=20), owns=False
        )
        assert part.rank() == chosen.index(group.rank())
        x = torch.tensor([float(group.rank())])
        part.broadcast([x], 0).wait()
        assert x.item() == 2
        part.shutdown()
        with pytest.raises(ClosedError):
            part.barrier()

    run_ranks(3, function)
