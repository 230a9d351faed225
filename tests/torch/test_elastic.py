"""Groups whose ranks come and go, and DistributedDataParallel over them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pyccl
from pyccl import SharedState
from pyccl.torch import (
    DDPState,
    ElasticDDP,
    ElasticGroup,
    InvalidArgumentError,
    PeerLostError,
    ProcessGroup,
    ddp_hook,
)

LIMIT = 40.0


@pytest.fixture
def coordinator() -> Iterator[pyccl.Coordinator]:
    with pyccl.Coordinator("127.0.0.1:0") as coordinator:
        yield coordinator


class Ranks:
    """Threads, each with a group of its own, that may be started at any time."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.results: dict[int, Any] = {}
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, number: int, function: Callable[[ElasticGroup], Any], **options: Any) -> None:
        def run() -> None:
            try:
                group = ElasticGroup.connect(
                    self.address, timeout=timedelta(seconds=LIMIT), **options
                )
                self.results[number] = function(group)
                group.shutdown()
            except BaseException as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self) -> dict[int, Any]:
        for thread in self._threads:
            thread.join(2 * LIMIT)
        assert not any(thread.is_alive() for thread in self._threads), "a rank hangs"
        if self._errors:
            raise self._errors[0]
        return self.results


def net(seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


def state_of(module: nn.Module) -> SharedState:
    return SharedState({name: one.detach() for name, one in module.state_dict().items()})


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_training_goes_on_while_ranks_come_and_go(
    coordinator: pyccl.Coordinator, quantization: Any
) -> None:
    """Three, of whom one dies after ten steps, and a fourth comes after fifteen."""
    ranks, steps, late = Ranks(coordinator.address), 30, threading.Event()

    def train(number: int, group: ElasticGroup) -> Any:
        module = net(number)
        ddp = ElasticDDP(
            module, group, quantization=quantization, error_feedback=quantization is not None
        )
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        state = state_of(module)
        generator = torch.Generator().manual_seed(number)
        losses, sizes = [], []
        while True:
            group.sync(state)
            if state.revision >= steps:
                return losses, sizes, state.digest()
            if number == 1 and state.revision == 10:
                return group.abort()
            x = torch.randn(16, 20, generator=generator)
            optimizer.zero_grad()
            loss = ((ddp(x) - x.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            optimizer.step()
            state.revision += 1
            losses.append(loss.item())
            sizes.append(group.size())
            if state.revision == 15:
                late.set()
            if state.revision > 15 and group.size() < 3:
                time.sleep(0.02)

    for number in range(3):
        ranks.start(number, lambda group, n=number: train(n, group), world_size_min=3)
    assert late.wait(LIMIT)
    ranks.start(3, lambda group: train(3, group))
    results = ranks.join()
    assert len({results[number][2] for number in (0, 2, 3)}) == 1
    losses, sizes, _ = results[0]
    assert sizes[:10] == [3] * 10
    assert 2 in sizes[10:]
    assert sizes[-1] == 3
    assert losses[-1] < 0.2 * losses[0]
    # It has begun where the others were.
    assert results[3][0][0] < 0.5 * losses[0]


def test_a_rank_lost_in_a_backward_pass_is_left_out(coordinator: pyccl.Coordinator) -> None:
    """The gradient that counts is the mean of those who live."""
    ranks = Ranks(coordinator.address)

    def step(number: int, group: ElasticGroup) -> list[float]:
        module = nn.Linear(4, 1, bias=False)
        ddp = ElasticDDP(module, group)
        loss = ddp(torch.full((1, 4), float(number + 1))).sum()
        group.barrier().wait()
        if number == 2:
            threading.Timer(0.3, group.abort).start()
            time.sleep(0.5)
            return []
        loss.backward()
        assert module.weight.grad is not None
        return module.weight.grad.flatten().tolist()

    for number in range(3):
        ranks.start(number, lambda group, n=number: step(n, group), world_size_min=3)
    assert ranks.join() == {0: [1.5] * 4, 1: [1.5] * 4, 2: []}


def test_a_parameter_that_only_others_use_gets_their_gradient(
    coordinator: pyccl.Coordinator,
) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

        def forward(self, x: torch.Tensor, which: int) -> torch.Tensor:
            return (self.second if which else self.first)(x)

    def step(group: ElasticGroup) -> list[float]:
        module = Halves()
        ddp = ElasticDDP(module, group)
        ddp(torch.ones(1, 1), group.rank()).sum().backward()
        group.barrier().wait()
        return [one.grad.item() for one in module.parameters() if one.grad is not None]

    ranks = Ranks(coordinator.address)
    for number in range(2):
        ranks.start(number, step, world_size_min=2)
    assert ranks.join() == {0: [0.5, 0.5], 1: [0.5, 0.5]}


def test_weights_of_ranks(coordinator: pyccl.Coordinator) -> None:
    def step(group: ElasticGroup) -> float:
        module = nn.Linear(1, 1, bias=False)
        ddp = ElasticDDP(module, group)
        rank = group.rank()
        ddp.hook.weight = [1.0, 3.0, 0.0][rank]
        ddp(torch.full((1, 1), [4.0, 8.0, 1e9][rank])).sum().backward()
        group.barrier().wait()
        assert module.weight.grad is not None
        return float(module.weight.grad.item())

    ranks = Ranks(coordinator.address)
    for number in range(3):
        ranks.start(number, step, world_size_min=3)
    assert set(ranks.join().values()) == {7.0}


def test_the_hook_on_a_fixed_group(run_ranks: Any) -> None:
    """int8 gradients under plain DistributedDataParallel, near those of f32, and the same bits on
    all ranks."""

    def step(group: ProcessGroup) -> Any:
        found = []
        for state in (group, DDPState(group, quantization="int8", error_feedback=True)):
            module = net(5)
            ddp = DistributedDataParallel(module, process_group=group)
            ddp.register_comm_hook(state, ddp_hook)
            for _ in range(3):  # buckets are divided anew after the first
                module.zero_grad()
                x = torch.full((4, 20), float(group.rank() + 1))
                ddp(x).sum().backward()
            found.append([one.grad.clone() for one in module.parameters() if one.grad is not None])
        largest = max(one.abs().max().item() for one in found[0])
        pairs = list(zip(*found, strict=True))
        assert all((exact - near).abs().max() <= 0.02 * largest for exact, near in pairs)
        assert any(not torch.equal(exact, near) for exact, near in pairs)
        return [one.numpy().tobytes() for grads in found for one in grads]

    first, second = run_ranks(2, step)
    assert first == second


def test_what_is_no_state_of_the_hook(coordinator: pyccl.Coordinator) -> None:
    with pytest.raises(ValueError, match="group is of type int"):
        DDPState(3)  # type: ignore[arg-type]
    group = ElasticGroup.connect(coordinator.address)
    with pytest.raises(ValueError, match="quantized"):
        DDPState(group, error_feedback=True)
    group.shutdown()


def test_a_grid_admits_replicas_as_a_whole(coordinator: pyccl.Coordinator) -> None:
    """Two replicas of two shards, and a third one of whom one process is late: no shard sees it
    before both are there, and nobody waits for ever."""
    ranks, sizes, steps = Ranks(coordinator.address), {}, 60
    half = threading.Event()

    def work(name: str, group: ElasticGroup) -> None:
        seen = sizes.setdefault(name, [])
        for step in range(steps):
            group.update()
            x = torch.ones(1)
            group.allreduce([x]).wait()
            seen.append(int(x.item()))
            assert seen[-1] == group.size()
            if step == 10:
                half.set()
            time.sleep(0.01)

    for replica in range(2):
        for shard in range(2):
            ranks.start(
                2 * replica + shard,
                lambda group, r=replica, s=shard: work(f"{r}.{s}", group),
                group=f"shard {shard}",
                world_size_min=2,
            )
    assert half.wait(LIMIT)

    def newcomer(group: ElasticGroup) -> int:
        first = group.size()
        # A replica of which one shard is not there yet takes no part: it goes.
        group.abort()
        return first

    ranks.start(9, newcomer, group="shard 0")
    ranks.join()
    assert ranks.results[9] == 3
    assert sizes["0.0"][0] == sizes["0.1"][0] == 2
    # After the loss all went on, and each shard's ranks saw the same sizes.
    assert sizes["0.0"] == sizes["1.0"]
    assert sizes["0.1"] == sizes["1.1"] == [2] * steps
    assert sizes["0.0"][-1] == 2


def test_a_gathering_fails_with_a_lost_rank_and_the_group_goes_on(
    coordinator: pyccl.Coordinator,
) -> None:
    def work(group: ElasticGroup) -> int:
        group.barrier().wait()
        if group.rank() == 2:
            group.abort()
            return 0
        # Who calls before the loss and who calls behind it fail alike, and stay in step.
        with pytest.raises((PeerLostError, InvalidArgumentError)):
            group.all_gather_single(torch.empty(6), torch.ones(2)).wait()
        with pytest.raises(InvalidArgumentError):
            group.allgather([[torch.empty(2)] * 3], [torch.ones(2)]).wait()
        x = torch.ones(1)
        group.allreduce([x]).wait()
        group.barrier().wait()
        return int(x.item())

    ranks = Ranks(coordinator.address)
    for number in range(3):
        ranks.start(number, work, world_size_min=3)
    assert sorted(ranks.join().values()) == [0, 2, 2]


def test_as_the_default_group() -> None:
    script = """
import torch, torch.distributed as dist, pyccl, pyccl.torch
with pyccl.Coordinator("127.0.0.1:0") as coordinator:
    group = pyccl.torch.ElasticGroup.connect(coordinator.address).install()
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "pyccl")
    x = torch.ones(3)
    dist.all_reduce(x)
    dist.barrier()
    found = [None]
    dist.all_gather_object(found, {"a": 1})
    assert found == [{"a": 1}]
    dist.destroy_process_group()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, cwd="/"
    )
    assert done.stdout == "done\n", done.stderr
