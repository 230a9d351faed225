"""Peers that train by torch while others come and die, each with one of the optimizers that outer
steps are made of. Loaded by file in the peers' processes."""

from __future__ import annotations

import hashlib
import logging
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from process.jobs import order

import pyccl
from pyccl.optim.staleness import adaptive_penalty
from pyccl.testing import report

EVERY = 4
"""Inner steps of a window; and outer steps from one moment at which peers may end to the next."""
_ENDING_TAG = 7

_STREAMING = {"fragments": 2, "overlap": 1}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "streaming": ("StreamingDiLoCo", _STREAMING),
    "streaming-fp4": ("StreamingDiLoCo", {**_STREAMING, "quantization": "fp4_e3m0"}),
    "delayed": ("DelayedDiLoCo", {"outer_lr": 0.4, "outer_momentum": 0.5}),
    "co2": ("CO2", {"gap_penalty": adaptive_penalty, "clip": 1.0}),
    "edit": ("EDiT", {"warmup": 5}),
    "int8-feedback": ("DiLoCo", {"quantization": "int8", "error_feedback": True}),
}


class Step(NamedTuple):
    """An outer step, as all peers must have seen it."""

    number: int
    fragment: int | None
    applied: bool
    reason: str
    contributors: int
    members: int
    hash: str
    """What was told of the state, if anything."""
    state: str
    """What its digest is."""


class Told(NamedTuple):
    """What a peer tells of it."""

    number: int
    step: Step
    drifted: bool
    seconds: float


class End(NamedTuple):
    """Where a peer has taken leave."""

    number: int
    digest: str
    """Of phi and momentum."""
    warnings: list[str]


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def train(comm: pyccl.Communicator, index: int, name: str, width: int) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(index)
    warnings = Warnings()
    logging.getLogger("pyccl.optim").addHandler(warnings)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Linear(width, 3))
    kind, options = OPTIMIZERS[name]
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    opt = getattr(pyccl.optim, kind)(
        model.named_parameters(), inner, comm, sync_every=EVERY, **options
    )
    while not (opt.outer.step % EVERY == 0 and ends(comm)):
        learn(opt, model)
        report(told(opt))
    opt.leave()
    phi = opt.outer.export()
    digest = hashlib.sha256(phi["params"].tobytes() + phi["momentum"].tobytes()).hexdigest()
    report(End(opt.outer.step, digest, warnings.texts))
    return "ended"


def ends(comm: pyccl.Communicator) -> bool:
    ending = np.array([order() == "end"], np.uint8)
    comm.all_reduce(ending, op="max", tag=_ENDING_TAG)
    return bool(ending[0])


def learn(opt: Any, model: torch.nn.Module) -> None:
    """Until there was an outer step."""
    fresh = False
    while not fresh:
        for one in model.parameters():
            one.grad = torch.randn_like(one)
        opt.step()
        fresh = opt.last_sync.fresh
        time.sleep(0.003)


def told(opt: Any) -> Told:
    found, number = opt.last_sync, opt.outer.step
    step = Step(
        number, found.fragment, found.applied, found.reason, found.contributors, found.members,
        found.hash, opt.outer.hash(),
    )  # fmt: skip
    return Told(number, step, any(one.drifted for one in found.behind), found.seconds)
