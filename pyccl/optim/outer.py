"""The outer optimizer of DiLoCo (arXiv 2311.08105): what all peers hold alike, and its step.

Peers train for H inner steps each by itself, from the same outer parameters phi to theta_m. What
they exchange is the pseudo-gradient delta_m = phi - theta_m, outer minus inner, whose mean the
outer optimizer takes for a gradient. That is PyTorch's SGD with momentum, here in fp32 with a fixed
order of roundings, so that all peers get the same bits from the same mean:

    momentum = mu*momentum + mean
    phi      = phi - lr*(mean + mu*momentum)     (nesterov; else phi - lr*momentum)

Nothing here communicates.
"""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pyccl import _core
from pyccl.errors import InvalidArgumentError
from pyccl.operations import ReduceOp
from pyccl.optim.layout import F32, Array, Layout
from pyccl.optim.vectors import Vectors
from pyccl.options import integer
from pyccl.shared_state import SharedState

_STEP_MAX = (1 << 64) - 1
_WHOLE = slice(None)


class OuterState(Vectors):
    """phi, its momentum, the learning rate and the count of steps: all that decides about the next
    outer step, and nothing else.

    names, arrays: the parameters at the start, of fp16, bf16, fp32 or fp64 (numpy). They are copied
        into one fp32 vector, one behind the other in this order, each in C order.
    lr, mu: learning rate and momentum of the outer optimizer, rounded to fp32. May be set between
        steps, and are part of what a newcomer gets.
    nesterov: else heavy ball.
    extra: arrays by name, of whoever builds on this, that all peers are to hold alike too. They
        stay where they are.
    alike: texts, of options that must be the same on all peers beside what is here. A peer whose
        texts are others is refused by sync(), and a checkpoint does not know of them.

    Raises InvalidArgumentError and InvalidTypeError; the text names the array.

        state = OuterState(list(weights), list(weights.values()))
        ...                                              # H inner steps change the weights
        mean = delta = state.delta(list(weights.values()))
        comm.all_reduce(mean, op="avg")
        state.apply(mean)
        state.write(list(weights.values()))

    `shared` is made of the vectors themselves.
    """

    __slots__ = ("_count", "_extra", "_nesterov", "_rates", "shared")

    op: ClassVar[ReduceOp] = "avg"
    """Makes of what peers send what apply() takes."""
    shared: SharedState
    """All of this for Communicator.sync(); its revision is `step`."""

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[Array],
        lr: float = 0.7,
        mu: float = 0.9,
        nesterov: bool = True,
        *,
        extra: Mapping[str, Array] | None = None,
        alike: Iterable[str] = (),
    ) -> None:
        layout = Layout(names, arrays)
        params = layout.check_finite(layout.flatten(arrays), "params")
        # Not at the first step: a newcomer must find what it gets.
        super().__init__(layout, params, np.zeros_like(params))
        self._rates = np.zeros(2, np.float32)
        self._count = np.zeros((), np.uint64)
        self._nesterov = bool(nesterov)
        self._extra = dict(extra or {})
        self.lr, self.mu = lr, mu
        self.shared = SharedState(
            {
                **{f"params/{name}": one for name, one in self.views.items()},
                "momentum": self._momentum,
                "lr, mu": self._rates,
                "step": self._count,
                f"nesterov={self._nesterov}": np.zeros((), np.uint8),
                # A shared state goes by names, but momentum and deltas by places.
                f"order={_order_of(layout.names)}": np.zeros((), np.uint8),
                **{text: np.zeros((), np.uint8) for text in alike},
                **self._extra,
            }
        )

    @property
    def step(self) -> int:
        """t: outer steps done."""
        return int(self._count)

    @property
    def lr(self) -> float:
        return float(self._rates[0])

    @lr.setter
    def lr(self, lr: float) -> None:
        self._rates[0] = _number(lr, "lr", 0.0, np.inf)

    @property
    def mu(self) -> float:
        return float(self._rates[1])

    @mu.setter
    def mu(self, mu: float) -> None:
        self._rates[1] = _number(mu, "mu", 0.0, 1.0)

    @property
    def nesterov(self) -> bool:
        return self._nesterov

    def delta(self, arrays: Sequence[Array]) -> F32:
        """The pseudo-gradient of inner parameters: a new vector, phi - theta.

        Of narrower types than fp32 it is what they have moved from where write() put them, which is
        cast(phi) - theta, so that nothing learned is nothing sent. Raises InvalidArgumentError and
        InvalidTypeError for other arrays than at the start.
        """
        delta = self._layout.flatten(arrays)
        with np.errstate(over="ignore", invalid="ignore"):
            for (name, target), one in zip(self._layout.cut(delta), arrays, strict=True):
                start = self.views[name]
                if one.dtype.itemsize < 4:
                    start = start.astype(one.dtype).astype(np.float32)
                np.subtract(start, target, out=target)
        return delta

    def apply(self, mean: F32, part: slice = _WHOLE) -> None:
        """One outer step: `mean` is the mean of the contributors' deltas.

        part: of which elements of `params`; the others, and their momentum, stay as they are.

        Raises InvalidTypeError for another type, and InvalidArgumentError for another length and
        for a NaN or an infinity in it; nothing has changed then.
        """
        self._check_mean(mean, part)
        self._move(mean, part)
        self._set_step(self.step + 1)

    def hash(self) -> str:
        """32 hex digits: peers whose states are equal, bit for bit, have equal ones."""
        return self.shared.digest()

    def export(self) -> dict[str, Any]:
        """Everything a checkpoint needs, as copies."""
        return {
            "names": list(self._layout.names),
            "shapes": list(self._layout.shapes),
            "params": self._params.copy(),
            "momentum": self._momentum.copy(),
            "lr": self.lr,
            "mu": self.mu,
            "nesterov": self._nesterov,
            "step": self.step,
            "extra": {name: one.copy() for name, one in self._extra.items()},
        }

    def import_(self, state: Mapping[str, Any]) -> None:
        """Goes on where export() was called; `state` is only read.

        Raises InvalidArgumentError and InvalidTypeError for a state of other arrays, of the other
        kind of momentum, or of numbers that are not finite; this one is then what it was.
        """
        fields = ("names", "shapes", "params", "momentum", "lr", "mu", "nesterov", "step", "extra")
        for key in fields:
            if key not in state:
                raise InvalidArgumentError(f"the state holds no {key!r}; take one of export()")
        self._layout.check_same(state["names"], state["shapes"])
        if bool(state["nesterov"]) != self._nesterov:
            raise InvalidArgumentError(
                f"the state was made with nesterov={state['nesterov']}, but here it is "
                f"{self._nesterov}"
            )
        vectors = [
            self._layout.check_finite(self._layout.check_vector(state[key], key), key)
            for key in ("params", "momentum")
        ]
        step = integer(state["step"], "step", 0, _STEP_MAX)
        rates = _number(state["lr"], "lr", 0.0, np.inf), _number(state["mu"], "mu", 0.0, 1.0)
        self._check_extra(state["extra"])
        for name, one in self._extra.items():
            one[...] = state["extra"][name]
        self._params[...], self._momentum[...] = vectors
        self._rates[...] = rates
        self._set_step(step)

    def _check_mean(self, mean: F32, part: slice) -> None:
        begin, _, _ = part.indices(self._layout.size)
        self._layout.check_vector(mean, "mean", self._params[part].size)
        self._layout.check_finite(mean, "mean", begin)

    def _check_extra(self, extra: Mapping[str, Array]) -> None:
        theirs, ours = (
            {name: (one.dtype.name, one.shape) for name, one in given.items()}
            for given in (extra, self._extra)
        )
        if theirs != ours:
            raise InvalidArgumentError(
                f"the state has {sorted(theirs)[:8]} beside its parameters, but here are "
                f"{sorted(ours)[:8]}; it is that of another optimizer, or of other options"
            )
        for name, one in extra.items():
            if np.isnan(one).any():
                raise InvalidArgumentError(f"{name!r} of the state is not a number")

    def _move(self, given: F32, part: slice, divisor: float = 1.0, limit: float = np.inf) -> None:
        """The step at the head of this file, of some elements. The mean is `given` / divisor; no
        element of the momentum comes further from 0 than `limit`."""
        rate, factor = (float(one) for one in self._rates)
        _core.outer_step(
            self._params[part], self._momentum[part], np.ascontiguousarray(given),
            rate, factor, self._nesterov, divisor, limit,
        )  # fmt: skip

    def _set_step(self, step: int) -> None:
        self._count[...] = step
        self.shared.revision = step


def outer_lr_of(value: object) -> float:
    """As `lr`, for those to whom it is outer_lr. Raises InvalidArgumentError."""
    return _number(value, "outer_lr", 0.0, np.inf)


def outer_momentum_of(value: object) -> float:
    """As `mu`, for those to whom it is outer_momentum. Raises InvalidArgumentError."""
    return _number(value, "outer_momentum", 0.0, 1.0)


def _order_of(names: Sequence[str]) -> str:
    return hashlib.blake2b(repr(list(names)).encode(), digest_size=8).hexdigest()


def _number(value: object, name: str, low: float, high: float) -> float:
    # In fp32, which may round to the bound.
    with np.errstate(over="ignore"):
        number = float(np.float32(value)) if isinstance(value, numbers.Real) else np.nan
    if not low <= number < high:
        raise InvalidArgumentError(
            f"{name} is {value!r}, but must be from {low:g} to below {high:g}"
        )
    return number
