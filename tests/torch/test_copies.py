"""Tensors that an operation works on by a copy: when the copy comes back, and on which thread."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import distributed as dist

from pyccl.torch import InvalidArgumentError, ProcessGroup
from pyccl.torch.lent import Lent
from pyccl.torch.work import Work


def strided(*values: float) -> torch.Tensor:
    return torch.tensor([[value, 0.0] for value in values])[:, 0]


def test_a_completed_work_has_its_result(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        for _ in range(50):
            x = strided(1, 2)
            work = group.allreduce([x])
            limit = time.monotonic() + 20
            while not work.is_completed():
                assert time.monotonic() < limit
            assert x.tolist() == [2.0, 4.0]

    run_ranks(2, function)


def test_in_inference_mode(run_ranks: Any) -> None:
    """The copies come back on another thread, which is in no such mode."""

    def function(group: ProcessGroup) -> None:
        with torch.inference_mode():
            for _ in range(50):
                x, whole = strided(1, 2), torch.tensor([3, 4])
                works = [group.allreduce([x]), group.allreduce([whole], dist.ReduceOp.AVG)]
                for work in works:
                    work.get_future().wait()
                assert x.tolist() == [2.0, 4.0]
                assert whole.tolist() == [3, 4]

    run_ranks(2, function)


def test_with_another_default_device(run_ranks: Any) -> None:
    """Copies are the CPU's, whatever new tensors are by default."""

    def function(group: ProcessGroup) -> None:
        x, parts = strided(1, 2), [torch.zeros(2), torch.zeros(2)]
        indices = torch.tensor([[group.rank()]])
        sparse = torch.sparse_coo_tensor(indices, torch.ones(1), (2,))
        with torch.device("meta"):
            group.allreduce([x]).wait()
            group.allgather([parts], [x]).wait()
            group.allreduce([sparse]).wait()
        assert x.tolist() == [2.0, 4.0]
        assert [one.tolist() for one in parts] == [[2.0, 4.0]] * 2
        assert sparse.to_dense().tolist() == [1.0, 1.0]

    run_ranks(2, function)


def test_an_expanded_tensor_is_refused_before_anything_is_sent(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> None:
        with pytest.raises(InvalidArgumentError, match="expanded"):
            group.allreduce([torch.zeros(1).expand(4)])
        x = torch.ones(2)
        group.allreduce([x]).wait()
        assert x.tolist() == [2.0, 2.0]
        # To be read it is as good as any.
        out = torch.empty(8)
        group.all_gather_single(out, torch.ones(1).expand(4)).wait()
        assert out.tolist() == [1.0] * 8

    run_ranks(2, function)


def test_what_fails_behind_an_operation_is_its_error() -> None:
    lent = Lent()

    def fail() -> None:
        raise LookupError("of the copy")

    lent.then(fail)
    work = Work(None, [], lambda error: error, lent)  # type: ignore[arg-type, return-value]
    with pytest.raises(LookupError, match="of the copy"):
        work.wait()
    assert isinstance(work.exception(), LookupError)
    assert not work.is_success()
    with pytest.raises(RuntimeError, match="of the copy"):
        work.get_future().wait()
