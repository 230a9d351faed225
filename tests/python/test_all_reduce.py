"""Values, weights, lists, tags and errors of all_reduce among several peers."""

from __future__ import annotations

import threading
from functools import reduce
from typing import Any

import numpy as np
import pytest

import pyccl

PEERS = 3
FLOATS = ["f4", "f8", "f2"]
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
ARITHMETIC: dict[str, Any] = {
    "sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum
}  # fmt: skip
BITWISE: dict[str, Any] = {"band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}


def contribution(rank: int, dtype: str, size: int = 1001) -> np.ndarray[Any, Any]:
    """Small whole numbers: sums and products are exact in every type."""
    random = np.random.default_rng(rank)
    return random.integers(0, 5, size).astype(dtype)


def expected(op: str, dtype: str) -> np.ndarray[Any, Any]:
    parts = [contribution(rank, dtype) for rank in range(PEERS)]
    if op == "avg":
        # Sums of halves are exact in f32, so only the division rounds.
        wide = np.float32 if dtype == "f2" else np.dtype(dtype).type
        total = reduce(np.add, [part.astype(wide) for part in parts])
        return (total / wide(PEERS)).astype(dtype)
    return reduce({**ARITHMETIC, **BITWISE}[op], parts)


def test_values_equal_numpys_for_every_type_and_op(run_peers: Any) -> None:
    cases = [(dtype, op) for dtype in FLOATS + INTEGERS for op in ARITHMETIC]
    cases += [(dtype, op) for dtype in INTEGERS for op in BITWISE]
    cases += [(dtype, "avg") for dtype in FLOATS]

    def function(comm: pyccl.Communicator) -> list[np.ndarray[Any, Any]]:
        results = []
        for dtype, op in cases:
            x = contribution(comm.rank, dtype)
            info = comm.all_reduce(x, op=op)
            assert info.world_size == PEERS
            results.append(x)
        return results

    everywhere = run_peers(PEERS, function)
    for number, (dtype, op) in enumerate(cases):
        for results in everywhere:
            np.testing.assert_array_equal(results[number], expected(op, dtype), f"{op} of {dtype}")


@pytest.mark.parametrize("algorithm", ["ring", "direct", "one_shot", None])
def test_all_ranks_hold_the_same_bits(run_peers: Any, algorithm: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[bytes, bytes, str]:
        x = np.random.default_rng(comm.rank).standard_normal(100_003).astype(np.float32)
        before = x.copy()
        out = np.empty_like(x)
        info = comm.all_reduce(x, out=out, op="avg", algorithm=algorithm)
        assert x.tobytes() == before.tobytes()
        comm.all_reduce(x, op="avg", algorithm=algorithm)
        return x.tobytes(), out.tobytes(), info.algorithm

    results = run_peers(PEERS, function)
    assert len(set(results)) == 1
    in_place, out_of_place, used = results[0]
    assert in_place == out_of_place
    assert algorithm in (None, used)


def test_a_list_of_mixed_types_is_one_operation(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[list[Any], int]:
        arrays = [
            np.full((2, 2), comm.rank + 1, np.float32),
            np.full(3, comm.rank, np.int64),
            np.zeros(0),
            np.array(0.5 * comm.rank),
            np.full(5, 2, np.float32),
        ]
        info = comm.all_reduce(arrays)
        return [one.tolist() for one in arrays], info.attempts

    for arrays, attempts in run_peers(PEERS, function):
        assert arrays == [[[6.0, 6.0], [6.0, 6.0]], [3, 3, 3], [], 1.5, [6.0] * 5]
        assert attempts == 1


def test_weights_travel_with_the_data(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[float, float, int, int, float]:
        x, y = np.full(4, float(comm.rank)), np.full(4, float(comm.rank))
        info = comm.all_reduce(x, op="avg", weight=comm.rank)  # rank 0 has weight 0
        comm.all_reduce(y, op="sum", weight=0.5)
        return x[0], y[3], info.world_size, info.members, info.weight_sum

    for average, total, world_size, members, weight_sum in run_peers(PEERS, function):
        assert average == pytest.approx((1 * 1 + 2 * 2) / 3)
        assert total == 1.5
        assert (world_size, members, weight_sum) == (2, 3, 3.0)


def test_weight_zero_takes_part_without_contributing(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> tuple[list[float], list[int]]:
        newcomer = comm.rank == 1
        x = np.full(3, np.nan if newcomer else 4.0)
        low = np.full(2, -9 if newcomer else comm.rank + 3, np.int32)
        comm.all_reduce(x, op="avg", weight=0.0 if newcomer else 1.0)
        comm.all_reduce(low, op="min", weight=0.0 if newcomer else 1.0)
        return x.tolist(), low.tolist()

    assert run_peers(PEERS, function) == [([4.0] * 3, [3, 3])] * PEERS


def test_threads_use_one_communicator_with_tags_of_their_own(run_peers: Any) -> None:
    tags, rounds = 4, 25

    def function(comm: pyccl.Communicator) -> list[float]:
        totals = [0.0] * tags

        def loop(tag: int) -> None:
            for number in range(rounds):
                x = np.full(100 + tag, float(number * tag))
                comm.all_reduce(x, tag=tag)
                totals[tag] += x[-1]

        threads = [threading.Thread(target=loop, args=(tag,)) for tag in range(tags)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return totals

    total = sum(range(rounds))
    assert run_peers(PEERS, function) == [[PEERS * tag * total for tag in range(tags)]] * PEERS


def test_groups_reduce_apart(coordinator: pyccl.Coordinator) -> None:
    results: dict[str, float] = {}

    def peer(group: str, value: float, size: int) -> None:
        with pyccl.connect(
            coordinator.address, group=group, world_size_min=size, timeout=30
        ) as comm:
            x = np.full(10, value)
            comm.all_reduce(x, timeout=30)
            results[f"{group} {value}"] = x[0]

    threads = [
        threading.Thread(target=peer, args=one)
        for one in [("a", 1.0, 2), ("a", 2.0, 2), ("b", 10.0, 1)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {"a 1.0": 3.0, "a 2.0": 3.0, "b 10.0": 10.0}


@pytest.mark.parametrize(
    ("odd", "texts"),
    [
        (lambda comm, x: comm.all_reduce(x[:7]), ["f64[8]", "f64[7]"]),
        (lambda comm, x: comm.all_reduce(x.astype(np.int32)), ["f64[8]", "i32[8]"]),
        (lambda comm, x: comm.all_reduce(x, op="max"), ["sum", "max"]),
        (lambda comm, x: comm.barrier(), ["all_reduce", "barrier"]),
        (lambda comm, x: comm.all_reduce([x[:4], x[4:]]), ["f64[8]", "a list of layout"]),
    ],
    ids=["size", "type", "op", "collective", "list"],
)
def test_a_mismatch_names_both_ranks_everywhere(run_peers: Any, odd: Any, texts: list[str]) -> None:
    def function(comm: pyccl.Communicator) -> tuple[str, list[float]]:
        x = np.arange(8.0)
        call = odd if comm.rank == 1 else pyccl.Communicator.all_reduce
        with pytest.raises(pyccl.MismatchError) as caught:
            call(comm, x)
        np.testing.assert_array_equal(x, np.arange(8.0))
        again = np.ones(2)
        comm.all_reduce(again)
        return str(caught.value), again.tolist()

    results = run_peers(PEERS, function)
    assert len({text for text, _ in results}) == 1
    for text, again in results:
        assert "rank 1" in text
        assert "rank 0" in text or "rank 2" in text
        assert all(part in text for part in texts)
        assert again == [3.0, 3.0]


def test_a_timeout_names_who_had_not_arrived(run_peers: Any) -> None:
    late = threading.Event()

    def function(comm: pyccl.Communicator) -> str:
        x = np.arange(4.0)
        if comm.rank == 2:
            assert late.wait(20)
            with pytest.raises(pyccl.OperationTimeout):  # the same outcome for the late one
                comm.all_reduce(x)
            text = ""
        else:
            with pytest.raises(TimeoutError) as caught:
                comm.all_reduce(x, timeout=0.3)
            late.set()
            text = str(caught.value)
        np.testing.assert_array_equal(x, np.arange(4.0))
        assert comm.all_reduce(x).world_size == PEERS
        return text

    texts = run_peers(PEERS, function)
    assert "2" in texts[0]
    assert "rank 2" in texts[0] or "ranks 2" in texts[0]


@pytest.mark.parametrize(
    ("sizes", "odd"),
    [
        ((4, 6), [(6, "f4"), (4, "f4")]),
        ((4, 6), [(4, "f4"), (3, "f4"), (3, "f4")]),
        ((4, 0, 6), [(4, "f4"), (6, "f4"), (0, "f4")]),
    ],
    ids=["order", "division", "empty"],
)
def test_lists_must_be_divided_alike(
    run_peers: Any, sizes: tuple[int, ...], odd: list[tuple[int, str]]
) -> None:
    def function(comm: pyccl.Communicator) -> bool:
        usual = [(size, "f4") for size in sizes]
        arrays = [np.ones(size, dtype) for size, dtype in (odd if comm.rank == 1 else usual)]
        with pytest.raises(pyccl.MismatchError, match="layout"):
            comm.all_reduce(arrays)
        return all((array == 1).all() for array in arrays)

    assert all(run_peers(PEERS, function))


def test_lists_of_mixed_types_must_be_in_one_order(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        arrays = [np.ones(4, "f4"), np.ones(4, "i4"), np.ones(2, "f4")]
        if comm.rank == 1:
            arrays = [arrays[0], arrays[2], arrays[1]]
        with pytest.raises(pyccl.MismatchError, match="layout"):
            comm.all_reduce(arrays)

    run_peers(PEERS, function)


def test_numbers_of_numpy_are_numbers(alone: pyccl.Communicator) -> None:
    x = np.ones(3)
    alone.all_reduce(x, weight=np.float32(3), tag=np.int64(5), timeout=np.float64(20))
    assert x.tolist() == [3.0, 3.0, 3.0]
    alone.all_reduce(x, tag=7)
    with pytest.raises(pyccl.InvalidArgumentError, match="tag"):
        alone.all_reduce(x, tag=7.0)  # type: ignore[call-overload]
