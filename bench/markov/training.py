"""What one peer does: it trains on data of its own, and notes its outer parameters as it goes."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

import pyccl
from markov.chain import Array, Chain
from markov.methods import ALONE, DATA_PARALLEL, Method
from markov.network import Network

_RATE_MAX, _RATE_SHARE_LEAST = 1e-2, 0.1
_WARM_UP_STEPS = 40
_BETAS = (0.9, 0.95)
_NOTES = 40
_SECONDS_MAX = 60.0
"""That a peer waits for another one."""


class Task(NamedTuple):
    """Of all peers of a run. batch: of each peer."""

    method: Method
    seed: int
    steps: int
    batch: int


class Trained(NamedTuple):
    """What a peer has come to."""

    at: list[int]
    """Inner steps behind which parameters were noted; the last of them is the end."""
    parameters: Array
    """The outer ones, as [note, element]."""
    bytes_sent: int
    contributors: dict[int, int]
    """How many steps were of so many peers."""
    seconds: float


class _Traffic:
    """What steps with others tell."""

    def __init__(self) -> None:
        self.bytes_sent = 0
        self.contributors: Counter[int] = Counter()

    def note(self, bytes_sent: int, contributors: int) -> None:
        self.bytes_sent += bytes_sent
        self.contributors[contributors] += 1


def train_here(_: int, peers: int, task: Task, address: str) -> Trained:
    if task.method.kind == ALONE:
        return _train(task, None)
    with pyccl.connect(address, world_size_min=peers, operation_timeout=_SECONDS_MAX) as comm:
        trained = _train(task, comm)
        # Who leaves early changes the view of those that are not done.
        comm.barrier()
    return trained


def _train(task: Task, comm: pyccl.Communicator | None) -> Trained:
    # By this rank, not by the crew's: sums are in its order, so a run gives the same bits again.
    rank = 0 if comm is None else comm.rank
    network = Network(task.seed)
    tables = _chain().batches(task.seed, rank, task.steps, task.batch)
    method, steps = task.method, task.steps
    inner = torch.optim.AdamW(
        network.parameters.values(), lr=_RATE_MAX, betas=_BETAS, weight_decay=0.0, fused=True
    )
    opt = _optimizer(method, network, inner, comm)
    share = functools.partial(_rate_share, steps=steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, share)
    dies_at = steps // 2 if method.dies and rank == method.peers - 1 else None
    notes = {max(1, steps * note // _NOTES) for note in range(1, _NOTES + 1)}
    traffic, kept = _Traffic(), []
    began = time.monotonic()
    for step in range(1, steps + 1):
        network.backward(tables[step - 1])
        if step == dies_at:  # ahead of an outer step for which the others wait, or within a window
            os.kill(os.getpid(), signal.SIGKILL)
        if method.kind == DATA_PARALLEL and comm is not None:
            _average_gradients(network, comm, traffic)
        opt.step()
        scheduler.step()
        if opt is not inner and opt.last_sync.fresh:
            _note(opt.last_sync, traffic)
        if step == steps and hasattr(opt, "drain"):
            _note(opt.drain(), traffic)
        if step in notes:
            kept.append(_parameters_of(opt, network))
    seconds = time.monotonic() - began
    return Trained(
        sorted(notes), np.stack(kept), traffic.bytes_sent, dict(traffic.contributors), seconds
    )


@functools.cache
def _chain() -> Chain:
    return Chain()


def _optimizer(
    method: Method, network: Network, inner: Any, comm: pyccl.Communicator | None
) -> Any:
    if method.kind in (ALONE, DATA_PARALLEL):
        return inner
    make = getattr(pyccl.optim, method.kind)
    return make(network.parameters.items(), inner, comm, **method.options)


def _rate_share(step: int, steps: int) -> float:
    """Of the largest learning rate: a linear start, and half a cosine down to the least."""
    if step < _WARM_UP_STEPS:
        return (step + 1) / _WARM_UP_STEPS
    done = min(1.0, (step - _WARM_UP_STEPS) / max(1, steps - _WARM_UP_STEPS))
    wave = (1 + math.cos(math.pi * done)) / 2
    return _RATE_SHARE_LEAST + (1 - _RATE_SHARE_LEAST) * wave


def _average_gradients(network: Network, comm: pyccl.Communicator, traffic: _Traffic) -> None:
    gradients = [one.grad.numpy() for one in network.parameters.values()]
    info = comm.all_reduce(gradients, op="avg")
    traffic.note(info.bytes_sent, info.world_size)


def _note(report: Any, traffic: _Traffic) -> None:
    if report.applied:
        traffic.note(report.bytes_sent, report.contributors)


def _parameters_of(opt: Any, network: Network) -> Array:
    """The outer ones, where there are such."""
    with opt.outer_params() if hasattr(opt, "outer_params") else contextlib.nullcontext():
        return network.flat()
