"""What the others are compared with: gradients are averaged in every step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

import pyccl
import pyccl.torch
from pyccl.optim import SyncReport


class DataParallel:
    """Data-parallel training whose peers come and go, with the surface of pyccl.optim.

    (pyccl.torch.ElasticDDP does the same and overlaps it with the backward pass. Here all can be
    seen, and the bytes can be counted.)
    """

    def __init__(
        self, model: torch.nn.Module, inner: torch.optim.Optimizer, comm: pyccl.Communicator
    ) -> None:
        self.comm, self.inner = comm, inner
        self._parameters = list(model.parameters())
        self._state = pyccl.torch.shared_state(model, inner)
        comm.sync(self._state)
        self.last_sync = SyncReport(step=self._state.revision)

    @property
    def steps(self) -> int:
        return int(self._state.revision)

    def step(self) -> None:
        began = time.monotonic()
        gradients = [one.grad.cpu() for one in self._parameters]
        info = self.comm.all_reduce(gradients, op="avg")  # in place; begins again if a peer is lost
        for one, mean in zip(self._parameters, gradients, strict=True):
            one.grad.copy_(mean)
        seconds = time.monotonic() - began
        self.inner.step()
        self._state.revision += 1  # counts the steps
        if info.peers_pending:
            self.comm.sync(self._state)  # admits who waits, and brings them to where we are
        self.last_sync = SyncReport(
            fresh=True,
            applied=True,
            step=self._state.revision,
            contributors=info.world_size,
            members=info.members,
            bytes_sent=info.bytes_sent,
            seconds=seconds,
        )

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    @contextlib.contextmanager
    def outer_params(self) -> Iterator[None]:
        yield  # the model has them already
