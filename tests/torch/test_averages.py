"""Averages of whole numbers, which are cut towards zero as NCCL cuts them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.distributed import ReduceOp

from pyccl.torch import InvalidArgumentError, ProcessGroup


def options_of(kind: str, **values: Any) -> Any:
    options = getattr(dist.distributed_c10d, kind)()
    for name, value in {"reduceOp": ReduceOp.AVG, **values}.items():
        setattr(options, name, value)
    return options


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str
)
def test_every_form(run_ranks: Any, dtype: torch.dtype) -> None:
    signed = dtype != torch.uint8
    # Over three ranks, whose squares add 5: -10/3, which is cut to -3, 26/3, 32/3 and 5/3.
    first = [-5 if signed else 5, 7, 9, 0]
    every = [torch.tensor(first).add(rank**2).to(dtype).repeat(3) for rank in range(3)]
    total = sum(one.long() for one in every)
    expected = torch.tensor([int(int(one) / 3) for one in total]).to(dtype)

    def function(group: ProcessGroup) -> None:
        rank = group.rank()
        x = every[rank].clone()
        group.allreduce([x], options_of("AllreduceOptions")).wait()
        assert torch.equal(x, expected)
        # Through a copy, and several at once.
        gaps = torch.zeros(24, dtype=dtype)[::2].copy_(every[rank])
        x = every[rank].clone()
        group.allreduce_coalesced([gaps, x], options_of("AllreduceCoalescedOptions")).wait()
        assert torch.equal(gaps, expected)
        assert torch.equal(x, expected)
        y = every[rank].clone()
        group.reduce([y], options_of("ReduceOptions", rootRank=1)).wait()
        assert torch.equal(y, expected if rank == 1 else every[rank])
        share = torch.zeros(4, dtype=dtype)
        group.reduce_scatter_single(share, every[rank], options_of("ReduceScatterOptions")).wait()
        assert torch.equal(share, expected.chunk(3)[rank])
        share.zero_()
        chunks = [list(every[rank].chunk(3))]
        group.reduce_scatter([share], chunks, options_of("ReduceScatterOptions")).wait()
        assert torch.equal(share, expected.chunk(3)[rank])

    run_ranks(3, function)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16, torch.uint64], ids=str)
def test_others_are_refused(run_ranks: Any, dtype: torch.dtype) -> None:
    def function(group: ProcessGroup) -> None:
        with pytest.raises(InvalidArgumentError, match="avg is not for"):
            group.allreduce([torch.ones(3).to(dtype)], ReduceOp.AVG)

    run_ranks(1, function)
