"""Handles from their beginning to their end, and what comes of nonsense."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyccl

from .conftest import PATIENCE, Library, RunPeers


def test_one_peer_alone(lib: Library, coordinator: Any) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    view = lib.view(comm)
    assert (view.rank, view.world_size) == (0, 1)
    assert view.peer != 0
    assert view.epoch_incarnation == 1
    x = np.arange(5.0)
    assert lib.all_reduce(comm, x).world_size == 1
    assert np.array_equal(x, np.arange(5.0))
    assert lib.c.pyccl_peers_pending(comm) == 0
    lib.check(lib.c.pyccl_barrier(comm, 0, -1))
    lib.check(lib.c.pyccl_leave(comm, -1))
    lib.c.pyccl_free(comm)


def test_a_name_that_is_no_utf8_shows_as_bytes(
    lib: Library, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pyccl"), pyccl.Coordinator("127.0.0.1:0") as coordinator:
        comm = lib.connect(coordinator.address.encode(), group=b"caf\xe9")
        lib.check(lib.c.pyccl_leave(comm, PATIENCE))
        lib.c.pyccl_free(comm)
        with pyccl.connect(coordinator.address, timeout=PATIENCE):
            pass
    assert "caf\\xe9" in caplog.text


def test_pending_peers_are_seen_by_all_and_admitted_by_update(
    lib: Library, coordinator: Any, run_peers: RunPeers
) -> None:
    address = lib.c.pyccl_coordinator_address(coordinator)
    sizes: list[int] = []
    threads: list[threading.Thread] = []

    def meet(comm: Any) -> None:
        sizes.append(lib.view(comm).world_size)
        lib.check(lib.c.pyccl_barrier(comm, 1, PATIENCE))  # nobody goes before all have looked

    def join() -> None:
        comm = lib.connect(address)
        meet(comm)
        lib.c.pyccl_free(comm)

    def body(rank: int, comm: Any) -> None:
        if rank == 0:
            threads.append(threading.Thread(target=join))
            threads[0].start()
        while not lib.c.pyccl_peers_pending(comm):
            lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))
        lib.check(lib.c.pyccl_update(comm, PATIENCE))
        assert lib.c.pyccl_peers_pending(comm) == 0
        meet(comm)

    run_peers(2, body)
    threads[0].join(PATIENCE)
    assert sizes == [3, 3, 3]


def test_use_after_leave_and_after_close(lib: Library, coordinator: Any) -> None:
    address = lib.c.pyccl_coordinator_address(coordinator)
    x = np.ones(3)
    for end in (lambda c: lib.check(lib.c.pyccl_leave(c, PATIENCE)), lib.c.pyccl_close):
        comm = lib.connect(address)
        end(comm)
        array, view = lib.array(x), lib.ffi.new("pyccl_view *")
        for code in (
            lib.c.pyccl_barrier(comm, 0, PATIENCE),
            lib.c.pyccl_update(comm, PATIENCE),
            lib.c.pyccl_leave(comm, PATIENCE),
            lib.c.pyccl_get_view(comm, view),
            lib.c.pyccl_all_reduce_list(comm, array, 1, lib.ffi.NULL, lib.ffi.NULL),
        ):
            assert code == lib.c.PYCCL_CLOSED
        lib.c.pyccl_close(comm)
        lib.c.pyccl_free(comm)


def test_a_work_outlives_its_communicator(lib: Library, coordinator: Any) -> None:
    address = lib.c.pyccl_coordinator_address(coordinator)
    comm, work = lib.connect(address), lib.ffi.new("pyccl_work **")
    x = np.ones(3)
    lib.check(lib.c.pyccl_all_reduce_async(comm, lib.array(x), 1, lib.ffi.NULL, work))
    lib.c.pyccl_free(comm)
    assert lib.c.pyccl_work_done(work[0]) == 1
    assert lib.c.pyccl_work_wait(work[0], 0) in (lib.c.PYCCL_OK, lib.c.PYCCL_CLOSED)
    lib.c.pyccl_work_cancel(work[0])
    lib.c.pyccl_work_free(work[0])


def test_an_unreachable_coordinator_is_told_in_time(lib: Library) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{free.getsockname()[1]}"
        handle = lib.ffi.new("pyccl_communicator **")
        options = lib.options("connect", timeout=0.2)
        code = lib.c.pyccl_connect(address.encode(), options, handle)
    assert code == lib.c.PYCCL_COORDINATOR_UNAVAILABLE
    assert address in lib.error()
    assert handle[0] == lib.ffi.NULL


def test_a_port_in_use_is_told(lib: Library, coordinator: Any) -> None:
    address = lib.c.pyccl_coordinator_address(coordinator)
    handle = lib.ffi.new("pyccl_coordinator **")
    options = lib.options("coordinator", bind=address)
    assert lib.c.pyccl_coordinator_start(options, handle) == lib.c.PYCCL_ADDRESS_IN_USE
    assert lib.ffi.string(address).decode() in lib.error()


def test_a_damaged_state_file_is_told_by_name(lib: Library, tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    text = str(path).encode()
    coordinator = lib.coordinator(state_path=text)
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    lib.c.pyccl_free(comm)
    lib.c.pyccl_coordinator_free(coordinator)
    path.write_bytes(path.read_bytes()[:-1])
    handle = lib.ffi.new("pyccl_coordinator **")
    options = lib.options("coordinator", bind=b"127.0.0.1:0", state_path=text)
    assert lib.c.pyccl_coordinator_start(options, handle) == lib.c.PYCCL_IO
    assert str(path) in lib.error()


def test_a_stopped_coordinator_frees_its_port(lib: Library) -> None:
    coordinator = lib.coordinator()
    address = lib.ffi.string(lib.c.pyccl_coordinator_address(coordinator))
    lib.c.pyccl_coordinator_stop(coordinator)
    lib.c.pyccl_coordinator_stop(coordinator)
    again = lib.coordinator(bind=address)
    assert lib.ffi.string(lib.c.pyccl_coordinator_address(again)) == address
    lib.c.pyccl_coordinator_free(again)
    assert lib.ffi.string(lib.c.pyccl_coordinator_address(coordinator)) == address
    lib.c.pyccl_coordinator_free(coordinator)


def test_the_log_tells_joins(lib: Library) -> None:
    lines: list[str] = []

    @lib.ffi.callback("pyccl_log_function")
    def log(context: Any, level: int, text: Any) -> None:
        assert level in lib.ffi.typeof("pyccl_log_level").elements
        lines.append(lib.ffi.string(text).decode())

    coordinator = lib.coordinator(log=log)
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    peer = f"{lib.view(comm).peer:016x}"
    lib.c.pyccl_free(comm)
    lib.c.pyccl_coordinator_free(coordinator)
    assert any(peer in line for line in lines)


def test_error_text_belongs_to_its_thread(lib: Library) -> None:
    assert lib.c.pyccl_update(lib.ffi.NULL, 1) == lib.c.PYCCL_INVALID_ARGUMENT
    assert "pyccl_update" in lib.error()
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(lib.error()))
    thread.start()
    thread.join()
    assert seen == [""]


def null_calls(lib: Library, comm: Any) -> dict[str, int]:
    """Each function with each NULL that it must refuse."""
    null, c = lib.ffi.NULL, lib.c
    out_comm = lib.ffi.new("pyccl_communicator **")
    work, info = lib.ffi.new("pyccl_work **"), lib.ffi.new("pyccl_operation_info *")
    view, array = lib.ffi.new("pyccl_view *"), lib.ffi.new("pyccl_array *")
    out_coordinator = lib.ffi.new("pyccl_coordinator **")
    no_bind = lib.options("coordinator", bind=null)
    no_group = lib.options("connect", group=null)
    array.input_count = array.output_count = 1
    call, ranks = lib.ffi.new("pyccl_call *"), lib.ffi.new("int32_t[1]")
    f32 = c.PYCCL_F32
    without_arrays = lib.ffi.new("pyccl_call *", {"array_count": 1})
    return {
        "start without a place for the handle": c.pyccl_coordinator_start(null, null),
        "start without an address": c.pyccl_coordinator_start(no_bind, out_coordinator),
        "connect to nothing": c.pyccl_connect(null, null, out_comm),
        "connect without a place for the handle": c.pyccl_connect(b"127.0.0.1:1", null, null),
        "connect without a group": c.pyccl_connect(b"127.0.0.1:1", no_group, out_comm),
        "view of nothing": c.pyccl_get_view(null, view),
        "view into nothing": c.pyccl_get_view(comm, null),
        "update": c.pyccl_update(null, 1),
        "leave": c.pyccl_leave(null, 1),
        "barrier": c.pyccl_barrier(null, 0, 1),
        "all-reduce": c.pyccl_all_reduce(null, null, null, 0, c.PYCCL_F32, null, null),
        "all-reduce of NULL": c.pyccl_all_reduce(comm, null, null, 1, c.PYCCL_F32, null, null),
        "list": c.pyccl_all_reduce_list(null, array, 1, null, null),
        "list of NULL": c.pyccl_all_reduce_list(comm, null, 1, null, null),
        "list with a NULL array": c.pyccl_all_reduce_list(comm, array, 1, null, null),
        "async": c.pyccl_all_reduce_async(null, array, 1, null, work),
        "async without a place for the work": c.pyccl_all_reduce_async(comm, array, 0, null, null),
        "run nothing": c.pyccl_run(comm, null, null),
        "run for nobody": c.pyccl_run(null, call, null),
        "run without arrays": c.pyccl_run(comm, without_arrays, null),
        "start nothing": c.pyccl_start(comm, null, work),
        "start for nobody": c.pyccl_start(null, call, work),
        "start without a place for the work": c.pyccl_start(comm, call, null),
        "reduce": c.pyccl_reduce(null, null, null, 0, f32, 0, null, null),
        "gather": c.pyccl_gather(null, null, null, 0, 1, f32, 0, null, null),
        "counts": c.pyccl_all_gather_v(comm, null, null, null, 1, f32, null, null),
        "shares": c.pyccl_reduce_scatter_v(comm, null, null, null, 1, f32, null, null),
        "exchanged counts": c.pyccl_all_to_all_v(comm, null, null, null, null, 1, f32, null, null),
        "subgroup of nothing": c.pyccl_subgroup(null, ranks, 1, b"", out_comm),
        "subgroup of no ranks": c.pyccl_subgroup(comm, null, 1, b"", out_comm),
        "subgroup without a place": c.pyccl_subgroup(comm, ranks, 1, b"", null),
        "wait": c.pyccl_work_wait(null, 1),
        "info": c.pyccl_work_info(null, info),
    }


def test_null_is_refused_everywhere(lib: Library, coordinator: Any) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    wrong = {
        name: code
        for name, code in null_calls(lib, comm).items()
        if code != lib.c.PYCCL_INVALID_ARGUMENT
    }
    assert wrong == {}
    null = lib.ffi.NULL
    for ignored in ("coordinator_stop", "coordinator_free", "close", "free", "work_cancel"):
        getattr(lib.c, f"pyccl_{ignored}")(null)
    lib.c.pyccl_work_free(null)
    assert lib.c.pyccl_work_done(null) == 0
    assert lib.c.pyccl_peers_pending(null) == 0
    assert lib.c.pyccl_coordinator_address(null) == null
    lib.c.pyccl_free(comm)


@pytest.mark.parametrize(
    "changes",
    [
        {"op": 8},
        {"op": 0xFFFFFFFF},
        {"on_loss": 2},
        {"on_loss": -2},
        {"algorithm": 77},
        {"timeout": float("nan")},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"op": 5},  # a bit operation on floats
    ],
    ids=str,
)
def test_nonsense_in_operations_is_refused(
    lib: Library, coordinator: Any, changes: dict[str, Any]
) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    array = lib.array(np.ones(3))
    options = lib.options("operation", **changes)
    code = lib.c.pyccl_all_reduce_list(comm, array, 1, options, lib.ffi.NULL)
    assert code == lib.c.PYCCL_INVALID_ARGUMENT
    array.dtype = lib.constants.DTYPE_COUNT
    assert (
        lib.c.pyccl_all_reduce_list(comm, array, 1, lib.ffi.NULL, lib.ffi.NULL)
        == lib.c.PYCCL_INVALID_ARGUMENT
    )
    lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))  # nothing was harmed
    lib.c.pyccl_free(comm)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": 7},
        {"transport": 2},
        {"spin_us": 1_000_001},
        {"connections": 0},
        {"connections": 65},
        {"timeout": float("nan")},
        {"timeout": 0.0},
        {"heartbeat_limit": 0.0},
        {"coordinator_limit": 0.0},
    ],
    ids=str,
)
def test_nonsense_in_connecting_is_refused(lib: Library, changes: dict[str, Any]) -> None:
    handle = lib.ffi.new("pyccl_communicator **")
    options = lib.options("connect", **changes)
    code = lib.c.pyccl_connect(b"127.0.0.1:1", options, handle)
    assert code == lib.c.PYCCL_INVALID_ARGUMENT
    assert lib.error()


@pytest.mark.parametrize("address", [b"", b"host", b"127.0.0.1:", b"127.0.0.1:70000", b"::1:5"])
def test_what_is_no_address_is_refused(lib: Library, address: bytes) -> None:
    handle = lib.ffi.new("pyccl_communicator **")
    assert lib.c.pyccl_connect(address, lib.ffi.NULL, handle) == lib.c.PYCCL_INVALID_ARGUMENT
    out = lib.ffi.new("pyccl_coordinator **")
    options = lib.options("coordinator", bind=address)
    assert lib.c.pyccl_coordinator_start(options, out) == lib.c.PYCCL_INVALID_ARGUMENT
