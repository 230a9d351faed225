"""Error feedback: what quantization takes from a contribution is added to the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pyccl import _core
from pyccl.arrays import ArrayLike, Shape, floats, paired, read_only, written_only
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.quantization import Codec, Quantization
from pyccl.work import OperationInfo

Array = np.ndarray[Any, Any]


class Reduces(Protocol):
    """A communicator or a subgroup."""

    @property
    def all_reduce(self) -> Callable[..., Any]: ...


class Compensated:
    """What ErrorFeedback.begin() gives: one contribution that is not committed yet."""

    __slots__ = ("_feedback", "_next", "quantization", "values")

    values: Any
    """What to contribute: f32 arrays, one or a list as was given. The result may replace them."""
    quantization: Quantization
    """What to call the operation with."""

    def __init__(
        self,
        feedback: ErrorFeedback,
        quantization: Quantization,
        values: Any,
        residuals: tuple[Array, ...],
    ) -> None:
        self.values = values
        self.quantization = quantization
        self._feedback = feedback
        self._next = residuals

    def commit(self, info: OperationInfo) -> None:
        """The operation succeeded, as `info` says: what this contribution lost is the residual from
        now on. That is nothing where no contribution was rounded: on a ring, and alone."""
        lost = self._next
        if info.members == 1 or info.algorithm == "ring":
            lost = tuple(_frozen(np.zeros_like(one)) for one in lost)
        self._feedback._residuals = lost


class ErrorFeedback:
    """Quantized sums that lose nothing over time.

    Quantization rounds a contribution, and where it rounds the same way at each step the error
    adds up. With error feedback each peer remembers what its last contribution lost, its residual
    e, and adds it to the next:

        a = delta_t + e_(t-1)
        c_t = what quantization makes of a, and the others receive
        e_t = a - c_t

    so after any number T of steps the sum of all c_t is the sum of all delta_t minus e_T: the error
    is that of one step, however many there were.

        feedback = pyccl.ErrorFeedback("fp4_e3m0")
        feedback.all_reduce(comm, delta, op="avg")

    The residual is f32 and belongs to this peer. It is kept per array, by its position in the list
    given, so give the same arrays in the same order each time. It is part of the operation: one
    that fails leaves it as it was, so the operation can be tried again.

    On a ring, and alone, contributions are not rounded, so nothing is lost. A peer that contributes
    nothing (weight 0) keeps its residual for later. A NaN or an infinity in
    an array spoils its whole block in the result; there the residual becomes 0.

    quantization: a Quantization or the name of a codec. May be set anew between operations, for
        example with another seed.
    """

    def __init__(self, quantization: Quantization | Codec) -> None:
        self.quantization = quantization
        self._residuals: tuple[Array, ...] | None = None

    @property
    def quantization(self) -> Quantization:
        return self._quantization

    @quantization.setter
    def quantization(self, value: Quantization | Codec) -> None:
        given = Quantization.of(value)
        if given is None:
            raise InvalidTypeError("error feedback needs a quantization, not None")
        self._quantization = given

    @property
    def residuals(self) -> tuple[Array, ...]:
        """The residuals by position, to read: empty before the first operation. Later operations
        make new arrays and leave these as they are."""
        return self._residuals or ()

    def all_reduce(
        self, comm: Reduces, x: ArrayLike, *, out: ArrayLike | None = None, **options: Any
    ) -> OperationInfo:
        """comm.all_reduce() of `x` and what earlier contributions lost.

        x: an array or a list of arrays of floating point. The result replaces it, in its type.
        out: where the result goes instead.
        options: those of Communicator.all_reduce(), except `quantization`, which is this object's,
            and `async_op`, for which there is begin().

        After an error `x` and the residual are what they were.
        """
        if options.pop("async_op", False):
            raise InvalidArgumentError(
                "async_op is not offered here: call begin(x), run the operation on its values, "
                "and commit() it when the work has succeeded"
            )
        if "quantization" in options:
            raise InvalidArgumentError("quantization is that of this object; set it there")
        # What can be wrong with the arrays shows before the operation, not after it.
        target = paired(x, out)
        step = self.begin(x)
        info: OperationInfo = comm.all_reduce(
            step.values, quantization=step.quantization, **options
        )
        _core.convert(read_only(step.values), target)
        if options.get("weight", 1.0) != 0:
            step.commit(info)
        return info

    def begin(self, x: ArrayLike) -> Compensated:
        """What to contribute for `x`, for an operation of your own:

            step = feedback.begin(delta)
            work = comm.all_reduce(step.values, quantization=step.quantization, async_op=True)
            step.commit(work.wait())

        `x` is only read, and is free again at once. Without commit() the residual stays as it was.
        Begin the next one after that.
        """
        shapes = floats(x)
        self._check(shapes)
        values = [np.empty(shape, np.float32) for _, shape in shapes]
        _core.convert(read_only(x), written_only(values))
        if self._residuals is not None:
            for value, residual in zip(values, self._residuals, strict=True):
                value += residual
        coded, _ = self._quantization.rounded(values)
        residuals = tuple(
            _frozen(_lost(value, one)) for value, one in zip(values, coded, strict=True)
        )
        one_or_all = values if isinstance(x, (list, tuple)) else values[0]
        return Compensated(self, self._quantization, one_or_all, residuals)

    def reset(self) -> None:
        """Forgets the residuals. What comes next may be other arrays."""
        self._residuals = None

    def state_dict(self) -> dict[str, Any]:
        """The residuals, for a checkpoint: copies."""
        return {"residuals": [one.copy() for one in self.residuals]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where that state was taken; its quantization is not part of it."""
        given = state.get("residuals")
        if not isinstance(given, Sequence):
            raise InvalidArgumentError("the state holds no list of residuals")
        residuals = []
        for i, one in enumerate(given):
            if not isinstance(one, np.ndarray) or one.dtype != np.float32:
                raise InvalidTypeError(f"residual {i} of the state is no array of f32")
            residuals.append(_frozen(one.copy(order="C")))
        self._residuals = tuple(residuals) or None

    def _check(self, shapes: list[tuple[str, Shape]]) -> None:
        if self._residuals is None:
            return
        advice = "; reset() forgets the residuals"
        for (name, shape), residual in zip(shapes, self._residuals, strict=False):
            if shape != residual.shape:
                raise InvalidArgumentError(
                    f"{name} has shape {shape}, but its residual {residual.shape}{advice}"
                )
        count = len(self._residuals)
        if len(shapes) > count:
            raise InvalidArgumentError(
                f"{shapes[count][0]} has no residual: there were {count} arrays{advice}"
            )
        if len(shapes) < count:
            raise InvalidArgumentError(
                f"x[{len(shapes)}] is missing: there were {count} arrays{advice}"
            )


def _lost(value: Array, coded: Array) -> Array:
    with np.errstate(invalid="ignore"):
        lost = np.subtract(value, coded, out=coded)
    # Otherwise one NaN would come back with every later contribution.
    lost[~np.isfinite(lost)] = 0
    return lost


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
