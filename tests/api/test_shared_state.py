"""Shared state through the C API."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .conftest import PATIENCE, Library, RunPeers


def state_of(lib: Library, tensors: dict[bytes, np.ndarray], revision: int = 0) -> Any:
    """A handle that keeps what it points to alive."""
    array = lib.ffi.new("pyccl_tensor[]", len(tensors))
    kept: list[Any] = [array]
    for each, (name, x) in zip(array, tensors.items(), strict=True):
        text, shape = lib.ffi.new("char[]", name), lib.ffi.new("uint64_t[]", x.shape)
        each.name, each.data, each.shape = text, lib.memory(x), shape
        each.dimensions, each.dtype = x.ndim, lib.dtype(x)
        kept += [text, shape]
    handle = lib.ffi.new("pyccl_shared_state **")
    lib.check(lib.c.pyccl_shared_state_create(array, len(tensors), revision, 0, handle))
    state = lib.ffi.gc(handle[0], lib.c.pyccl_shared_state_free)
    lib.kept_alive[state] = [kept, tensors]
    return state


def digest(lib: Library, state: Any) -> str:
    text = lib.ffi.new("char[33]")
    lib.check(lib.c.pyccl_shared_state_digest(state, text))
    return str(lib.ffi.string(text).decode())


def test_all_get_the_newest_state(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.full(700_000, rank, np.float32)
        state = state_of(lib, {b"x": x, b"n": np.array(rank, np.int64)}, revision=10 + rank)
        told: list[tuple[int, int]] = []

        @lib.ffi.callback("int(void *, uint64_t, uint64_t)")
        def progress(_: Any, moved: int, to_move: int) -> int:
            told.append((moved, to_move))
            return 0

        info = lib.ffi.new("pyccl_sync_info *")
        options = lib.options("sync", timeout=PATIENCE, progress=progress)
        lib.check(lib.c.pyccl_sync(comm, state, options, info))
        assert (x == 2).all()
        assert info.revision == 12 == lib.c.pyccl_shared_state_revision(state)
        assert lib.ffi.string(info.digest).decode() == digest(lib, state)
        assert info.bytes_fetched == (0 if rank == 2 else x.nbytes + 8)
        assert told[-1] == (2 * (x.nbytes + 8),) * 2
        behind = lib.ffi.new("pyccl_behind *")
        seen = []
        for i in range(info.behind):
            lib.check(lib.c.pyccl_sync_behind(state, i, behind))
            seen.append((behind.rank, behind.revision, behind.drifted))
        assert lib.c.pyccl_sync_behind(state, info.behind, behind) != lib.c.PYCCL_OK
        return digest(lib, state), seen

    results = run_peers(3, body)
    assert results == [(results[0][0], [(0, 10, 0), (1, 11, 0)])] * 3


def test_a_sync_that_is_given_up_ends_for_all(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> Any:
        x = np.full(100_000, rank, np.float64)
        state = state_of(lib, {b"x": x}, revision=rank)

        @lib.ffi.callback("int(void *, uint64_t, uint64_t)")
        def progress(*_: Any) -> int:
            return int(rank == 0)

        options = lib.options("sync", timeout=PATIENCE, progress=progress)
        code = lib.c.pyccl_sync(comm, state, options, lib.ffi.NULL)
        assert code == lib.c.PYCCL_CANCELLED, lib.error()
        assert not lib.c.pyccl_shared_state_is_void(state)
        lib.check(lib.c.pyccl_sync(comm, state, lib.ffi.NULL, lib.ffi.NULL))
        return x.sum()

    assert run_peers(2, body) == [100_000] * 2


def test_states_in_conflict_name_the_ranks(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> Any:
        state = state_of(lib, {b"x": np.full(10, rank, np.float32)}, revision=1)
        options = lib.options("sync", strategy=lib.c.PYCCL_SEND_ONLY)
        assert lib.c.pyccl_sync(comm, state, options, lib.ffi.NULL) == lib.c.PYCCL_STATE_SYNC
        return lib.error()

    first, second = run_peers(2, body)
    assert first == second
    assert "rank 0" in first
    assert "rank 1" in first


def test_what_is_no_state_is_refused(lib: Library, coordinator: Any) -> None:
    handle = lib.ffi.new("pyccl_shared_state **")
    tensor = lib.ffi.new("pyccl_tensor *")
    create = lib.c.pyccl_shared_state_create
    assert create(tensor, 1, 0, 0, handle) == lib.c.PYCCL_INVALID_ARGUMENT
    assert "no name" in lib.error()
    name = lib.ffi.new("char[]", b"w")
    tensor.name, tensor.dtype = name, 99
    assert create(tensor, 1, 0, 0, handle) == lib.c.PYCCL_INVALID_ARGUMENT
    assert "'w' has no such dtype" in lib.error()
    huge = lib.ffi.new("uint64_t[]", [1 << 40, 1 << 40])
    tensor.dtype, tensor.shape, tensor.dimensions = lib.c.PYCCL_F32, huge, 2
    assert create(tensor, 1, 0, 0, handle) == lib.c.PYCCL_INVALID_ARGUMENT
    assert "larger than any memory" in lib.error()
    x = np.zeros(4, np.float32)
    with pytest.raises(AssertionError, match="share memory"):
        state_of(lib, {b"a": x, b"b": x[1:]})
    assert create(lib.ffi.NULL, 0, 0, 0, lib.ffi.NULL) == lib.c.PYCCL_INVALID_ARGUMENT
    lib.c.pyccl_shared_state_free(lib.ffi.NULL)
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    empty = state_of(lib, {})
    lib.check(lib.c.pyccl_sync(comm, empty, lib.ffi.NULL, lib.ffi.NULL))
    bad = lib.options("sync", strategy=7)
    assert lib.c.pyccl_sync(comm, empty, bad, lib.ffi.NULL) == lib.c.PYCCL_INVALID_ARGUMENT
    assert lib.c.pyccl_sync(comm, lib.ffi.NULL, bad, lib.ffi.NULL) == lib.c.PYCCL_INVALID_ARGUMENT
    lib.c.pyccl_free(comm)
