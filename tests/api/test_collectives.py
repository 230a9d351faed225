"""Every collective through the C API: values, roots, counts, subgroups, the general call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .conftest import PATIENCE, Library, RunPeers

PEERS = 3
COUNT = 50


def given(rank: int, size: int = COUNT) -> np.ndarray:
    return ((np.arange(size) * 7 + 13 * rank) % 101).astype(np.float32)


def run(lib: Library, name: str, comm: Any, *arguments: Any, **changes: Any) -> Any:
    """A function for one array: numpy arrays become pointers, the info comes back."""
    info = lib.ffi.new("pyccl_operation_info *")
    options = lib.options("operation", timeout=PATIENCE, **changes)
    plain = [
        lib.memory(each) if each is None or isinstance(each, np.ndarray) else each
        for each in arguments
    ]
    lib.check(getattr(lib.c, f"pyccl_{name}")(comm, *plain, options, info))
    return info


def test_those_with_equal_shares(lib: Library, run_peers: RunPeers) -> None:
    f32 = lib.c.PYCCL_F32
    everyone = [given(rank) for rank in range(PEERS)]
    wide = [given(rank, PEERS * COUNT) for rank in range(PEERS)]

    def body(rank: int, comm: Any) -> None:
        out, whole = np.zeros(COUNT, "f4"), np.zeros((PEERS, COUNT), "f4")
        info = run(lib, "all_gather", comm, given(rank), whole, COUNT, PEERS, f32)
        assert (info.members, info.attempts) == (PEERS, 1)
        assert np.array_equal(whole, everyone)

        run(lib, "reduce_scatter", comm, wide[rank], out, COUNT, PEERS, f32)
        assert np.array_equal(out, sum(wide).reshape(PEERS, COUNT)[rank])

        run(lib, "all_to_all", comm, wide[rank], whole, COUNT, PEERS, f32)
        assert np.array_equal(whole, [each.reshape(PEERS, COUNT)[rank] for each in wide])

        whole[:] = 0
        run(lib, "gather", comm, given(rank), whole if rank == 1 else None, COUNT, PEERS, f32, 1)
        assert np.array_equal(whole, everyone if rank == 1 else np.zeros_like(whole))

        run(lib, "scatter", comm, wide[2] if rank == 2 else None, out, COUNT, PEERS, f32, 2)
        assert np.array_equal(out, wide[2].reshape(PEERS, COUNT)[rank])
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_those_whose_arrays_are_alike(lib: Library, run_peers: RunPeers) -> None:
    f32 = lib.c.PYCCL_F32

    def body(rank: int, comm: Any) -> None:
        x = given(rank)
        run(lib, "broadcast", comm, x, COUNT, f32, 2)
        assert np.array_equal(x, given(2))

        x, out = given(rank), np.zeros(COUNT, "f4")
        info = run(lib, "reduce", comm, x, out if rank == 1 else None, COUNT, f32, 1, weight=2.0)
        assert (info.world_size, info.weight_sum) == (PEERS, 2.0 * PEERS)
        assert np.array_equal(x, given(rank))
        if rank == 1:
            assert np.array_equal(out, 2 * sum(given(each) for each in range(PEERS)))
            run(lib, "reduce", comm, x, x, COUNT, f32, 1, op=lib.c.PYCCL_MAX)
            assert np.array_equal(x, np.max([given(each) for each in range(PEERS)], axis=0))
        else:
            run(lib, "reduce", comm, x, None, COUNT, f32, 1, op=lib.c.PYCCL_MAX)
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_those_with_counts(lib: Library, run_peers: RunPeers) -> None:
    f32 = lib.c.PYCCL_F32
    counts = [4, 0, 9]
    ends = np.cumsum(counts)

    def body(rank: int, comm: Any) -> None:
        mine, whole = np.zeros(counts[rank], "f4"), np.zeros(13, "f4")
        run(lib, "all_gather_v", comm, given(rank, counts[rank]), whole, counts, PEERS, f32)
        together = np.concatenate([given(each, count) for each, count in enumerate(counts)])
        assert np.array_equal(whole, together)

        run(lib, "reduce_scatter_v", comm, given(rank, 13), mine, counts, PEERS, f32)
        total = sum(given(each, 13) for each in range(PEERS))
        assert np.array_equal(mine, total[ends[rank] - counts[rank] : ends[rank]])

        # Rank i sends i + j elements to rank j.
        sent = [rank + each for each in range(PEERS)]
        x, out = given(rank, sum(sent)), np.zeros(sum(sent), "f4")
        run(lib, "all_to_all_v", comm, x, sent, out, sent, PEERS, f32)
        parts = []
        for each in range(PEERS):
            begin = sum(each + before for before in range(rank))
            parts.append(given(each, 3 * each + 3)[begin : begin + each + rank])
        assert np.array_equal(out, np.concatenate(parts))
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_pairs(lib: Library, run_peers: RunPeers) -> None:
    f32 = lib.c.PYCCL_F32

    def body(rank: int, comm: Any) -> None:
        out = np.zeros(COUNT, "f4")
        if rank == 0:
            info = run(lib, "send", comm, given(0), COUNT, f32, 2, tag=5)
            assert info.members == 2
        elif rank == 2:
            run(lib, "recv", comm, out, COUNT, f32, 0, tag=5)
            assert np.array_equal(out, given(0))
        # The one in the middle swaps with itself.
        run(lib, "exchange", comm, given(rank), out, COUNT, f32, 2 - rank)
        assert np.array_equal(out, given(2 - rank))
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_the_general_call_runs_and_starts(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> None:
        a, b = given(rank, 6), np.full(3, rank, np.int64)
        out_a, out_b = np.zeros((PEERS, 6), "f4"), np.zeros((PEERS, 3), np.int64)
        arrays = lib.ffi.new("pyccl_array[2]", [lib.array(a, out_a)[0], lib.array(b, out_b)[0]])
        call = lib.ffi.new("pyccl_call *")
        call.collective = lib.c.PYCCL_ALL_GATHER
        call.arrays, call.array_count, call.world_size = arrays, 2, PEERS
        info = lib.ffi.new("pyccl_operation_info *")
        lib.check(lib.c.pyccl_run(comm, call, info))
        assert info.members == PEERS
        assert np.array_equal(out_a, [given(each, 6) for each in range(PEERS)])
        assert np.array_equal(out_b[:, 0], range(PEERS))

        works = []
        out_a[:] = 0
        root = lib.options("operation", tag=3, algorithm=lib.c.PYCCL_ALGORITHM_BINOMIAL)
        broadcast = lib.ffi.new("pyccl_call *")
        broadcast.collective, broadcast.rank = lib.c.PYCCL_BROADCAST, 1
        in_place = lib.array(b)
        broadcast.arrays, broadcast.array_count, broadcast.options = in_place, 1, root
        for each in (call, broadcast):
            work = lib.ffi.new("pyccl_work **")
            lib.check(lib.c.pyccl_start(comm, each, work))
            works.append(work[0])
        for work in works:
            lib.check(lib.c.pyccl_work_wait(work, PATIENCE))
        lib.check(lib.c.pyccl_work_info(works[1], info))
        assert lib.ffi.string(info.algorithm) == b"binomial"
        for work in works:
            lib.c.pyccl_work_free(work)
        assert np.array_equal(out_a[2], given(2, 6))
        assert np.array_equal(b, [1, 1, 1])
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_losses_are_told_unless_asked_otherwise(lib: Library, run_peers: RunPeers) -> None:
    """With a member less the memory still has room for all, but the result is another one."""
    f32 = lib.c.PYCCL_F32

    def body(rank: int, comm: Any) -> None:
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))
        if rank == 2:
            lib.c.pyccl_close(comm)
            return
        x, whole = given(rank), np.zeros((PEERS, COUNT), "f4")
        none = lib.ffi.NULL
        for _ in range(2):  # the second one is called in the view without it
            code = lib.c.pyccl_all_gather(
                comm, lib.memory(x), lib.memory(whole), COUNT, PEERS, f32, none, none
            )
            assert code == lib.c.PYCCL_PEER_LOST
        retried = {"on_loss": lib.c.PYCCL_ON_LOSS_RETRY}
        info = run(lib, "all_gather", comm, x, whole, COUNT, PEERS, f32, **retried)
        assert info.members == 2
        assert np.array_equal(whole[:2], [given(0), given(1)])
        code = lib.c.pyccl_all_to_all(
            comm, lib.memory(whole), lib.memory(whole), COUNT, PEERS, f32, none, none
        )
        assert code == lib.c.PYCCL_PEER_LOST
        assert "2" in lib.error()
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_subgroups(lib: Library, run_peers: RunPeers) -> None:
    f32 = lib.c.PYCCL_F32

    def body(rank: int, comm: Any) -> None:
        if rank != 1:
            handle = lib.ffi.new("pyccl_communicator **")
            lib.check(lib.c.pyccl_subgroup(comm, [2, 0], 2, b"ends", handle))
            sub = handle[0]
            view = lib.view(sub)
            assert (view.rank, view.world_size) == (1 if rank == 0 else 0, 2)
            assert view.peer == lib.view(comm).peer
            whole = np.zeros((2, COUNT), "f4")
            info = run(lib, "all_gather", sub, given(rank), whole, COUNT, 2, f32)
            assert info.members == 2
            assert np.array_equal(whole, [given(2), given(0)])
            out = np.zeros(COUNT, "f4")
            run(lib, "exchange", sub, given(rank), out, COUNT, f32, 1 - view.rank)
            assert np.array_equal(out, given(2 - rank))
            assert lib.c.pyccl_update(sub, 1) == lib.c.PYCCL_INVALID_ARGUMENT
            assert "subgroup" in lib.error()
            assert lib.c.pyccl_leave(sub, 1) == lib.c.PYCCL_INVALID_ARGUMENT
            lib.c.pyccl_close(sub)  # closes nothing
            inner = lib.ffi.new("pyccl_communicator **")
            lib.check(lib.c.pyccl_subgroup(sub, [view.rank], 1, lib.ffi.NULL, inner))
            lib.c.pyccl_free(sub)
            assert lib.all_reduce(inner[0], out).members == 1
            lib.c.pyccl_free(inner[0])
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))

    run_peers(PEERS, body)


def test_a_subgroup_without_a_member_is_of_no_use(lib: Library, run_peers: RunPeers) -> None:
    def body(rank: int, comm: Any) -> None:
        handle = lib.ffi.new("pyccl_communicator **")
        lib.check(lib.c.pyccl_subgroup(comm, [0, 1, 2], 3, b"", handle))
        sub = handle[0]
        lib.check(lib.c.pyccl_barrier(sub, 0, PATIENCE))
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))
        if rank == 2:
            lib.c.pyccl_close(comm)
            # The handle of a communicator that is closed says so.
            view = lib.ffi.new("pyccl_view *")
            assert lib.c.pyccl_get_view(sub, view) == lib.c.PYCCL_CLOSED
        else:
            assert lib.all_reduce(comm, np.ones(1)).members == 2
            assert lib.c.pyccl_barrier(sub, 0, PATIENCE) == lib.c.PYCCL_PEER_LOST
            view = lib.ffi.new("pyccl_view *")
            assert lib.c.pyccl_get_view(sub, view) == lib.c.PYCCL_PEER_LOST
            again = lib.ffi.new("pyccl_communicator **")
            assert lib.c.pyccl_subgroup(sub, [0], 1, b"", again) == lib.c.PYCCL_PEER_LOST
            lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))
        lib.c.pyccl_free(sub)

    run_peers(PEERS, body)


def test_receiving_from_any_source(lib: Library, run_peers: RunPeers) -> None:
    any_source, f32 = lib.constants.ANY_SOURCE, lib.c.PYCCL_F32

    def body(rank: int, comm: Any) -> None:
        handle = lib.ffi.new("pyccl_communicator **")
        lib.check(lib.c.pyccl_subgroup(comm, [1, 2, 0], 3, b"", handle))
        sub = handle[0]
        if rank == 1:
            sources = []
            for _ in range(2):
                x = np.zeros(COUNT, "f4")
                info = run(lib, "recv", comm, x, COUNT, f32, any_source, tag=3)
                assert np.array_equal(x, given(info.source))
                sources.append(info.source)
            assert sorted(sources) == [0, 2]
            assert run(lib, "recv", sub, x, COUNT, f32, any_source).source == 2
            code = lib.c.pyccl_recv(
                comm, lib.memory(x), COUNT, f32, any_source,
                lib.options("operation", timeout=0), lib.ffi.NULL,
            )  # fmt: skip
            assert code == lib.c.PYCCL_TIMEOUT
            assert "no member sent with tag 0" in lib.error()
        else:
            x = given(rank)
            assert run(lib, "send", comm, x, COUNT, f32, 1, tag=3).source == -1
            if rank == 0:
                run(lib, "send", sub, x, COUNT, f32, 0)
        lib.check(lib.c.pyccl_barrier(comm, 7, PATIENCE))
        if rank == 1:
            assert run(lib, "recv", sub, x, COUNT, f32, 1).source == 1
        elif rank == 2:
            run(lib, "send", sub, x, COUNT, f32, 0)
        lib.check(lib.c.pyccl_barrier(comm, 0, PATIENCE))
        assert lib.all_reduce(comm, np.ones(1)).source == -1
        lib.c.pyccl_free(sub)

    run_peers(PEERS, body)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([], "at least one"), ([1], "no rank 1"), ([0, 0], "twice"), ([-1], "no rank -1")],
)
def test_bad_ranks_of_subgroups(
    lib: Library, coordinator: Any, ranks: list[int], text: str
) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    handle = lib.ffi.new("pyccl_communicator **")
    code = lib.c.pyccl_subgroup(comm, ranks, len(ranks), b"", handle)
    assert code == lib.c.PYCCL_INVALID_ARGUMENT
    assert text in lib.error()
    assert handle[0] == lib.ffi.NULL
    lib.c.pyccl_free(comm)


def test_nonsense_in_calls_is_refused(lib: Library, coordinator: Any) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    x, c, none = np.ones(4), lib.c, lib.ffi.NULL
    counts = lib.ffi.new("uint64_t[1]", [4])
    kept = lib.array(x)

    def call(**fields: Any) -> int:
        made = lib.ffi.new("pyccl_call *")
        made.arrays, made.array_count = kept, 1
        for name, value in fields.items():
            setattr(made, name, value)
        return int(c.pyccl_run(comm, made, none))

    f64, memory = c.PYCCL_F64, lib.memory(x)
    codes = [
        call(collective=c.PYCCL_RECV + 1),
        call(collective=c.PYCCL_SEND, rank=1),
        call(collective=c.PYCCL_SEND, rank=0),
        call(collective=c.PYCCL_SEND, rank=lib.constants.ANY_SOURCE),
        call(collective=c.PYCCL_EXCHANGE, rank=lib.constants.ANY_SOURCE),
        call(collective=c.PYCCL_RECV, rank=lib.constants.ANY_SOURCE),
        call(collective=c.PYCCL_RECV, rank=-2),
        call(collective=c.PYCCL_BROADCAST, rank=1),
        call(collective=c.PYCCL_BROADCAST, rank=-1),
        call(collective=c.PYCCL_ALL_GATHER, world_size=-1),
        call(collective=c.PYCCL_ALL_GATHER, counts=counts),
        call(collective=c.PYCCL_ALL_GATHER, counts=counts, receive_counts=counts, world_size=1),
        call(collective=c.PYCCL_ALL_TO_ALL, counts=counts, world_size=1),
        call(collective=c.PYCCL_ALL_TO_ALL, receive_counts=counts, world_size=1),
        call(collective=c.PYCCL_ALL_REDUCE, counts=counts, world_size=1),
        c.pyccl_all_gather(comm, memory, memory, 4, 0, f64, none, none),
        c.pyccl_all_to_all(comm, memory, memory, 4, 0, f64, none, none),
        c.pyccl_all_to_all(comm, memory, memory, 1 << 63, 2, f64, none, none),
        c.pyccl_gather(comm, memory, memory, 1 << 63, 2, f64, 0, none, none),
        c.pyccl_all_gather(comm, memory, memory, 4, 1, c.PYCCL_U64 + 1, none, none),
        c.pyccl_all_gather(comm, none, memory, 4, 1, f64, none, none),
    ]
    assert codes == [c.PYCCL_INVALID_ARGUMENT] * len(codes)
    lib.check(c.pyccl_barrier(comm, 0, PATIENCE))  # nothing was harmed
    lib.c.pyccl_free(comm)
