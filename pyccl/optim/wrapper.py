"""What outer optimizers have in common as optimizers of torch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch

from pyccl.communicator import Communicator
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim.gossip import NoLoCoState
from pyccl.optim.outer import OuterState
from pyccl.optim.parameters import Parameters
from pyccl.optim.report import SyncReport
from pyccl.optim.schedule import check_steps
from pyccl.options import integer

_STEPS_MAX = (1 << 63) - 1

Inner = Any
"""A torch.optim.Optimizer, or a function that makes one of a list of tensors."""


class OuterOptimizer(torch.optim.Optimizer, ABC):  # type: ignore[misc]
    """An inner optimizer, and something that is done behind each `sync_every` steps of it.

    param_groups, state and defaults are the inner optimizer's own objects, so schedulers and
    gradient scalers work: build them on this object, not on the inner one.
    """

    last_sync: SyncReport
    outer: OuterState | NoLoCoState

    def __init__(
        self, params: Iterable[Any], inner: Inner, comm: Communicator | None, sync_every: int | None
    ) -> None:
        self._parameters = Parameters(params)
        if not isinstance(inner, torch.optim.Optimizer):
            if not callable(inner):
                raise InvalidTypeError(
                    f"inner is of type {type(inner).__name__}, but must be an optimizer, or make "
                    "one of a list of parameters"
                )
            made = inner(self._parameters.tensors)
            if not isinstance(made, torch.optim.Optimizer):
                raise InvalidTypeError(
                    f"inner has made something of type {type(made).__name__}, not an optimizer"
                )
            inner = made
        if isinstance(inner, OuterOptimizer):
            raise InvalidTypeError("inner is an outer optimizer itself")
        if getattr(inner.step, "_wrapped_by_lr_sched", False):
            warnings.warn(
                "a scheduler was built on the inner optimizer; build it on this one, or it will "
                "believe that it comes before the optimizer's steps",
                stacklevel=3,
            )
        self._parameters.check(one for group in inner.param_groups for one in group["params"])
        if sync_every is not None:
            check_steps(sync_every, "sync_every")
        # For its hooks; what it has of parameters is the inner one's from here on.
        super().__init__(self._parameters.tensors, {})
        self.inner = inner
        self.param_groups, self.state, self.defaults = (
            inner.param_groups, inner.state, inner.defaults,
        )  # fmt: skip
        self.comm = comm
        self.sync_every = sync_every
        self.inner_steps = 0
        """Since the last outer step."""
        self._held = 0

    @property
    def steps(self) -> int:
        """Inner steps of the run: those that belong to the outer steps done, on which all peers
        agree, and `inner_steps`. What a newcomer's schedule begins with.

        Windows whose outer step did not come about do not count. Raises InvalidArgumentError
        without sync_every, for then windows are as long as their callers make them.
        """
        if self.sync_every is None:
            raise InvalidArgumentError(
                "without sync_every nobody knows how many inner steps the run has; outer.step is "
                "the count of its outer steps"
            )
        return self._steps_before(self.outer.step) + self.inner_steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of the inner optimizer, which gives what this gives; behind the last one of a
        window an outer step, for which peers wait for each other. `last_sync` tells of it."""
        result = self.inner.step() if closure is None else self.inner.step(closure)
        self.tick()
        return result

    def tick(self) -> None:
        """Counts an inner step that was left out, as a GradScaler leaves it out if gradients
        overflow; step() does it by itself."""
        self._grow_stale()
        self.inner_steps += 1
        if not self._held:
            self._end_if_due()

    def sync(self, force: bool = True) -> SyncReport:
        """An outer step now, however many inner ones there were. All peers call it.

        force: False: only if the window has come to its end, as within no_sync().
        """
        if not force:
            self._grow_stale()
            self._end_if_due()
            return self.last_sync
        self.last_sync = self._outer_step()
        self.inner_steps = 0
        return self.last_sync

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it windows do not end. One that would have ended does so with the next step."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @contextmanager
    def outer_params(self) -> Iterator[None]:
        """Within it the model has the outer parameters: those to evaluate and to keep."""
        saved = self._parameters.clone()
        self._write_outer()
        try:
            yield
        finally:
            self._parameters.restore(saved)

    def leave(self) -> None:
        """Takes leave of the others in good order; what was learned since the last outer step stays
        here. Training may go on alone."""
        comm, self.comm = self.comm, None
        if comm is not None:
            self._alone()
            comm.leave()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InvalidTypeError(
            "an outer optimizer can't be copied or pickled, for it takes part in operations of all "
            "peers; keep its state_dict(), and load that into a new one"
        )

    def _no_hooks(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidArgumentError(
            "state_dict() and load_state_dict() run no hooks here; register it on `inner`, whose "
            "state is a part of this one's"
        )

    register_state_dict_pre_hook = register_state_dict_post_hook = _no_hooks
    register_load_state_dict_pre_hook = register_load_state_dict_post_hook = _no_hooks

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        # The base class calls it for those of the start.
        if hasattr(self, "inner"):
            raise InvalidArgumentError(
                "parameters can't be added: all peers hold the same outer state; make a new one"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """{"version", "kind": the name of the class, "inner": that of the inner optimizer, "outer":
        copies of all else}."""
        outer = {"inner_steps": self.inner_steps, **self._export()}
        return {
            "version": 1,
            "kind": type(self).__name__,
            "inner": self.inner.state_dict(),
            "outer": outer,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where state_dict() was called. The model's parameters are the caller's to load.

        All peers of a communicator call it at the same place: the state of the most outer steps is
        that of all behind it. Raises InvalidArgumentError and InvalidTypeError for a state of
        another kind, or of other parameters or options; nothing of it has been taken then.
        """
        self._check_kind(state_dict)
        outer = dict(state_dict["outer"])
        inner_steps = integer(outer.pop("inner_steps", 0), "inner_steps", 0, _STEPS_MAX)
        before = self.inner.param_groups, self.inner.state
        try:
            self._load_inner(state_dict["inner"])
            goes_on = self._import(outer)
        except BaseException:
            self.inner.param_groups, self.inner.state = before
            raise
        # load_state_dict() makes new ones.
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        self.inner_steps = inner_steps if goes_on else 0

    def _check_kind(self, state_dict: object) -> None:
        if not isinstance(state_dict, dict) or not all(
            isinstance(state_dict.get(key), dict) for key in ("inner", "outer")
        ):
            raise InvalidArgumentError("this is no state of state_dict(): no inner and outer in it")
        if state_dict.get("version") != 1:
            raise InvalidArgumentError(
                f"the state is of version {state_dict.get('version')!r}, but this reads 1"
            )
        ours = type(self).__name__
        theirs = state_dict.get("kind", ours)  # the first states did not say theirs
        if theirs != ours:
            raise InvalidArgumentError(
                f"the state is that of {theirs}, but this is {ours}: make one of the same kind, or "
                "load only the model and the inner optimizer"
            )

    def _load_inner(self, state: dict[str, Any]) -> None:
        try:
            self.inner.load_state_dict(state)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"the inner optimizer does not take its part of the state: {error!r}"
            ) from error

    def _grow_stale(self) -> None:
        # The one that was given to somebody stays what it was.
        self.last_sync = replace(self.last_sync, fresh=False)

    def _end_if_due(self) -> None:
        if self.sync_every is not None and self.inner_steps >= self.sync_every:
            self.sync()

    def _steps_before(self, outer_step: int) -> int:
        assert self.sync_every is not None
        return outer_step * self.sync_every

    # ---- what each outer optimizer does in its own way
    @abstractmethod
    def _outer_step(self) -> SyncReport:
        """With what was learned since the last one; puts what comes of it into the model."""

    @abstractmethod
    def _write_outer(self) -> None:
        """Puts the outer parameters into the model."""

    @abstractmethod
    def _alone(self) -> None:
        """From now on there are no others."""

    @abstractmethod
    def _export(self) -> dict[str, Any]:
        """Copies of all that the next outer steps depend on."""

    @abstractmethod
    def _import(self, state: dict[str, Any]) -> bool:
        """Takes what _export() gave. False: others had another state, and the model begins a window
        where they are."""
