"""sync() among peers: who is elected, what is refused, and that all hold the same bits after it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl import SharedState, StateSyncError

from .states import BLOCK, Peer, Shapes, bits, check_sync, elected, has, state_of, tensors_of
from .values import DTYPES

ONLY, NEVER = "send_only", "receive_only"


def sync_as(
    comm: pyccl.Communicator, peers: Sequence[Peer], rank: int
) -> tuple[SharedState, pyccl.SyncInfo]:
    me = peers[rank]
    state = state_of(me.content, me.revision)
    return state, comm.sync(state, me.strategy)


# By what is meant; each rank's revision, content and strategy.
WELL: dict[str, list[Peer]] = {
    "alone": [Peer(0, 1)],
    "alone, send_only": [Peer(3, 1, ONLY)],
    "all alike": [Peer(5, 1), Peer(5, 1)],
    "newest wins": [Peer(1, 1), Peer(2, 2)],
    "newest of three, in the middle": [Peer(1, 1), Peer((1 << 64) - 1, 2), Peer(7, 3)],
    "newest wins over more that are older": [Peer(4, 1), Peer(4, 1), Peer(4, 1), Peer(5, 2)],
    "most holders": [Peer(4, 1), Peer(4, 2), Peer(4, 2)],
    "most holders of four": [Peer(4, 1), Peer(4, 2), Peer(4, 3), Peer(4, 3)],
    "lowest rank of a tie": [Peer(4, 9), Peer(4, 1)],
    "lowest rank of two pairs": [Peer(4, 5), Peer(4, 1), Peer(4, 1), Peer(4, 5)],
    "same bits of another revision are no votes": [Peer(4, 1), Peer(5, 2), Peer(4, 1), Peer(5, 3)],
    "receive_only has a vote": [Peer(4, 1), Peer(4, 2), Peer(4, 2, NEVER)],
    "send_only wins over a majority": [Peer(4, 1), Peer(4, 1), Peer(4, 2, ONLY)],
    "two of send_only that agree": [Peer(4, 1), Peer(4, 2, ONLY), Peer(4, 2, ONLY)],
    "send_only and newest": [Peer(3, 1), Peer(4, 2, ONLY), Peer(2, 3)],
    "newer receive_only goes back": [Peer(9, 1, NEVER), Peer(4, 2)],
    "newer receive_only goes back to send_only": [Peer(9, 1, NEVER), Peer(4, 2, ONLY), Peer(3, 3)],
    "only one may send": [Peer(4, 1, NEVER), Peer(4, 2, NEVER), Peer(4, 3)],
    "same bits, older revision": [Peer(4, 1), Peer(7, 1)],
}

REFUSED: dict[str, tuple[list[Peer], str]] = {
    "alone and receive_only": ([Peer(4, 1, NEVER)], r"no member.*rank 0 .*receive_only"),
    "nobody may send": (
        [Peer(4, 1, NEVER), Peer(4, 1, NEVER), Peer(5, 2, NEVER)],
        r"no member has a state.*rank 0 .*rank 1 .*rank 2 .*receive_only",
    ),
    "two send_only of one revision": (
        [Peer(4, 1), Peer(4, 2, ONLY), Peer(4, 3, ONLY)],
        r"rank 1 .*revision 4, rank 2 .*revision 4 with other bits",
    ),
    "two send_only of two revisions": (
        [Peer(5, 2, ONLY), Peer(4, 2, ONLY)],
        r"send_only have different states: rank 0 .*revision 5, rank 1 .*revision 4",
    ),
    "popular newer than send_only": (
        [Peer(4, 2, ONLY), Peer(3, 1), Peer(5, 1)],
        r"rank 0 .*revision 4 and is send_only, but rank 2 .*revision 5",
    ),
}  # fmt: skip


def by_size(cases: dict[str, Any], size: Any) -> list[tuple[int, dict[str, Any]]]:
    return [
        (count, {name: one for name, one in cases.items() if size(one) == count})
        for count in (1, 2, 3, 4)
        if any(size(one) == count for one in cases.values())
    ]


@pytest.mark.parametrize(("world", "cases"), by_size(WELL, len))
def test_who_is_elected(run_peers: Any, world: int, cases: dict[str, list[Peer]]) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        for peers in cases.values():
            state, info = sync_as(comm, peers, rank)
            check_sync(state, info, peers)

    run_peers(world, function)


@pytest.mark.parametrize(("world", "cases"), by_size(REFUSED, lambda one: len(one[0])))
def test_what_is_refused_is_refused_at_all(run_peers: Any, world: int, cases: Any) -> None:
    """With one text, nothing is changed, and the same communicators can sync all the same."""

    def function(comm: pyccl.Communicator) -> list[str]:
        rank, texts = comm.rank, []
        for peers, text in cases.values():
            assert elected(peers) is None
            me = peers[rank]
            state = state_of(me.content, me.revision)
            with pytest.raises(StateSyncError, match=text) as caught:
                comm.sync(state, me.strategy)
            texts.append(str(caught.value))
            has(state, me.content, me.revision)
            comm.sync(state)
            sound = [one._replace(strategy="popular") for one in peers]
            assert (state.revision, bits(state)) == (
                elected(sound)[0],  # type: ignore[index]
                bits(state_of(elected(sound)[1], 0)),  # type: ignore[index]
            )
        return texts

    texts = run_peers(world, function)
    assert all(one == texts[0] for one in texts)


def test_a_void_state_is_sent_by_nobody(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 5 + rank)
        if rank == 1:
            state._core.spoil()
        comm.sync(state)
        has(state, 0, 5)
        state._core.spoil()
        with pytest.raises(StateSyncError, match=r"rank 0 .*half overwritten.*rank 1 .*half over"):
            comm.sync(state)
        assert set(state.void) == set(state)
        if rank == 1:
            with pytest.raises(StateSyncError, match=r"rank 1 .*is send_only, but its state"):
                comm.sync(state, ONLY)
            state.revision = 7
        else:
            with pytest.raises(StateSyncError, match=r"rank 1 .*is send_only, but its state"):
                comm.sync(state)
        comm.sync(state)
        has(state, 0, 7)

    run_peers(2, function)


# ---- schemas


def schemas(rank: int) -> list[tuple[dict[str, Any], str]]:
    """Pairs of states that don't fit, and what is said of them."""
    x, y, odd = np.zeros(3, np.float32), np.zeros((2, 2)), rank == 1
    many = {f"t{i}": np.zeros(1) for i in range(20)}
    return [
        ({"x": x, **({} if odd else {"y": y})}, "'y' is missing at rank 1"),
        ({"x": x, **({"y": y} if odd else {})}, "'y' is missing at rank 0"),
        ({"x": x.view("i4") if odd else x}, r"'x' is i32\(3\) at rank 1, but f32\(3\) at rank 0"),
        ({"y": y.reshape(4) if odd else y}, r"'y' is f64\(4\) at rank 1, but f64\(2, 2\) at rank"),
        ({"y": np.zeros(()) if odd else np.zeros(1)}, r"'y' is f64\(\) at rank 1, but f64\(1\)"),
        ({"b": np.zeros(8, bool) if odd else np.zeros(8, "u1")}, r"'b' is bool\(8\) at rank 1"),
        ({"x" if odd else "z": x}, "'z' is missing at rank 1; 'x' is missing at rank 0"),
        ({} if odd else many, "missing at rank 1; and 12 more"),
        ({"\u4e2d": x, **({} if odd else {"\u6587": x.copy()})}, "'\u6587' is missing at rank 1"),
    ]


def test_states_of_other_schemas(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> list[str]:
        rank, texts = comm.rank, []
        for revision, (tensors, text) in enumerate(schemas(rank)):
            state = SharedState(tensors, revision)
            with pytest.raises(StateSyncError, match=text) as caught:
                comm.sync(state)
            texts.append(str(caught.value))
        state = state_of(rank, rank)
        comm.sync(state)
        has(state, 2, 2)
        return texts

    texts = run_peers(3, function)
    assert all(one == texts[0] for one in texts)


def test_the_order_of_tensors_does_not_matter(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        tensors = tensors_of(rank)
        names = sorted(tensors, reverse=rank == 1)
        state = SharedState({name: tensors[name] for name in names}, rank)
        comm.sync(state)
        has(state, 1, 1)

    run_peers(2, function)


def test_expect_next_must_be_said_by_all(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        state = state_of(1, 0, expect_next=comm.rank == 1)
        with pytest.raises(StateSyncError, match="expect_next is set at rank 1 only"):
            comm.sync(state)

    run_peers(2, function)


# ---- expect_next


@pytest.mark.parametrize("by_call", [False, True])
def test_revisions_that_must_go_on_by_one(run_peers: Any, by_call: bool) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(rank, 40 + rank, expect_next=not by_call)
        sync = {"expect_next": by_call}
        comm.sync(state, **sync)  # the first one takes any
        has(state, 1, 41)
        for refused in (41, 43, 40, 0):
            state.revision = refused
            with pytest.raises(StateSyncError, match=rf"newest revision is {refused}, but rank 0"):
                comm.sync(state, **sync)
        # Who is behind by one takes part, if somebody else goes on.
        state.revision = 42 if rank == 0 else 41
        assert comm.sync(state, **sync).revision == 42
        state.revision = 43
        assert comm.sync(state, **sync).revision == 43

    run_peers(2, function)


def test_expect_next_of_one_member_alone(run_peers: Any) -> None:
    """By the call, where the states say nothing."""

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(1, 10)
        comm.sync(state, expect_next=rank == 1)
        state.revision = 12
        with pytest.raises(StateSyncError, match=r"is 12, but rank 1 .* expects 11") as caught:
            comm.sync(state, expect_next=rank == 1)
        assert "rank 0" not in str(caught.value)
        assert comm.sync(state).revision == 12

    run_peers(2, function)


def test_a_restart_from_a_snapshot_with_expect_next(run_peers: Any, tmp_path: Path) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(3, 7, expect_next=True)
        comm.sync(state)
        state.save(tmp_path / str(rank))
        state = SharedState.load(tmp_path / str(rank), expect_next=True)
        # Nobody knows when it was synced last: it takes any, and then must go on.
        assert comm.sync(state).revision == 7
        state.revision = 8
        assert comm.sync(state).revision == 8
        with pytest.raises(StateSyncError, match="expects 9"):
            comm.sync(state)
        # A newcomer to a run that goes on.
        late = rank == 1
        if late:
            state = state_of(0, 0, expect_next=True)
        else:
            state.revision = 9
        comm.sync(state)
        has(state, 3, 9)

    run_peers(2, function)


# ---- what is moved


def test_a_flipped_bit_is_found_and_repaired(run_peers: Any) -> None:
    shapes: Shapes = {"a": ("f4", (100,)), "b": ("u1", (3 * BLOCK + 5,)), "c": ("i8", ())}

    def function(comm: pyccl.Communicator) -> None:
        rank, peers = comm.rank, comm.peers
        state = state_of(1, 4, shapes)
        comm.sync(state)
        for number, (name, at) in enumerate((("a", 0), ("b", 3 * BLOCK + 4), ("b", BLOCK))):
            victim = number % 3
            if rank == victim:
                np.asarray(state[name]).view(np.uint8)[at] ^= 1 << number
            info = comm.sync(state)
            has(state, 1, 4, shapes)
            (one,) = info.behind
            assert one == (victim, peers[victim], 4, True)
            assert info.blocks_fetched == (1 if rank == victim else 0)
            assert info.bytes_fetched <= BLOCK
        assert comm.sync(state).behind == ()

    run_peers(3, function)


EDGES = (0, 1, 3, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17)


@pytest.mark.parametrize("world", [2, 4])
def test_all_types_and_odd_sizes(run_peers: Any, world: int) -> None:
    shapes: Shapes = {f"u1 {size}": ("u1", (size,)) for size in EDGES}
    for dtype, shape in itertools.product([*DTYPES, "?", "c8", "c16"], [(), (0,), (5,), (31, 17)]):
        shapes[f"{dtype} {shape}"] = (dtype, shape)
    shapes["odd f8"] = ("f8", (BLOCK // 8 + 1,))

    def function(comm: pyccl.Communicator) -> int:
        rank = comm.rank
        state = state_of(rank == 1, rank == 1, shapes)
        info = comm.sync(state)
        has(state, 1, 1, shapes)
        assert info.bytes_fetched == (0 if rank == 1 else state.bytes)
        return info.blocks_fetched

    blocks = sum(-(-tensor.nbytes // BLOCK) for tensor in tensors_of(0, shapes).values())
    assert run_peers(world, function) == [0 if rank == 1 else blocks for rank in range(world)]


@pytest.mark.parametrize("tensors", [{}, {"none": ("f4", (0,)), "no": ("u1", (4, 0))}])
def test_states_without_a_byte(run_peers: Any, tensors: Shapes) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(0, 4 + rank, tensors)
        for revision in (6, 9):
            info = comm.sync(state)
            assert state.revision == info.revision == revision
            assert info.digest == state.digest()
            # The bits are the same; it was behind all the same.
            behind = [each.rank for each in info.behind]
            assert behind == ([0, 1] if revision == 6 else [1, 2])
            state.revision = 9 if rank == 0 else 6

    run_peers(3, function)


def test_ten_thousand_small_tensors(run_peers: Any) -> None:
    count = 10_000

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        rows = np.full((count, 3), rank, np.float32)
        state = SharedState({f"layer.{i}": rows[i] for i in range(count)}, rank)
        info = comm.sync(state)
        assert (rows == 1).all()
        assert info.blocks_fetched == (0 if rank == 1 else count)
        rows[777, 2] += rank == 0
        info = comm.sync(state)
        assert (rows == 1).all() or (rows[777, 2] == 2 and (np.delete(rows, 777, 0) == 1).all())
        assert len({bits(state)[f"layer.{i}"] for i in (0, 1, count - 1)}) == 1
        assert info.blocks_fetched == (1 if rank == 1 else 0)

    run_peers(2, function)


def test_states_that_are_alike_move_nothing(run_peers: Any) -> None:
    shapes: Shapes = {"w": ("f4", (4 << 20,))}

    def function(comm: pyccl.Communicator) -> None:
        state = state_of(1, 4, shapes)
        info = comm.sync(state)
        assert (info.blocks_fetched, info.bytes_fetched, info.sources) == (0, 0, ())
        assert 0 < info.bytes_sent < 4096
        assert 0 < info.bytes_received < 4096

    run_peers(3, function)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_one_changed_number_moves_one_block(run_peers: Any, transport: Any) -> None:
    shapes: Shapes = {"w": ("f4", (16 << 20,))}

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        state = state_of(1, 4, shapes)
        if rank == 1:
            state["w"][12_345_678] += 1
            state.revision = 5
        info = comm.sync(state)
        assert info.bytes_sent + info.bytes_received <= 2 * BLOCK
        assert info.bytes_fetched == (BLOCK if rank == 0 else 0)
        assert [each.rank for each in info.sources] == ([1] if rank == 0 else [])
        assert state.revision == 5

    run_peers(2, function, transport=transport)


def test_all_who_have_it_send(run_peers: Any) -> None:
    """To the one that lacks it, each about the same."""
    shapes: Shapes = {"w": ("u1", (30 * BLOCK,))}

    def function(comm: pyccl.Communicator) -> None:
        rank, peers = comm.rank, comm.peers
        state = state_of(rank == 3, 0 if rank == 3 else 1, shapes)
        info = comm.sync(state)
        has(state, 0, 1, shapes)
        assert [each.rank for each in info.behind] == [3]
        assert [each.rank for each in info.sources] == ([0, 1, 2] if rank == 3 else [])
        assert all(each.peer == peers[each.rank] for each in info.sources)
        assert all(each.bytes >= 2 * BLOCK for each in info.sources)

    run_peers(4, function)


def test_receive_only_sends_nothing_though_it_has_it(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        shapes: Shapes = {"w": ("u1", (4 * BLOCK,))}
        state = state_of(rank == 2, 0 if rank == 2 else 1, shapes)
        info = comm.sync(state, NEVER if rank == 0 else "popular")
        has(state, 0, 1, shapes)
        assert [each.rank for each in info.sources] == ([1] if rank == 2 else [])
        if rank == 0:
            assert info.bytes_sent < BLOCK

    run_peers(3, function)
