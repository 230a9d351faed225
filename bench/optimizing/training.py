"""One peer that trains in one of the ways that are compared, and counts what it sends meanwhile.

What would take an accelerator's time takes no processor's here: each layer sleeps for its share of
a step, a third of it in its forward pass and two thirds in its backward pass, so that DDP has its
own time to hide communication in. The mathematics beside it are real, and small.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

import pyccl
import pyccl.optim
import pyccl.torch
from optimizing.wire import DEVICE, Counter, address_of

FP4 = "fp4_e3m0"
COORDINATOR_PORT = 48153
_STORE_PORT = 48152
_ALONE_STEPS = 10
_WARM_STEPS = 3
_COUNT_EVERY_SECONDS = 0.01
_LIMIT_SECONDS = 120.0


class Net(NamedTuple):
    """What is trained: as many layers as fragments, so that these are of one size."""

    layers: int = 8
    width: int = 512
    step_ms: float = 100.0
    """Of the accelerator, for a step."""

    @property
    def parameters(self) -> int:
        return self.layers * self.width * (self.width + 1)


class Way(NamedTuple):
    """How it is trained."""

    name: str
    kind: str
    """ddp, elastic (DDP by pyccl), diloco or streaming."""
    quantization: str | None = None

    @property
    def each_step(self) -> bool:
        """Gradients are reduced in each of them."""
        return self.kind in {"ddp", "elastic"}


WAYS = (
    Way("DDP, Gloo", "ddp"),
    Way("DDP, pyccl", "elastic"),
    Way("DiLoCo", "diloco"),
    Way(f"DiLoCo, {FP4}", "diloco", FP4),
    Way("Streaming", "streaming"),
    Way(f"Streaming, {FP4}", "streaming", FP4),
)


class Order(NamedTuple):
    """What a peer is told to do."""

    peer: int
    peers: int
    way: Way
    net: Net
    steps: int
    sync_every: int
    overlap: int


class Trained(NamedTuple):
    """What a peer has found."""

    alone: float
    """Seconds of a step that waits for nobody: the median before and behind the others, or of all
    of these if that is less."""
    seconds: float
    """Of all steps."""
    longest: float
    """Of a step."""
    sent: int
    """Bytes that have left here in all steps."""
    busiest: int
    """Bytes within the busiest time of the length of a step."""


class Accelerator:
    """One whose work takes its time; what the processor does meanwhile is hidden behind it."""

    def __init__(self) -> None:
        self._done = 0.0

    def begin(self) -> None:
        self._done = time.perf_counter()

    def work(self, seconds: float) -> None:
        """Returns when all since begin() is done."""
        self._done += seconds
        time.sleep(max(0.0, self._done - time.perf_counter()))


class Busy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, accelerator: Accelerator, seconds: float) -> Any:
        ctx.accelerator, ctx.seconds = accelerator, seconds
        accelerator.work(seconds / 3)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None]:
        ctx.accelerator.work(2 * ctx.seconds / 3)
        return gradient, None, None


class Layer(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, accelerator: Accelerator, seconds: float) -> None:
        super().__init__()
        self._linear = torch.nn.Linear(width, width)
        self._accelerator, self._seconds = accelerator, seconds

    def forward(self, x: Any) -> Any:
        # The gradient comes here before it comes to the parameters.
        return Busy.apply(torch.relu(self._linear(x)), self._accelerator, self._seconds)


class Sampler:
    """Looks again and again at what has been sent."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_COUNT_EVERY_SECONDS):
            self._seen.append((time.monotonic(), self._counter.sent()))

    def busiest(self, seconds: float) -> int:
        return busiest(self._seen, seconds)


def busiest(seen: list[tuple[float, int]], seconds: float) -> int:
    """The most that was added to a count within so many seconds, or from one look to the next one.
    seen: times and counts."""
    most, first = 0, 0
    for last, (when, count) in enumerate(seen):
        while first < last - 1 and when - seen[first][0] > seconds:
            first += 1
        most = max(most, count - seen[first][1])
    return most


@contextlib.contextmanager
def _opened(order: Order, model: Any, inner: Any) -> Iterator[tuple[Any, Any]]:
    """The module that steps call, and the optimizer that steps."""
    way, coordinator = order.way, f"{address_of(order.peers)}:{COORDINATOR_PORT}"
    # Namespaces of one host share memory, and a wire would see nothing.
    connect: dict[str, Any] = {"world_size_min": order.peers, "transport": "tcp"}
    if way.kind == "ddp":
        with _gloo(order):
            yield torch.nn.parallel.DistributedDataParallel(model), inner
        return
    if way.kind == "elastic":
        group = pyccl.torch.ElasticGroup.connect(coordinator, **connect)
        yield pyccl.torch.ElasticDDP(model, group), inner
        group.communicator.leave()
        return
    comm = pyccl.connect(coordinator, timeout=_LIMIT_SECONDS, **connect)
    exchange: dict[str, Any] = {"sync_every": order.sync_every, "quantization": way.quantization}
    if way.kind == "streaming":
        exchange |= {"fragments": order.net.layers, "overlap": order.overlap}
        opt: Any = pyccl.optim.StreamingDiLoCo(model.named_parameters(), inner, comm, **exchange)
    else:
        opt = pyccl.optim.DiLoCo(model.named_parameters(), inner, comm, **exchange)
    comm.barrier()
    yield model, opt
    opt.leave()


@contextlib.contextmanager
def _gloo(order: Order) -> Iterator[None]:
    os.environ["GLOO_SOCKET_IFNAME"] = DEVICE
    dist = torch.distributed
    store = dist.TCPStore(address_of(0), _STORE_PORT, is_master=order.peer == 0)
    dist.init_process_group("gloo", store=store, rank=order.peer, world_size=order.peers)
    yield
    dist.barrier()
    dist.destroy_process_group()


def train(order: Order) -> Trained:
    torch.set_num_threads(1)
    accelerator, net = Accelerator(), order.net
    chance = torch.Generator().manual_seed(order.peer)

    def step(module: Any, optimizer: Any) -> float:
        began = time.perf_counter()
        accelerator.begin()
        # Layers that are busy in the backward pass have to be on the way of a gradient.
        x = torch.randn(1, net.width, generator=chance).requires_grad_()
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()
        return time.perf_counter() - began

    spare, model = (_made(net, accelerator) for _ in range(2))
    alone = _repeated(lambda: step(*spare), _ALONE_STEPS)
    counter = Counter()
    with _opened(order, *model) as (module, optimizer):
        if order.way.each_step:
            _repeated(lambda: step(module, optimizer), _WARM_STEPS)
        before = counter.sent()
        with Sampler(counter) as sampler:
            took = _repeated(lambda: step(module, optimizer), order.steps)
        sent = counter.sent() - before
    alone += _repeated(lambda: step(*spare), _ALONE_STEPS)
    busy = sampler.busiest(net.step_ms / 1e3)
    # Most steps of an outer optimizer wait for nobody; the machine may have been busier before.
    least = min(statistics.median(alone), statistics.median(took))
    return Trained(least, sum(took), max(took), sent, busy)


def _made(net: Net, accelerator: Accelerator) -> tuple[Any, Any]:
    """The same at all peers: a model and what trains it."""
    torch.manual_seed(0)
    seconds = net.step_ms / 1e3 / net.layers
    layers = (Layer(net.width, accelerator, seconds) for _ in range(net.layers))
    model = torch.nn.Sequential(*layers)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


def _repeated(step: Callable[[], float], steps: int) -> list[float]:
    return [step() for _ in range(steps)]


def main() -> None:
    peer, peers, way, net, *numbers = json.loads(sys.argv[1])
    trained = train(Order(peer, peers, Way(*way), Net(*net), *numbers))
    print(json.dumps(trained._asdict()))
