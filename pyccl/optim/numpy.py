"""DiLoCo and NoLoCo for loops of numpy, JAX and others that are no torch: windows are named by the
caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pyccl.communicator import Communicator
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim.gossip import NoLoCoState
from pyccl.optim.meetings import Meetings
from pyccl.optim.outer import OuterState, outer_lr_of, outer_momentum_of
from pyccl.optim.report import SyncReport
from pyccl.optim.rounds import Rounds, alike
from pyccl.optim.schedule import check_steps
from pyccl.quantization import Codec, Quantization

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class Windows(ABC):
    """What they have in common. `state` is phi, momentum and the count of outer steps."""

    state: OuterState | NoLoCoState
    last_sync: SyncReport

    def __init__(self, sync_every: int | None) -> None:
        if sync_every is not None:
            check_steps(sync_every, "sync_every")
        self._sync_every = sync_every
        self._inner_steps = 0

    @property
    def steps(self) -> int:
        """Outer steps of the run."""
        return self.state.step

    @property
    def outer_params(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """phi by name, fp32: what to evaluate and to keep. To be read."""
        return self.state.views

    def begin_window(self, arrays: Arrays) -> None:
        """Puts phi into the arrays, in place and rounded to their types."""
        self.state.write(self._in_order(arrays))
        self._inner_steps = 0

    @abstractmethod
    def end_window(self, arrays: Arrays) -> SyncReport:
        """An outer step with what the arrays have come to since begin_window()."""

    def step(self, arrays: Arrays) -> SyncReport:
        """To be called behind each inner step: ends the window behind `sync_every` of them, and
        begins the next one in the arrays."""
        if self._sync_every is None:
            raise InvalidArgumentError("step() needs sync_every; else there is end_window()")
        self.last_sync = replace(self.last_sync, fresh=False)
        self._inner_steps += 1
        if self._inner_steps >= self._sync_every:
            self._inner_steps, before = 0, self.steps
            self.end_window(arrays)
            # Also where a newcomer has brought a state that is further on.
            if self.steps != before:
                self.begin_window(arrays)
        return self.last_sync

    def _in_order(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        missing = [name for name in self.state.names if name not in arrays]
        if missing or len(arrays) != len(self.state.names):
            raise InvalidArgumentError(
                f"the arrays must be those of the start, by name; there are {len(arrays)} of "
                f"{len(self.state.names)}, and missing are {missing[:8]}"
            )
        return [arrays[name] for name in self.state.names]

    @staticmethod
    def _named(arrays: Arrays) -> tuple[list[str], list[np.ndarray[Any, Any]]]:
        if not isinstance(arrays, Mapping):
            raise InvalidTypeError(f"arrays are of type {type(arrays).__name__}, not a mapping")
        return list(arrays), list(arrays.values())


class DiLoCo(Windows):
    """DiLoCo (arXiv 2311.08105) of arrays by name.

    arrays: the parameters, of floating point. Peers give the same names and shapes; the values at
        the start come from one of them.
    comm: a Communicator of which nothing else has been called since it was connected, or None to be
        alone. All peers make theirs at the same place, and a newcomer right behind connect(): the
        others wait for it.
    sync_every: inner steps between outer steps, of step(); None: the caller says when, by
        end_window().
    outer_lr, outer_momentum, nesterov: of the outer optimizer.
    quantization: a pyccl.Quantization or the name of its codec: deltas travel in fewer bits.
    error_feedback: what that takes is added to the next delta.
    min_peers: with fewer members nothing is applied, and what was learned is kept for later.
    timeout: seconds for each operation.

        outer = pyccl.optim.numpy.DiLoCo(weights, comm, sync_every=500)
        outer.begin_window(weights)
        while outer.steps < 100:
            train(weights)              # in place, or give the new arrays to step()
            outer.step(weights)

    `outer_lr`, `outer_momentum` and `weight` (what this peer's deltas count in the mean) may be set
    between steps; the first two are those of all peers.
    """

    def __init__(
        self,
        arrays: Arrays,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = None,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.9,
        nesterov: bool = True,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
        min_peers: int = 1,
        timeout: float | None = None,
    ) -> None:
        super().__init__(sync_every)
        rates = outer_lr_of(outer_lr), outer_momentum_of(outer_momentum)
        self.state: OuterState = OuterState(
            *self._named(arrays), *rates, nesterov, alike=alike(quantization, min_peers)
        )
        self.weight = 1.0
        self._rounds = Rounds(
            self.state,
            comm,
            quantization=quantization,
            error_feedback=error_feedback,
            peers_min=min_peers,
            timeout=timeout,
        )
        self.last_sync = self._rounds.join()

    @property
    def outer_lr(self) -> float:
        return self.state.lr

    @outer_lr.setter
    def outer_lr(self, lr: float) -> None:
        self.state.lr = outer_lr_of(lr)

    @property
    def outer_momentum(self) -> float:
        return self.state.mu

    @outer_momentum.setter
    def outer_momentum(self, mu: float) -> None:
        self.state.mu = outer_momentum_of(mu)

    def end_window(self, arrays: Arrays) -> SyncReport:
        """An outer step with what the arrays have come to since begin_window(). All peers call it.

        If it was applied, begin_window() comes next. If not, the arrays are as they were: train on,
        and the next one has it all.
        """
        delta = self.state.delta(self._in_order(arrays))
        self.last_sync = self._rounds.run(delta, self.weight)
        return self.last_sync


class NoLoCo(Windows):
    """NoLoCo (arXiv 2506.10911) of arrays by name: an outer step is a meeting of two peers.

    arrays, comm, sync_every: as for DiLoCo. Each peer has a phi of its own, `outer_params`.
    group, alpha, beta, gamma, seed, admit_every, timeout: as for pyccl.optim.NoLoCo.

        outer = pyccl.optim.numpy.NoLoCo(weights, comm, sync_every=50)
        outer.begin_window(weights)
        while outer.steps < 100:
            train(weights)              # in place, or give the new arrays to step()
            outer.step(weights)
        outer.average()                 # outer_params are then those of all
    """

    def __init__(
        self,
        arrays: Arrays,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = None,
        group: int = 2,
        alpha: float = 0.5,
        beta: float = 0.7,
        gamma: float | None = None,
        seed: int = 0,
        admit_every: int | None = 10,
        timeout: float | None = None,
    ) -> None:
        super().__init__(sync_every)
        self.state: NoLoCoState = NoLoCoState(
            *self._named(arrays), alpha=alpha, beta=beta, gamma=gamma
        )
        self._meetings = Meetings(
            self.state, comm, group=group, seed=seed, admit_every=admit_every, timeout=timeout
        )
        self.last_sync = self._meetings.join()

    def end_window(self, arrays: Arrays) -> SyncReport:
        """An outer step with what the arrays have come to since begin_window(), which comes next.
        Its partner calls it for the same step; every `admit_every` steps all peers do."""
        self.last_sync = self._meetings.run(self.state.theta(self._in_order(arrays)))
        return self.last_sync

    def average(self) -> SyncReport:
        """phi becomes the mean of those of all peers. All call it at the same place."""
        self.last_sync = self._meetings.average()
        return self.last_sync

    def sync_members(self) -> bool:
        """Admits newcomers and leaves out who is lost, as pyccl.optim.NoLoCo.sync_members();
        begin_window() comes next, for others may be further on."""
        return self._meetings.boundary()
