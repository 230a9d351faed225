"""What is wrong with a call of a collective, and that everybody hears of it alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyccl

PEERS = 3
ONES = np.ones(6)

Call = Callable[[pyccl.Communicator], Any]

REFUSED: dict[str, tuple[Call, str]] = {
    "negative root": (lambda c: c.broadcast(np.ones(2), root=-1), "root is -1"),
    "root is no number": (lambda c: c.reduce(np.ones(2), root="0"), "root is '0'"),
    "half a root": (lambda c: c.gather(np.ones(2), root=0.5), "root is 0.5"),
    "no dimension to cut": (lambda c: c.reduce_scatter(np.float64(1).reshape(())), "first dim"),
    "no dimension to count": (lambda c: c.all_gather(np.array(1.0), counts=[1]), "first dim"),
    "counts of a list": (lambda c: c.all_gather([ONES], counts=[6]), "single array"),
    "counts that are no numbers": (lambda c: c.all_gather(ONES, counts=["6"]), r"counts\[0\]"),
    "counts below 0": (lambda c: c.reduce_scatter(ONES, counts=[-6]), r"counts\[0\] is -6"),
    "counts beyond all memory": (lambda c: c.all_gather(ONES, counts=[1 << 60]), "counts"),
    "counts are one number": (lambda c: c.all_gather(ONES, counts=6), "no sequence"),
    "one half of the counts": (lambda c: c.all_to_all(ONES, send_counts=[6]), "come together"),
    "types differ": (lambda c: c.all_gather(ONES, out=np.ones(6, np.float32)), "out holds f32"),
    "read-only out": (lambda c: c.all_gather(ONES, out=b"x" * 48), "out is read-only"),
    "strided": (lambda c: c.all_gather(ONES[::2]), "x is not C-contiguous"),
    "strided out": (lambda c: c.reduce_scatter(ONES, out=np.ones(12)[::2]), "out is not C-cont"),
    "none": (lambda c: c.all_gather(None), "x is None"),
    "none in a list": (lambda c: c.gather([ONES, None]), r"x\[1\] is None"),
    "none in out": (lambda c: c.all_gather([ONES], out=[None]), r"out\[0\] is None"),
    "nothing to scatter": (lambda c: c.scatter(None), "x is None"),
    "empty list": (lambda c: c.all_to_all([]), "x is an empty list"),
    "empty list to send": (lambda c: c.send([], 0), "x is an empty list"),
    "out is a list": (lambda c: c.all_gather(ONES, out=[ONES]), "out is a list"),
    "out is no list": (lambda c: c.all_gather([ONES], out=ONES), "x is a list"),
    "out is shorter": (lambda c: c.all_gather([ONES, ONES], out=[ONES]), "2 arrays, but out"),
    "objects": (lambda c: c.all_gather(np.array([object()])), "x holds object"),
    "no array": (lambda c: c.all_to_all(3.0), "x is of type float"),
    "average of whole numbers": (
        lambda c: c.reduce_scatter(np.ones(6, np.int32), op="avg"), "avg"),
    "weighted whole numbers": (lambda c: c.reduce(np.ones(6, int), weight=0.5), "weights"),
    "unknown algorithm": (lambda c: c.all_gather(ONES, algorithm="tree"), "must be one of auto"),
    "algorithm of another": (
        lambda c: c.all_to_all(ONES, algorithm="binomial"), "all_to_all has no algorithm binomial"),
    "unknown loss": (lambda c: c.gather(ONES, on_loss="ignore"), "must be one of retry, raise"),
    "retried counts": (lambda c: c.all_gather(ONES, counts=[6], on_loss="retry"), "raise"),
    "tag": (lambda c: c.barrier(tag=-1), "tag is -1"),
    "timeout": (lambda c: c.broadcast(ONES, timeout=0), "timeout is 0"),
    "no such peer": (lambda c: c.send(ONES, 1), "no rank 1 among 1"),
    "no such source": (lambda c: c.recv(np.ones(1), 7), "no rank 7 among 1"),
    "a negative peer": (lambda c: c.exchange(ONES, np.ones(6), -1), "peer is -1"),
    "to oneself": (lambda c: c.send(ONES, 0), "itself"),
    "from oneself": (lambda c: c.recv(np.ones(1), 0), "itself"),
    "into a constant": (lambda c: c.recv(b"abc", 0), "x is read-only"),
    "other shapes": (lambda c: c.exchange(ONES, np.ones(5), 0), "out has shape"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_calls_are_refused_before_anything_is_sent(
    alone: pyccl.Communicator, call: Call, text: str
) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=text):
        call(alone)
    assert alone.all_reduce(np.ones(2)).world_size == 1


REFUSED_BY_ALL: dict[str, tuple[Call, str]] = {
    "no such root": (lambda c: c.broadcast(np.ones(2), root=3), "no such root, 3"),
    "no such root of a gathering": (lambda c: c.gather(np.ones(2), root=3), "no such root, 3"),
    "not to be divided": (lambda c: c.reduce_scatter(np.ones(7)), "7 elements"),
    "not to be divided among all": (lambda c: c.all_to_all(np.ones(7)), "divided equally"),
    "too small a result": (lambda c: c.all_gather(np.ones(2), out=np.ones(5)), "5 elements of out"),
    "too large a result": (lambda c: c.all_gather(np.ones(2), out=np.ones(7)), "7 elements of out"),
    "a share of another size": (
        lambda c: c.reduce_scatter(np.ones(6), out=np.ones(3)), "6 elements of input"),
    "too few counts": (lambda c: c.all_gather(np.ones(2), counts=[2, 2]), "2 counts for 3"),
    "too many counts": (lambda c: c.reduce_scatter(np.ones(8), counts=[2] * 4), "4 counts for 3"),
    "counts of other sizes": (lambda c: c.all_gather(np.ones(2), counts=[3] * 3), "are wanted"),
    "too few amounts": (
        lambda c: c.all_to_all(np.ones(2), send_counts=[1, 1], recv_counts=[1, 1]),
        "2 counts for 3"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "text"), REFUSED_BY_ALL.values(), ids=REFUSED_BY_ALL.keys())
def test_what_does_not_fit_the_members_is_an_error_at_all_of_them(
    run_peers: Any, call: Call, text: str
) -> None:
    def function(comm: pyccl.Communicator) -> str:
        with pytest.raises(pyccl.InvalidArgumentError, match=text) as caught:
            call(comm)
        # Its number is used up everywhere, so what comes next is matched.
        assert comm.all_reduce(np.ones(2)).world_size == PEERS
        return str(caught.value)

    assert len(set(run_peers(PEERS, function))) == 1


def test_one_that_does_not_fit_is_an_error_at_all(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        x = np.ones(7 if comm.rank == 1 else 6)
        with pytest.raises((pyccl.InvalidArgumentError, pyccl.MismatchError), match="rank 1"):
            comm.reduce_scatter(x)
        assert (x == 1).all()
        comm.barrier()

    run_peers(PEERS, function)


MISMATCHED: dict[str, tuple[Call, Call, list[str]]] = {
    "size": (
        lambda c: c.all_gather(np.ones(8)), lambda c: c.all_gather(np.ones(7)),
        ["all_gather", "f64[8]", "f64[7]"]),
    "type": (
        lambda c: c.broadcast(np.ones(8)), lambda c: c.broadcast(np.ones(8, np.int64)),
        ["broadcast", "f64[8]", "i64[8]"]),
    "collective": (
        lambda c: c.all_to_all(np.ones(6)), lambda c: c.all_gather(np.ones(6)),
        ["all_to_all", "all_gather"]),
    "root": (
        lambda c: c.broadcast(np.ones(6), 0), lambda c: c.broadcast(np.ones(6), 2),
        ["root=0", "root=2"]),
    "op": (
        lambda c: c.reduce_scatter(np.ones(6)), lambda c: c.reduce_scatter(np.ones(6), op="max"),
        ["sum", "max"]),
    "algorithm": (
        lambda c: c.all_gather(np.ones(6)), lambda c: c.all_gather(np.ones(6), algorithm="ring"),
        ["algorithm=ring"]),
    "counts": (
        lambda c: c.all_gather(np.ones(1), counts=[1, 1, 1]),
        lambda c: c.all_gather(np.ones(1), counts=[2, 1, 1]),
        ["all_gather"]),
    "list": (
        lambda c: c.all_gather([np.ones(3), np.ones(5)]),
        lambda c: c.all_gather([np.ones(5), np.ones(3)]),
        ["a list of layout"]),
}  # fmt: skip


@pytest.mark.parametrize(("usual", "odd", "texts"), MISMATCHED.values(), ids=MISMATCHED.keys())
def test_a_mismatch_names_both_ranks_everywhere(
    run_peers: Any, usual: Call, odd: Call, texts: list[str]
) -> None:
    def function(comm: pyccl.Communicator) -> str:
        with pytest.raises(pyccl.MismatchError) as caught:
            (odd if comm.rank == 1 else usual)(comm)
        assert comm.all_reduce(np.ones(2)).world_size == PEERS
        return str(caught.value)

    results = run_peers(PEERS, function)
    assert len(set(results)) == 1
    assert "rank 1" in results[0]
    assert "rank 0" in results[0] or "rank 2" in results[0]
    assert all(text in results[0] for text in texts)


@pytest.mark.parametrize("to", [0, 1])
def test_amounts_that_differ_name_both(run_peers: Any, to: int) -> None:
    def function(comm: pyccl.Communicator) -> str:
        sent = [1, 1, 1]
        if comm.rank == 0:
            sent[to] = 2  # the other one expects one row, as do all
        with pytest.raises((pyccl.MismatchError, pyccl.InvalidArgumentError)) as caught:
            comm.all_to_all(np.ones(sum(sent)), send_counts=sent, recv_counts=[1] * 3)
        assert comm.all_reduce(np.ones(2)).world_size == PEERS
        return str(caught.value)

    results = run_peers(PEERS, function)
    assert len(set(results)) == 1
    assert "rank 0" in results[0]
    assert f"rank {to}" in results[0]


def test_a_timeout_names_who_had_not_arrived(run_peers: Any) -> None:
    late = threading.Event()

    def function(comm: pyccl.Communicator) -> str:
        text = ""
        if comm.rank == 2:
            assert late.wait(20)
            with pytest.raises(pyccl.OperationTimeout):
                comm.all_gather(ONES)
        else:
            with pytest.raises(pyccl.OperationTimeout) as caught:
                comm.all_gather(ONES, timeout=0.3)
            late.set()
            text = str(caught.value)
        comm.barrier()
        return text

    texts = run_peers(PEERS, function)
    assert "rank 2" in texts[0] or "ranks 2" in texts[0]


def test_nothing_works_after_closing(coordinator: pyccl.Coordinator) -> None:
    comm = pyccl.connect(coordinator.address, timeout=30)
    sub = comm.subgroup([0])
    assert sub.valid
    comm.close()
    x = np.ones(2)
    for use in (
        lambda: comm.all_gather(x),
        lambda: comm.broadcast(x, async_op=True),
        lambda: comm.exchange(x, x, 0),
        lambda: sub.all_reduce(x),
    ):
        with pytest.raises(pyccl.ClosedError, match="connect"):
            use()
    assert not sub.valid
