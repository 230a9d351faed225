"""Ranks that work until one of them is lost, and begin anew without it. Jobs for forge.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import torch
from forge import Rank
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

# Far beyond any bound of the tests: nobody may be saved by it.
TIMEOUT = timedelta(minutes=5)
WARM = 3


def all_reduces(rank: Rank) -> None:
    x = torch.ones(4 << 20)

    def step() -> None:
        x.fill_(1.0)
        dist.all_reduce(x)

    until_lost(rank, lambda: step)


def ddp(rank: Rank) -> None:
    def prepare() -> Callable[[], None]:
        model = DistributedDataParallel(nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 256)))

        def step() -> None:
            model.zero_grad()
            model(torch.ones(8, 1024)).sum().backward()

        return step

    until_lost(rank, prepare)


def fsdp(rank: Rank) -> None:
    def prepare() -> Callable[[], None]:
        mesh = init_device_mesh("cpu", (rank.world,))
        model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 256))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)

        def step() -> None:
            model.zero_grad()
            model(torch.ones(8, 1024)).sum().backward()

        return step

    until_lost(rank, prepare)


def until_lost(rank: Rank, prepare: Callable[[], Callable[[], None]]) -> None:
    """Steps until one raises, which is reported with its time; then a step among the others."""
    victim = rank.arguments["victim"]
    meet(rank, 0, list(range(rank.world)))
    step = prepare()
    raised, number = None, 0
    while raised is None:
        raised = error_of(step)
        at = time.monotonic()
        number += 1
        if number == WARM:
            rank.report(warm=True)
    kind, text = type(raised).__name__, str(raised)
    if not isinstance(raised, dist.DistBackendError):
        # It has come through C++, but any other operation tells.
        raised = error_of(dist.barrier)
    assert isinstance(raised, dist.DistBackendError), raised
    rank.report(lost=list(raised.ranks), at=at, kind=kind, text=text)
    dist.destroy_process_group()
    if rank.rank != victim:
        begin_anew(rank, [one for one in range(rank.world) if one != victim])


def error_of(step: Callable[[], None]) -> RuntimeError | None:
    try:
        step()
    except RuntimeError as error:
        return error
    return None


def begin_anew(rank: Rank, ranks: list[int]) -> None:
    meet(rank, 1, ranks)
    x = torch.full((1000,), 10.0**rank.rank)
    dist.all_reduce(x)
    rank.report(sum=x[-1].item(), size=dist.get_world_size())
    dist.destroy_process_group()


def meet(rank: Rank, number: int, ranks: list[int]) -> None:
    place = ranks.index(rank.rank)
    store = rank.store(number, len(ranks), place == 0)
    dist.init_process_group(
        "pyccl", store=store, rank=place, world_size=len(ranks), timeout=TIMEOUT
    )


def without_farewell(rank: Rank) -> None:
    """Rank 0, which has the coordinator, ends as a program that does not destroy its group."""
    meet(rank, 0, list(range(rank.world)))
    dist.all_reduce(torch.ones(4))
    if rank.rank == 0:
        return
    run = dist.group.WORLD._run
    while len(run.communicator.peers) == rank.world:
        time.sleep(0.01)
    # Longer than a member bears the absence of its coordinator.
    time.sleep(2.0)
    rank.report(left=run.communicator.update().world_size)
