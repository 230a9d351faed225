"""Operations through the C API: values, forms, outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .conftest import PATIENCE, Library, RunPeers


@pytest.mark.parametrize(
    "dtype", ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
)
def test_sum_of_three(lib: Library, run_peers: RunPeers, dtype: str) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = (np.arange(1000) % 20 + rank).astype(dtype)
        info = lib.all_reduce(comm, x)
        assert info.world_size == info.members == 3
        assert info.attempts == 1
        assert info.weight_sum == 3.0
        assert info.seconds > 0
        assert lib.ffi.string(info.algorithm)
        return x

    for x in run_peers(3, body):
        assert np.array_equal(x, ((np.arange(1000) % 20) * 3 + 3).astype(dtype))


@pytest.mark.parametrize(
    ("op", "expected"),
    [("SUM", 10), ("AVG", 5), ("PROD", 16), ("MIN", 2), ("MAX", 8)],
)
def test_ops(lib: Library, run_peers: RunPeers, op: str, expected: float) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.full(77, [2, 8][rank], np.float32)
        lib.all_reduce(comm, x, op=getattr(lib.c, f"PYCCL_{op}"))
        return x

    for x in run_peers(2, body):
        assert np.all(x == expected)


@pytest.mark.parametrize(("op", "expected"), [("BAND", 0b1000), ("BOR", 0b1110), ("BXOR", 0b0110)])
def test_bit_ops(lib: Library, run_peers: RunPeers, op: str, expected: int) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.full(77, [0b1100, 0b1010][rank], np.uint16)
        lib.all_reduce(comm, x, op=getattr(lib.c, f"PYCCL_{op}"))
        return x

    for x in run_peers(2, body):
        assert np.all(x == expected)


def test_weights_count_and_weight_zero_takes_part(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.full(10, [1.0, 4.0, 1000.0][rank])
        info = lib.all_reduce(comm, x, op=lib.c.PYCCL_AVG, weight=[2.0, 1.0, 0.0][rank])
        assert (info.world_size, info.members, info.weight_sum) == (2, 3, 3.0)
        return x

    for x in run_peers(3, body):
        assert np.all(x == 2.0)


def test_list_of_mixed_types_is_one_operation(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> Any:
        a, b = np.full(1000, rank + 1, np.float32), np.full(7, rank + 1, np.int64)
        empty, out = np.empty(0, np.float64), np.zeros(7, np.int64)
        parts = [lib.array(a), lib.array(empty), lib.array(b, out)]
        arrays = lib.ffi.new("pyccl_array[]", [part[0] for part in parts])
        options = lib.options("operation", timeout=PATIENCE)
        lib.check(lib.c.pyccl_all_reduce_list(comm, arrays, 3, options, lib.ffi.NULL))
        assert np.all(b == rank + 1)  # out of place: the input stays
        return a, out

    for a, out in run_peers(2, body):
        assert np.all(a == 3)
        assert np.all(out == 3)


def test_asynchronous_operations_end_in_any_order_of_waiting(
    lib: Library, run_peers: RunPeers
) -> None:
    def body(rank: int, comm: Any) -> Any:
        arrays = [np.full(1000, rank + i, np.float32) for i in range(4)]
        works = []
        for x in arrays:
            work = lib.ffi.new("pyccl_work **")
            options = lib.options("operation", timeout=PATIENCE)
            lib.check(lib.c.pyccl_all_reduce_async(comm, lib.array(x), 1, options, work))
            works.append(work[0])
        for work in reversed(works):
            lib.check(lib.c.pyccl_work_wait(work, PATIENCE))
            assert lib.c.pyccl_work_done(work) == 1
            info = lib.ffi.new("pyccl_operation_info *")
            lib.check(lib.c.pyccl_work_info(work, info))
            assert info.world_size == 2
        for work in works:
            lib.check(lib.c.pyccl_work_wait(work, 0))  # as often as one likes
            lib.c.pyccl_work_free(work)
        return arrays

    for arrays in run_peers(2, body):
        for i, x in enumerate(arrays):
            assert np.all(x == 2 * i + 1)


def test_a_wait_that_ends_early_leaves_the_operation_alone(
    lib: Library, run_peers: RunPeers
) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.ones(10, np.float32)
        if rank == 0:
            work = lib.ffi.new("pyccl_work **")
            lib.check(lib.c.pyccl_all_reduce_async(comm, lib.array(x), 1, lib.ffi.NULL, work))
            assert lib.c.pyccl_work_wait(work[0], 0) == lib.c.PYCCL_TIMEOUT
            assert lib.c.pyccl_work_wait(work[0], 0.01) == lib.c.PYCCL_TIMEOUT
            assert lib.c.pyccl_work_done(work[0]) == 0
            info = lib.ffi.new("pyccl_operation_info *")
            assert lib.c.pyccl_work_info(work[0], info) == lib.c.PYCCL_INVALID_ARGUMENT
        # Only now does rank 1 begin: it waits for this barrier of another tag first.
        lib.check(lib.c.pyccl_barrier(comm, 1, PATIENCE))
        if rank == 0:
            lib.check(lib.c.pyccl_work_wait(work[0], PATIENCE))
            lib.c.pyccl_work_free(work[0])
        else:
            lib.all_reduce(comm, x)
        return x

    for x in run_peers(2, body):
        assert np.all(x == 2)


def test_freeing_a_work_gives_its_memory_back(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> None:
        if rank == 0:
            x = np.ones(10, np.float32)
            work = lib.ffi.new("pyccl_work **")
            lib.check(lib.c.pyccl_all_reduce_async(comm, lib.array(x), 1, lib.ffi.NULL, work))
            lib.c.pyccl_work_cancel(work[0])
            assert lib.c.pyccl_work_wait(work[0], PATIENCE) == lib.c.PYCCL_CANCELLED
            lib.c.pyccl_work_free(work[0])
            lib.check(
                lib.c.pyccl_all_reduce_async(
                    comm, lib.array(x), 1, lib.options("operation", tag=3), work
                )
            )
            lib.c.pyccl_work_free(work[0])
            assert np.all(x == 1)
        lib.check(lib.c.pyccl_barrier(comm, 9, PATIENCE))

    run_peers(2, body)


def test_mismatch_is_an_error_at_all_that_names_both(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> str:
        x = np.ones([100, 200][rank], np.float32)
        array = lib.array(x)
        code = lib.c.pyccl_all_reduce(
            comm, array.input, array.output, x.size, array.dtype, lib.ffi.NULL, lib.ffi.NULL
        )
        assert code == lib.c.PYCCL_MISMATCH
        assert np.all(x == 1)
        text = lib.error()
        lib.check(lib.c.pyccl_barrier(comm, 1, PATIENCE))  # nobody goes before all have come
        return text

    first, second = run_peers(2, body)
    assert first == second
    for part in ("rank 0", "rank 1", "100", "200"):
        assert part in first


def test_timeout_names_who_is_missing(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> None:
        if rank == 0:
            x = np.ones(10, np.float32)
            array = lib.array(x)
            options = lib.options("operation", timeout=0.05)
            code = lib.c.pyccl_all_reduce(
                comm, array.input, array.output, 10, array.dtype, options, lib.ffi.NULL
            )
            assert code == lib.c.PYCCL_TIMEOUT
            assert "rank 1" in lib.error()
        lib.check(lib.c.pyccl_barrier(comm, 1, PATIENCE))

    run_peers(2, body)
