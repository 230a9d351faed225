"""Every collective against numpy: each group size, type and count; in place, apart, rooted, cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

from .values import DTYPES, LARGE, SIZES, Array, given, same, total

Check = Callable[[pyccl.Communicator, int, str], None]


def all_reduce(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    x = given(comm.rank, size, dtype)
    out = np.empty_like(x)
    comm.all_reduce(x, out=out)
    same(x, given(comm.rank, size, dtype))
    same(out, total(comm.world_size, size, dtype))
    comm.all_reduce(x)
    same(x, out)


def reduce(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    root = comm.world_size - 1
    x = given(comm.rank, size, dtype)
    before = x.copy()
    out = np.full_like(x, 3)
    comm.reduce(x, root, out=out if comm.rank == root else None)
    same(x, before)
    if comm.rank == root:
        same(out, total(comm.world_size, size, dtype))
    comm.reduce(x, root)
    same(x, out if comm.rank == root else before)


def broadcast(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    root = comm.world_size // 2
    x = given(comm.rank, size, dtype)
    out = np.empty_like(x)
    comm.broadcast(x, root, out=out)
    same(x, given(comm.rank, size, dtype))
    same(out, given(root, size, dtype))
    comm.broadcast(x, root)
    same(x, out)


def all_gather(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    expected = np.stack([given(rank, size, dtype) for rank in range(comm.world_size)])
    x = given(comm.rank, size, dtype)
    same(comm.all_gather(x), expected)
    out = np.empty_like(expected)
    assert comm.all_gather(x, out=out) is out
    same(out, expected)
    out[comm.rank] = x  # where it will lie anyhow
    comm.all_gather(out[comm.rank], out=out)
    same(out, expected)


def gather(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    root = comm.world_size // 2
    x = given(comm.rank, size, dtype)
    found = comm.gather(x, root)
    if comm.rank == root:
        expected = np.stack([given(rank, size, dtype) for rank in range(comm.world_size)])
        same(found, expected)
        out = np.empty_like(expected)
        assert comm.gather(x, root, out=out) is out
        same(out, expected)
    else:
        assert found is None
        assert comm.gather(x, root) is None


def reduce_scatter(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    world, rank = comm.world_size, comm.rank
    expected = total(world, world * size, dtype).reshape(world, size)[rank]
    x = given(rank, world * size, dtype)
    same(comm.reduce_scatter(x.reshape(world, size)), expected)
    same(comm.reduce_scatter(x), expected)
    same(x, given(rank, world * size, dtype))
    out = np.empty_like(expected)
    assert comm.reduce_scatter(x, out=out) is out
    same(out, expected)


def scatter(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    world, rank, root = comm.world_size, comm.rank, comm.world_size - 1
    expected = given(root, world * size, dtype).reshape(world, size)[rank]
    x = given(rank, world * size, dtype)
    same(comm.scatter(x.reshape(world, size), root), expected)
    same(x, given(rank, world * size, dtype))
    out = np.empty_like(expected)
    assert comm.scatter(x if rank == root else None, root, out=out) is out
    same(out, expected)


def all_to_all(comm: pyccl.Communicator, size: int, dtype: str) -> None:
    world, rank = comm.world_size, comm.rank
    whole = [given(each, world * size, dtype).reshape(world, size) for each in range(world)]
    expected = np.stack([each[rank] for each in whole])
    x = whole[rank].copy()
    same(comm.all_to_all(x), expected)
    same(x, whole[rank])
    out = np.empty_like(x)
    assert comm.all_to_all(x, out=out) is out
    same(out, expected)
    assert comm.all_to_all(x, out=x) is x
    same(x, expected)


CHECKS: list[Check] = [
    all_reduce, reduce, broadcast, all_gather, gather, reduce_scatter, scatter, all_to_all,
]  # fmt: skip


@pytest.mark.parametrize("world", range(1, 9))
def test_every_collective_size_and_type(run_peers: Any, world: int) -> None:
    def function(comm: pyccl.Communicator) -> int:
        for check in CHECKS:
            for dtype in DTYPES:
                for size in SIZES:
                    check(comm, size, dtype)
        return comm.barrier().members

    assert run_peers(world, function) == [world] * world


@pytest.mark.parametrize("world", [2, 3])
def test_every_collective_at_a_mebi_and_three(run_peers: Any, world: int) -> None:
    def function(comm: pyccl.Communicator) -> None:
        for number, check in enumerate(CHECKS):
            check(comm, LARGE, DTYPES[number])
        comm.barrier()  # ranks stay what they are until all have looked

    run_peers(world, function)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("world", range(1, 9))
def test_the_whole_matrix(run_peers: Any, world: int, dtype: str) -> None:
    def function(comm: pyccl.Communicator) -> None:
        for check in CHECKS:
            for size in [*SIZES, LARGE]:
                check(comm, size, dtype)
        comm.barrier()

    run_peers(world, function)


FORCED = {
    "all_reduce": ["ring", "direct", "one_shot", "recursive_doubling", "halving_doubling"],
    "reduce": ["direct", "binomial", "chain"],
    "broadcast": ["direct", "binomial", "chain"],
    "all_gather": ["direct", "ring"],
    "reduce_scatter": ["direct", "ring"],
}


@pytest.mark.parametrize("world", [2, 5, 8])
def test_each_algorithm_can_be_forced(run_peers: Any, world: int) -> None:
    def function(comm: pyccl.Communicator) -> None:
        for name, algorithms in FORCED.items():
            for algorithm in algorithms:
                x = given(comm.rank, 40 * world, "f4")
                work = getattr(comm, name)(x, algorithm=algorithm, async_op=True)
                result = work.wait()
                assert work.info().algorithm == algorithm
                expected = {
                    "reduce": total(world, 40 * world, "f4") if comm.rank == 0 else x,
                    "all_reduce": total(world, 40 * world, "f4"),
                    "broadcast": given(0, 40 * world, "f4"),
                }
                if name in expected:
                    same(x, expected[name])
                elif name == "all_gather":
                    same(result, np.stack([given(r, 40 * world, "f4") for r in range(world)]))
                else:
                    same(result, total(world, 40 * world, "f4").reshape(world, 40)[comm.rank])
        comm.barrier()

    run_peers(world, function)


@pytest.mark.parametrize("op", ["avg", "prod", "min", "max", "band", "bor", "bxor"])
def test_reductions_take_every_op(run_peers: Any, op: Any) -> None:
    world = 3
    dtype = "f8" if op == "avg" else "i8"
    functions = {
        "avg": lambda x: x.sum(0) / world, "prod": lambda x: x.prod(0), "min": lambda x: x.min(0),
        "max": lambda x: x.max(0), "band": np.bitwise_and.reduce, "bor": np.bitwise_or.reduce,
        "bxor": np.bitwise_xor.reduce,
    }  # fmt: skip

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        expected = functions[op](np.stack([given(each, 6, dtype) for each in range(world)]))
        x = given(rank, 6, dtype)
        np.testing.assert_allclose(
            comm.reduce_scatter(x, op=op), expected.reshape(3, 2)[rank], rtol=1e-15
        )
        comm.reduce(x, 1, op=op)
        if rank == 1:
            np.testing.assert_allclose(x, expected, rtol=1e-15)

    run_peers(world, function)


def test_weights_count_in_all_reductions(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x = np.full(6, float(rank))
        share = comm.reduce_scatter(x, op="avg", weight=rank)
        assert share.tolist() == [pytest.approx((1 + 4) / 3)] * 2
        info = comm.reduce(x, 2, weight=float(rank))
        assert (info.world_size, info.weight_sum) == (2, 3.0)
        if rank == 2:
            assert x.tolist() == [5.0] * 6

    run_peers(3, function)


def test_a_list_is_one_operation_everywhere(run_peers: Any) -> None:
    world = 3

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank

        def arrays(of: int) -> list[Array]:
            return [
                given(of, 6, "f4"), given(of, 3, "i8", 1), np.zeros((0, 3)),
                given(of, 12, "f4", 2).reshape(3, 4), given(of, 9, "u1", 3),
            ]  # fmt: skip

        everyone = [arrays(each) for each in range(world)]
        for i, found in enumerate(comm.all_gather(arrays(rank))):
            same(found, np.stack([each[i] for each in everyone]))
        gathered = comm.gather(arrays(rank), 1)
        assert (gathered is None) == (rank != 1)
        for i, found in enumerate(gathered or []):
            same(found, np.stack([each[i] for each in everyone]))
        x = arrays(rank)
        comm.broadcast(x, 2)
        for found, expected in zip(x, everyone[2], strict=True):
            same(found, expected)
        cut = [one for one in everyone[rank] if one.size]
        sums = [sum(each[i] for each in everyone) for i in (0, 1, 3, 4)]
        for found, whole in zip(comm.reduce_scatter(cut), sums, strict=True):
            same(found.reshape(-1), whole.reshape(3, -1)[rank].astype(whole.dtype))
        of_root = [one for one in everyone[0] if one.size]
        for found, whole in zip(comm.scatter(cut), of_root, strict=True):
            same(found.reshape(-1), whole.reshape(3, -1)[rank])
        swapped = comm.all_to_all(cut)
        for i, found in zip((0, 1, 3, 4), swapped, strict=True):
            parts = [each[i].reshape(3, -1)[rank] for each in everyone]
            same(found.reshape(-1), np.concatenate(parts))

    run_peers(world, function)
