"""Futures of operations that fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed as dist

from pyccl.torch import ProcessGroup


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
