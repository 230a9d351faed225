"""What all operations share: their options, and the way into the core and back."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal

from pyccl import _core
from pyccl.errors import ClosedError, InvalidArgumentError
from pyccl.options import code, integer, rank_of, seconds
from pyccl.quantization import Quantization
from pyccl.work import HintKeeper, OperationInfo, Work

ReduceOp = Literal["sum", "avg", "prod", "min", "max", "band", "bor", "bxor"]
Algorithm = Literal[
    "auto", "ring", "direct", "one_shot", "recursive_doubling", "halving_doubling", "binomial",
    "chain",
]  # fmt: skip
OnLoss = Literal["retry", "raise"]
Quantized = Quantization | str | None
Result = Any
"""A numpy array, or what was given as `out`; for a list of arrays a list of such."""

_TAG_MAX = 0xFFFFFFFF


class Shared(HintKeeper):
    """What a communicator and its subgroups have in common."""

    __slots__ = ("closed", "core", "timeout")

    def __init__(self, core: _core.Communicator, timeout: float) -> None:
        super().__init__()
        self.core = core
        self.timeout = timeout
        self.closed = False


class Operations:
    """The base of everything that has collectives: a communicator, or a subgroup of one."""

    def __init__(self, shared: Shared, subgroup: _core.Subgroup | None) -> None:
        self._shared = shared
        self._subgroup = subgroup
        # In a subgroup the others would not see the hint.
        self._hints = shared if subgroup is None else None

    def _place(self) -> tuple[int, int]:
        """The own rank and the number of members, at present."""
        if self._subgroup is not None:
            return self._subgroup.rank(), self._subgroup.size()
        return self._shared.core.place()

    def _run(
        self,
        settings: _core.Settings,
        arrays: _core.Arrays,
        timeout: float | None,
        async_op: bool,
        give: Callable[[OperationInfo], Any] | None = None,
    ) -> Any:
        """What the operation gives, or its Work. `give` makes the one of how it went; that itself
        by default."""
        shared = self._shared
        if shared.closed:
            raise _closed()
        limit = shared.timeout if timeout is None else seconds(timeout, "timeout")
        # The core waits, and gives the call up before Ctrl-C comes out of it: between two lines of
        # Python an exception could leave a call posted that nobody knows of.
        core = shared.core.call(arrays, settings, self._subgroup, limit, not async_op)
        work = Work(core, self._hints, give)
        return work if async_op else work.result()

    def _run_pair(
        self,
        role: str,
        other: int,
        tag: int,
        arrays: _core.Arrays,
        timeout: float | None,
        async_op: bool,
        quantization: Quantized = None,
    ) -> Any:
        shared = self._shared
        if shared.closed:
            raise _closed()
        settings = settings_of("send", "sum", 1.0, tag, "raise", quantization=quantization)
        limit = shared.timeout if timeout is None else seconds(timeout, "timeout")
        core = shared.core.call_pair(
            arrays, settings, _core.pair_roles[role], other, self._subgroup, limit, not async_op
        )
        work: Work[OperationInfo] = Work(core, None)
        return work if async_op else work.result()


def settings_of(
    collective: str,
    op: str = "sum",
    weight: float = 1.0,
    tag: int = 0,
    on_loss: str = "retry",
    algorithm: str | None = None,
    root: int | None = None,
    quantization: Quantized = None,
) -> _core.Settings:
    """The options of a call as the core wants them, checked."""
    try:
        return _settings(collective, op, weight, tag, on_loss, algorithm, root, quantization)
    except TypeError as error:  # can't be hashed
        raise InvalidArgumentError(
            f"an option of {collective} is no plain value: {error}"
        ) from error


@functools.lru_cache(maxsize=1024, typed=True)
def _settings(
    collective: str,
    op: str,
    weight: float,
    tag: int,
    on_loss: str,
    algorithm: str | None,
    root: int | None,
    quantization: Quantized,
) -> _core.Settings:
    if not (isinstance(weight, numbers.Real) and 0 <= weight < math.inf):
        raise InvalidArgumentError(f"weight is {weight!r}, but must be a finite number >= 0")
    settings = _core.Settings(
        collective=_core.collectives[collective],
        op=code(_core.reduce_ops, op, "op"),
        weight=float(weight),
        tag=integer(tag, "tag", 0, _TAG_MAX),
        on_loss=code(_core.on_loss, on_loss, "on_loss"),
        algorithm=code(_core.algorithms, algorithm or "auto", "algorithm"),
        rank=-1 if root is None else rank_of(root, "root"),
    )
    if (meant := Quantization.of(quantization)) is not None:
        settings.quantize(
            codec=_core.codecs[meant.codec],
            block=meant.block,
            scale=_core.dtypes[meant.scale],
            partial=_core.dtypes[meant.partial],
            rounding=_core.roundings[meant.rounding],
            seed=meant.seed,
            zstd=meant.lossless == "zstd",
        )
    return settings


def _closed() -> ClosedError:
    return ClosedError("the communicator was closed; connect() gives a new one")
