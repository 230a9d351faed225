"""Futures of operations that fail."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed as dist

import pyccl
from pyccl.torch import ProcessGroup
from pyccl.torch.lent import Lent


def test_an_error_is_one_to_futures(run_ranks: Any) -> None:
    """To those of C++, too: for what they make of a value, an error is as good as any."""

    def function(group: ProcessGroup) -> None:
        group.barrier().wait()
        if group.rank() == 1:
            group.abort()
            return
        future = group.allreduce([torch.ones(3)]).get_future()
        together = torch.futures.collect_all([future])
        with pytest.raises(RuntimeError, match=r"PeerLostError.*rank 1 lost"):
            together.wait()
        with pytest.raises(RuntimeError, match=r"PeerLostError.*rank 1 lost"):
            future.then(lambda done: done.value()).wait()
        with pytest.raises(dist.DistBackendError, match="rank 1 lost"):
            group.barrier().wait()

    run_ranks(3, function)


def test_the_future_of_what_has_ended_is_completed(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        for _ in range(20):
            work = group.allreduce([torch.ones(3)])
            work.wait()
            assert work.get_future().done()
        group._start_coalescing(torch.device("cpu"))
        for _ in range(2):
            group.allreduce([torch.ones(3)])
        together = group._end_coalescing(torch.device("cpu"))
        together.wait()
        assert [one.tolist() for one in together.get_future().value()] == [[2.0] * 3] * 2

    run_ranks(2, function)


def test_a_callback_may_wait_for_another_operation(run_ranks: Any) -> None:
    """As torch's own hooks of DDP do it, of whom each begins a second operation behind the first
    one and waits for it."""

    def function(group: ProcessGroup) -> list[float]:
        def again(done: torch.futures.Future[Any]) -> torch.Tensor:
            x = done.value()[0]
            group.allreduce([x]).get_future().wait()
            return x

        futures = [
            group.allreduce([torch.full((1 << size,), 1.0)]).get_future().then(again)
            for size in (20, 3, 10)
        ]
        return [future.wait()[0].item() for future in futures]

    results = run_ranks(2, function)
    assert results == [[4.0] * 3] * 2


def test_what_callbacks_begin_is_matched_by_where_they_belong(run_ranks: Any) -> None:
    """Whenever they run, and on whichever thread: as those of torch's PowerSGD, of several buckets
    at once."""

    def function(group: ProcessGroup) -> list[list[float]]:
        rest = random.Random(group.rank())

        def reduced(x: torch.Tensor) -> torch.futures.Future[Any]:
            time.sleep(rest.choice((0.0, 0.0005, 0.002)))
            return group.allreduce([x]).get_future()

        def second(done: torch.futures.Future[Any]) -> torch.Tensor:
            x = done.value()[0]
            return reduced(x * 10).wait()[0]

        def third(done: torch.futures.Future[Any]) -> torch.Tensor:
            inner = reduced(done.value() + 1).then(
                lambda done: reduced(done.value()[0] * 2).wait()[0]
            )
            return inner.wait() - reduced(torch.ones(2)).wait()[0]

        results = []
        for _ in range(20):
            futures = [
                reduced(torch.full((2,), float(i))).then(second).then(third) for i in range(4)
            ]
            results.append([future.wait()[1].item() for future in futures])
        return results

    # Each sum is of two ranks: 2 * 2 * 2 * (2 * 10 * 2 * i + 1) - 2.
    rows = [[320.0 * i + 6 for i in range(4)]] * 20
    assert run_ranks(2, function) == [rows, rows]


def test_callbacks_may_use_groups_that_other_ranks_are_not_in(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> list[float]:
        rank = group.rank()
        leaders = ProcessGroup(
            group._run, group._run.subgroup([0, 1], "leaders"), timedelta(seconds=40), owns=False
        ) if rank < 2 else None  # fmt: skip

        def spread(done: torch.futures.Future[Any]) -> torch.Tensor:
            (x,) = done.value()
            if leaders is not None:
                leaders.allreduce([x]).wait()

            def last(done: torch.futures.Future[Any]) -> torch.Tensor:
                group.allreduce([x]).wait()
                return x

            return group.broadcast([x], root=0).get_future().then(last).wait()

        futures = (
            group.allreduce([torch.full((2,), float(i))]).get_future().then(spread)
            for i in range(1, 3)
        )
        return [future.wait()[0].item() for future in futures]  # one after the other

    # Sums of three, of the two leaders, and of three again.
    assert run_ranks(3, function) == [[18.0, 36.0]] * 3


@pytest.mark.parametrize("by", ["collect_all", "another group"])
def test_when_a_future_has_ended_does_not_decide(run_ranks: Any, by: str) -> None:
    """Within a callback, what is given to a future that has ended runs at once, elsewhere later."""

    def function(group: ProcessGroup) -> float:
        other = ProcessGroup(
            group._run, group._run.subgroup([0, 1], "other"), timedelta(seconds=40), owns=False
        )

        def outer(done: torch.futures.Future[Any]) -> torch.Tensor:
            (x,) = done.value()
            work = (group if by == "collect_all" else other).allreduce([x])
            if group.rank() == 0:
                work.wait()
            future = work.get_future()
            if by == "collect_all":
                future = torch.futures.collect_all([future])

            def inner(_: torch.futures.Future[Any]) -> torch.Tensor:
                group.allreduce([x]).wait()
                return x

            return future.then(inner).wait()

        return group.allreduce([torch.ones(2)]).get_future().then(outer).wait()[0].item()

    assert run_ranks(2, function) == [8.0, 8.0]


def test_a_refused_call_is_none(run_ranks: Any) -> None:
    """Who has made one calls the next ones what the others call them."""

    def refuse(_: Any) -> None:
        raise pyccl.LimitExceededError("not now")

    def function(group: ProcessGroup) -> float:
        if group.rank() == 0:
            with pytest.raises(dist.DistBackendError, match="not now"):
                group._start("something", refuse, [], Lent())

        def again(done: torch.futures.Future[Any]) -> torch.Tensor:
            group.allreduce([x := done.value()[0]]).wait()
            return x

        return group.allreduce([torch.ones(2)]).get_future().then(again).wait()[0].item()

    assert run_ranks(2, function) == [4.0, 4.0]


def test_futures_of_others_are_left_as_they_are() -> None:
    future = torch.futures.Future()
    chained = future.then(lambda done: done.value() + 1)
    future.set_result(1)
    assert chained.then(lambda done: done.value() + 1).value() == 3
