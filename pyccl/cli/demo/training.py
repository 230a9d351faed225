"""What a peer of the demo does: train on its own shard, average with the others, round by round.

A small network (64 inputs, one hidden layer, 10 classes) in plain numpy. All parameters are one
operation. The number of the round travels with them, so that a newcomer learns both from the same
all-reduce: it takes part with weight 0, and holds the same bits as everybody else afterwards. So
does the wish to end: whoever is told so says it there, and all end after the same round.
"""

from __future__ import annotations

import hashlib
import queue
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import pyccl
from pyccl.testing import next_order, report

Floats = np.ndarray[Any, np.dtype[np.float32]]
Labels = np.ndarray[Any, np.dtype[np.int64]]

_HIDDEN = 96
_BATCH = 32
_RATE = 0.1
_MOMENTUM = 0.9


@dataclass
class Settings:
    """One peer's part in the script."""

    shard: tuple[Floats, Labels]
    held_out: tuple[Floats, Labels]
    pace: float
    """Seconds between rounds, so that one can watch."""
    newcomer: bool = False
    doomed_at: int = -1
    """The round in which this peer says that it is inside the operation, to be killed there."""
    held_at: int = -1
    """The round in which this peer waits for an order before it takes part."""


@dataclass
class Row:
    """How a round ended at one peer."""

    index: int
    round: int
    epoch: str
    world_size: int
    """Contributors to the average."""
    members: int
    attempts: int
    loss: float
    accuracy: float
    digest: str
    seconds: float
    """That communication took: the operation, and the update where there was one."""
    ended_at: float
    """On the clock that all processes of a machine share."""
    joined: bool
    """This peer's first round, in which it contributed nothing and waited for the others."""


class Model:
    """The parameters, and the momentum that stays with the peer."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.parameters = [
            (random.standard_normal((64, _HIDDEN)) / 8).astype(np.float32),
            np.zeros(_HIDDEN, np.float32),
            (random.standard_normal((_HIDDEN, 10)) / 10).astype(np.float32),
            np.zeros(10, np.float32),
        ]
        self._velocity = [np.zeros_like(one) for one in self.parameters]

    def train(self, x: Floats, labels: Labels, random: np.random.Generator) -> float:
        """One pass over the data; the mean loss in it."""
        losses = []
        order = random.permutation(len(x))
        for begin in range(0, len(x), _BATCH):
            batch = order[begin : begin + _BATCH]
            loss, gradients = self._gradients(x[batch], labels[batch])
            losses.append(loss)
            for one, velocity, gradient in zip(
                self.parameters, self._velocity, gradients, strict=True
            ):
                velocity *= _MOMENTUM
                velocity -= _RATE * gradient
                one += velocity
        return float(np.mean(losses))

    def accuracy(self, x: Floats, labels: Labels) -> float:
        """The share of right answers."""
        _, probabilities = self._forward(x)
        return float(np.mean(probabilities.argmax(1) == labels))

    def digest(self) -> str:
        """Of all bits of all parameters."""
        return hashlib.sha256(b"".join(one.tobytes() for one in self.parameters)).hexdigest()[:12]

    def _forward(self, x: Floats) -> tuple[Floats, Floats]:
        weights, bias, out_weights, out_bias = self.parameters
        hidden = np.maximum(x @ weights + bias, 0)
        scores = hidden @ out_weights + out_bias
        exponents = np.exp(scores - scores.max(1, keepdims=True))
        return hidden, exponents / exponents.sum(1, keepdims=True)

    def _gradients(self, x: Floats, labels: Labels) -> tuple[float, list[Floats]]:
        hidden, probabilities = self._forward(x)
        rows = np.arange(len(x))
        loss = float(-np.log(probabilities[rows, labels] + 1e-9).mean())
        error = probabilities.copy()
        error[rows, labels] -= 1
        error /= len(x)
        back = (error @ self.parameters[2].T) * (hidden > 0)
        return loss, [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]


def run(comm: pyccl.Communicator, index: int, settings: Settings) -> str:
    """The peer function. Returns why it ended."""
    model = Model(seed=0)
    random = np.random.default_rng(index)
    number, loss, order = 0, float("nan"), ""
    joining = settings.newcomer
    while True:
        weight = 0.0
        if not joining:
            loss = model.train(*settings.shard, random)
            weight = float(len(settings.shard[0]))
        if settings.held_at == number:
            report("held")
            next_order(30)
        began = time.monotonic()
        travelling = np.array([float(number), float(order == "end")])
        arrays = [*model.parameters, travelling]
        work = comm.all_reduce(arrays, op="avg", weight=weight, async_op=True)
        if settings.doomed_at == number:
            report("inside")
        info = work.wait()
        if comm.peers_pending:
            comm.update()
        seconds = time.monotonic() - began
        number = round(float(travelling[0]))  # the average of equal numbers
        report(
            Row(
                index, number, str(info.epoch), info.world_size, info.members, info.attempts, loss,
                model.accuracy(*settings.held_out), model.digest(), seconds, time.monotonic(),
                joining,
            )
        )  # fmt: skip
        if travelling[1] > 0:
            return "ended"
        order = order or _order()
        if order == "leave":
            return "left"
        # All come out of the operation together, and so begin the next round together.
        time.sleep(settings.pace)
        joining = False
        number += 1


def _order() -> str:
    try:
        return str(next_order(0))
    except queue.Empty:
        return ""
