"""Training as the cases of parity.py: 50 steps, and the parameters that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from forge import Rank
from torch import distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

STEPS = 50


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 4)
    )


def train(model: nn.Module, stream: int) -> list[float]:
    """The losses of ranks that draw from the same stream of points are of the same points."""
    points = torch.Generator().manual_seed(stream)
    teacher = net(1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(32, 16, generator=points)
        with torch.no_grad():
            target = (8 * teacher(x)).argmax(1)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Else it would be no wonder that two backends agree.
    assert losses[-1] < 0.8 * losses[0], losses
    return losses


def whole(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The same on all ranks, which this checks as well."""
    full = [p.full_tensor() if isinstance(p, DTensor) else p for p in parameters]
    together = torch.cat([p.detach().reshape(-1) for p in full])
    low, high = together.clone(), together.clone()
    dist.all_reduce(low, op=dist.ReduceOp.MIN)
    dist.all_reduce(high, op=dist.ReduceOp.MAX)
    assert torch.equal(low, high), "ranks hold different parameters"
    return [together]


def ddp(rank: Rank) -> Any:
    # Another seed on each rank: DDP has to begin with those of rank 0. Small buckets: there are
    # several all-reduces in flight in each step.
    model = DistributedDataParallel(net(rank.rank), bucket_cap_mb=0.005)
    losses = train(model, rank.rank)
    return losses, whole(model.parameters())


def ddp_views(rank: Rank) -> Any:
    """The gradients are views into the buckets, with a step in which they are not exchanged."""
    model = DistributedDataParallel(
        net(rank.rank), gradient_as_bucket_view=True, find_unused_parameters=True
    )
    with model.no_sync():
        model(torch.ones(4, 16)).sum().backward()
    losses = train(model, rank.rank)
    return losses, whole(model.parameters())


def power_sgd(rank: Rank) -> Any:
    """A hook of torch whose callbacks begin operations and wait for them."""

    model = DistributedDataParallel(net(0), bucket_cap_mb=0.005)  # several in flight
    state = PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=3)
    model.register_comm_hook(state, powerSGD_hook)
    return train(model, rank.rank), whole(model.parameters())


def _sharded(mesh: DeviceMesh) -> nn.Module:
    model = net(7)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp(rank: Rank) -> Any:
    model = _sharded(init_device_mesh("cpu", (rank.world,)))
    losses = train(model, rank.rank)
    return losses, whole(model.parameters())


def hsdp(rank: Rank) -> Any:
    """Shards within two ranks, and copies of that: a group for each dimension."""
    model = _sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards")))
    losses = train(model, rank.rank)
    return losses, whole(model.parameters())


def tensor_parallel(rank: Rank) -> Any:
    """Two ranks hold halves of each layer, FSDP shards these over the other dimension."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "layers"))
    model = net(7)
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["layers"], plan)
    fully_shard(model, mesh=mesh["data"])
    # Who shares a layer sees the same points.
    losses = train(model, mesh.get_local_rank("data"))
    return losses, whole(model.parameters())


CASES: dict[str, Callable[[Rank], Any]] = {
    case.__name__: case for case in (ddp, ddp_views, power_sgd, fsdp, hsdp, tensor_parallel)
}
