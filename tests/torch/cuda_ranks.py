"""Ranks in processes that share one device of CUDA. Jobs for forge.py."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from forge import Rank
from losses import TIMEOUT, meet, until_lost
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from training import net, whole

import pyccl
from pyccl.torch import DDPState, ElasticDDP, ElasticGroup, ddp_hook

STEPS = 20


def ddp(rank: Rank) -> None:
    # Small buckets: there are several all-reduces in flight in each step.
    train(rank, lambda model: DistributedDataParallel(model, bucket_cap_mb=0.005))


def ddp_views(rank: Rank) -> None:
    train(
        rank,
        lambda model: DistributedDataParallel(
            model, gradient_as_bucket_view=True, find_unused_parameters=True
        ),
    )


def ddp_by_hook(rank: Rank) -> None:
    def wrapped(model: nn.Module) -> nn.Module:
        made = DistributedDataParallel(model, bucket_cap_mb=0.005)
        made.register_comm_hook(DDPState(dist.group.WORLD), ddp_hook)
        return made

    train(rank, wrapped)


def fsdp(rank: Rank) -> None:
    def wrapped(model: nn.Module) -> nn.Module:
        mesh = init_device_mesh("cuda", (rank.world,))
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    train(rank, wrapped)


def train(rank: Rank, wrapped: Callable[[nn.Module], nn.Module]) -> None:
    """Beside a model that has the points of all ranks to itself."""
    meet(rank, 0, list(range(rank.world)))
    alone = net(7).double().cuda()
    together = wrapped(copy.deepcopy(alone))
    points = torch.Generator().manual_seed(3)
    share = 16
    mine = slice(rank.rank * share, (rank.rank + 1) * share)
    pairs = [
        (model, part, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        for model, part in ((alone, slice(None)), (together, mine))
    ]
    losses = []
    for _ in range(STEPS):
        x = torch.randn(rank.world * share, 16, generator=points, dtype=torch.float64).cuda()
        target = x[:, :4].argmax(1)
        for model, part, optimizer in pairs:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[part]), target[part])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-2] < 0.8 * losses[0], losses  # else it would be no wonder that they agree
    (found,) = whole(together.parameters())
    expected = torch.cat([one.detach().reshape(-1) for one in alone.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    rank.report(agree=True)
    dist.destroy_process_group()


def elastic(rank: Rank) -> None:
    """Gradients in few bits, whose mean all have alike."""
    store = rank.store(0, rank.world, rank.rank == 0)
    if rank.rank == 0:
        coordinator = pyccl.Coordinator("127.0.0.1:0")
        store.set("address", coordinator.address)
    address = store.get("address").decode()
    group = ElasticGroup.connect(address, timeout=TIMEOUT, world_size_min=rank.world)
    group.install()
    model = ElasticDDP(
        net(7).cuda(), group, quantization=rank.arguments["quantization"], error_feedback=True
    )
    points = torch.Generator().manual_seed(group.rank())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(32, 16, generator=points).cuda()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    whole(model.parameters())
    rank.report(agree=True)
    dist.destroy_process_group()


def all_reduces(rank: Rank) -> None:
    """Without an end, until a rank is lost."""

    def prepare() -> Callable[[], None]:
        x = torch.empty(16 << 20, device="cuda")

        def step() -> None:
            x.fill_(1.0)
            dist.all_reduce(x)

        return step

    until_lost(rank, prepare)


def ddp_steps(rank: Rank) -> None:
    def prepare() -> Callable[[], None]:
        layers = nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 2048)).cuda()
        model = DistributedDataParallel(layers)

        def step() -> None:
            model.zero_grad()
            model(torch.ones(8, 2048, device="cuda")).sum().backward()
            torch.cuda.synchronize()

        return step

    until_lost(rank, prepare)
