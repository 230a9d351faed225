"""On a machine that has a device of CUDA, with its streams; see test_staging.py for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyccl.torch import ProcessGroup
from pyccl.torch.chunks import CHUNK_BYTES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

MANY = 5 * CHUNK_BYTES // 4 + 1000


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, device="cuda")


@pytest.mark.parametrize("count", [1, 1000, MANY])
def test_operations(run_ranks: Any, count: int) -> None:
    def function(group: ProcessGroup) -> None:
        rank, world = group.rank(), group.size()
        x = ones(count) * (rank + 1)
        group.allreduce([x]).wait()
        assert torch.equal(x, ones(count) * 3)
        out = torch.empty(world * count, device="cuda")
        group.all_gather_single(out, x * (rank + 1)).wait()
        assert torch.equal(out, torch.cat([x, 2 * x]))
        group.reduce_scatter_single(x, out).wait()
        assert torch.equal(x, ones(count) * 6 * (rank + 1))
        group.all_to_all_single(out, torch.cat([x, 10 * x])).wait()
        scale = 10.0 if rank == 1 else 1.0
        assert torch.equal(out, torch.cat([ones(count) * 6 * scale, ones(count) * 12 * scale]))
        group.broadcast([x], root=1).wait()
        assert torch.equal(x, ones(count) * 12)
        strided = ones(count, 2)
        group.allreduce([strided[:, 1]]).wait()
        assert torch.equal(strided, torch.tensor([[1.0, 2.0]], device="cuda").expand(count, 2))
        if rank == 0:
            group.send([x], 1).wait()
        else:
            group.recv([x.zero_()], 0).wait()
            assert torch.equal(x, ones(count) * 12)

    run_ranks(2, function)


def test_it_comes_behind_what_the_device_has_to_do(run_ranks: Any) -> None:
    """And what it is asked for later comes behind it, with nobody waiting in between."""

    def function(group: ProcessGroup) -> list[float]:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            found = []
            for _ in range(20):
                x = torch.zeros(MANY, device="cuda")
                torch.cuda._sleep(5_000_000)
                x += 1
                group.allreduce([x]).wait()
                found.append((x * 2).sum() / MANY)
                del x
            return [one.item() for one in found]

    assert run_ranks(2, function) == [[4.0] * 20] * 2


def test_futures(run_ranks: Any) -> None:
    def function(group: ProcessGroup) -> float:
        def doubled(done: Any) -> torch.Tensor:
            return done.value()[0] * 2

        future = group.allreduce([ones(MANY)]).get_future().then(doubled)
        return float(future.wait().mean().item())

    assert run_ranks(2, function) == [4.0] * 2
