"""Collectives whose ranks have different amounts, and random shapes, counts and lists of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyccl

from .values import Array

PEERS = 4

RELAXED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def examples(run_peers: Any) -> Any:
    """Runs every example on the same peers: the strategy draws them before they begin."""

    def run(world: int, drawn: list[Any], body: Any) -> None:
        def function(comm: pyccl.Communicator) -> None:
            for example in drawn:
                body(comm, example)
            comm.barrier()

        run_peers(world, function)

    return run


def rows_of(rank: int, count: int, tail: tuple[int, ...], dtype: str = "i4") -> Array:
    size = count * int(np.prod(tail))
    return ((np.arange(size) * 3 + 100 * rank) % 97).astype(dtype).reshape(count, *tail)


def cut(whole: Array, counts: list[int], rank: int) -> Array:
    begin = sum(counts[:rank])
    return whole[begin : begin + counts[rank]]


def check_counts(
    comm: pyccl.Communicator, counts: list[int], tail: tuple[int, ...], root: int
) -> None:
    world, rank = comm.world_size, comm.rank
    x = rows_of(rank, counts[rank], tail)
    together = np.concatenate([rows_of(each, counts[each], tail) for each in range(world)])
    np.testing.assert_array_equal(comm.all_gather(x, counts=counts), together)
    out = np.empty_like(together)
    assert comm.all_gather(x, counts=counts, out=out) is out
    np.testing.assert_array_equal(out, together)
    found = comm.gather(x, root, counts=counts)
    if rank == root:
        np.testing.assert_array_equal(found, together)
    else:
        assert found is None

    full = [rows_of(each, sum(counts), tail) for each in range(world)]
    total = np.sum(full, axis=0, dtype=np.int32)
    np.testing.assert_array_equal(
        comm.reduce_scatter(full[rank], counts=counts), cut(total, counts, rank)
    )
    expected = cut(full[root], counts, rank)
    np.testing.assert_array_equal(comm.scatter(full[rank], root, counts=counts), expected)
    share = np.empty_like(expected)
    comm.scatter(full[rank] if rank == root else None, root, counts=counts, out=share)
    np.testing.assert_array_equal(share, expected)


def check_all_to_all(
    comm: pyccl.Communicator, matrix: list[list[int]], tail: tuple[int, ...]
) -> None:
    """matrix[i][j] rows go from rank i to rank j."""
    rank = comm.rank
    sent = [rows_of(each, sum(row), tail) for each, row in enumerate(matrix)]
    received = [row[rank] for row in matrix]
    parts = [cut(x, row, rank) for x, row in zip(sent, matrix, strict=True)]
    found = comm.all_to_all(sent[rank], send_counts=matrix[rank], recv_counts=received)
    np.testing.assert_array_equal(found, np.concatenate(parts))
    out = np.empty_like(found)
    assert (
        comm.all_to_all(sent[rank], send_counts=matrix[rank], recv_counts=received, out=out) is out
    )
    np.testing.assert_array_equal(out, found)


@pytest.mark.parametrize("world", range(1, 9))
def test_counts_of_rows(run_peers: Any, world: int) -> None:
    cases = [
        ([each % 3 for each in range(world)], (2,)),
        ([0] * world, (3,)),
        ([1000 * each for each in range(world)], ()),
        ([0] * (world - 1) + [5], (1, 2)),
        ([7] * world, (0,)),
        (np.arange(world), (2, 2)),
    ]

    def function(comm: pyccl.Communicator) -> None:
        for number, (counts, tail) in enumerate(cases):
            check_counts(comm, [int(one) for one in counts], tail, number % world)
        matrix = [[(i * j + i) % 4 for j in range(world)] for i in range(world)]
        check_all_to_all(comm, matrix, (3,))
        check_all_to_all(comm, [[0] * world for _ in range(world)], ())
        comm.barrier()

    run_peers(world, function)


tails = st.lists(st.integers(0, 4), max_size=2).map(tuple)


@given(st.data())
@settings(parent=RELAXED, max_examples=20)
def test_random_counts(examples: Any, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, PEERS))
    amounts = st.lists(st.integers(0, 300), min_size=world, max_size=world)
    drawn = data.draw(
        st.lists(st.tuples(amounts, tails, st.integers(0, world - 1)), min_size=1, max_size=12)
    )
    examples(world, drawn, lambda comm, one: check_counts(comm, *one))


@given(st.data())
@settings(parent=RELAXED, max_examples=20)
def test_random_amounts_between_all(examples: Any, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, PEERS))
    row = st.lists(st.integers(0, 200), min_size=world, max_size=world)
    matrix = st.lists(row, min_size=world, max_size=world)
    drawn = data.draw(st.lists(st.tuples(matrix, tails), min_size=1, max_size=12))
    examples(world, drawn, lambda comm, one: check_all_to_all(comm, *one))


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
dtypes = st.sampled_from(["f4", "f8", "i1", "i4", "u8"])
lists = st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=6)


def check_list(comm: pyccl.Communicator, shapes_and_types: list[tuple[Any, str]]) -> None:
    """Random lists through everything, with `world` times the rows where they are cut."""
    world, rank = comm.world_size, comm.rank

    def arrays(of: int, factor: int = 1) -> list[Array]:
        made = []
        for number, (shape, dtype) in enumerate(shapes_and_types):
            full = (factor * (shape[0] if shape else 1), *shape[1:]) if factor > 1 else shape
            size = int(np.prod(full))
            made.append(((np.arange(size) + 5 * of + number) % 13).astype(dtype).reshape(full))
        return made

    everyone = [arrays(each) for each in range(world)]
    for i, found in enumerate(comm.all_gather(arrays(rank))):
        np.testing.assert_array_equal(found, np.stack([each[i] for each in everyone]))
    x = arrays(rank)
    comm.all_reduce(x)
    for i, found in enumerate(x):
        np.testing.assert_array_equal(found, sum(each[i] for each in everyone))
    x = arrays(rank)
    comm.broadcast(x, world - 1)
    for found, expected in zip(x, everyone[-1], strict=True):
        np.testing.assert_array_equal(found, expected)
    if world == 1:
        return
    wide = [arrays(each, world) for each in range(world)]
    for i, found in enumerate(comm.reduce_scatter(arrays(rank, world))):
        total = sum(each[i] for each in wide).reshape(world, -1)
        np.testing.assert_array_equal(found.reshape(-1), total[rank])
    for i, found in enumerate(comm.scatter(arrays(rank, world), 1)):
        np.testing.assert_array_equal(found.reshape(-1), wide[1][i].reshape(world, -1)[rank])
    for i, found in enumerate(comm.all_to_all(arrays(rank, world))):
        parts = np.stack([each[i].reshape(world, -1)[rank] for each in wide])
        np.testing.assert_array_equal(found.reshape(world, -1), parts)


@given(st.data())
@settings(parent=RELAXED, max_examples=20)
def test_random_lists(examples: Any, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, PEERS))
    drawn = data.draw(st.lists(lists, min_size=1, max_size=10))
    examples(world, drawn, check_list)


def test_shapes_of_results(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        assert comm.all_gather(np.float32(1).reshape(())).shape == (2,)
        assert comm.all_gather(np.zeros((3, 0))).shape == (2, 3, 0)
        assert comm.reduce_scatter(np.zeros(2)).shape == (1,)
        assert comm.reduce_scatter(np.zeros(6)).shape == (3,)
        assert comm.reduce_scatter(np.zeros((2, 5))).shape == (5,)
        assert comm.reduce_scatter(np.zeros((4, 5))).shape == (2, 5)
        assert comm.scatter(np.zeros((2, 3, 4))).shape == (3, 4)
        assert comm.all_to_all(np.zeros((4, 3))).shape == (4, 3)
        # What is given by another library's array comes back as numpy's.
        found = comm.all_gather(memoryview(np.arange(6.0)).cast("B").cast("d", [2, 3]))
        assert found.shape == (2, 2, 3)
        assert type(found) is np.ndarray
        comm.barrier()

    run_peers(2, function)


def test_results_of_tensors_are_numpys(run_peers: Any) -> None:
    class Tensor:
        """Of a library that has DLPack and no buffers."""

        def __init__(self, values: Array) -> None:
            self.values = values

        def __dlpack__(self, **_: Any) -> Any:
            return self.values.__dlpack__()

    def function(comm: pyccl.Communicator) -> None:
        x = np.arange(4, dtype=np.float32) + comm.rank
        found = comm.all_gather(Tensor(x))
        np.testing.assert_array_equal(found, [np.arange(4), np.arange(4) + 1])
        assert found.dtype == np.float32

    run_peers(2, function)
