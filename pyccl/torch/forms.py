"""The forms in which torch calls operations: with options of many classes, or plain arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed as dist

from pyccl.torch.errors import InvalidArgumentError

One = TypeVar("One")


class Options(NamedTuple):
    """What a call says beside its tensors. A timeout of None is that of the group."""

    op: Any = dist.ReduceOp.SUM
    root: int = 0
    timeout: timedelta | None = None
    asyncOp: bool = True  # noqa: N815 - torch's name
    parts: list[Any] | None = None
    """Where an operation goes that is a part of another one, instead of being begun."""

    @classmethod
    def of(
        cls,
        given: Any,
        timeout: timedelta | None = None,
        op: Any = None,
        root: int | None = None,
    ) -> Options:
        """From torch's options, or from what may stand in their place or by its name: a timeout, a
        root, an operator."""
        if isinstance(given, timedelta):
            given, timeout = None, given
        elif isinstance(given, int):
            given, root = None, given
        elif isinstance(given, (dist.ReduceOp, dist.ReduceOp.RedOpType)):
            given, op = None, given
        if given is None:
            return cls(dist.ReduceOp.SUM if op is None else op, root or 0, timeout)
        return cls(
            op=getattr(given, "reduceOp", dist.ReduceOp.SUM),
            root=getattr(given, "rootRank", 0),
            timeout=given.timeout if timeout is None else timeout,
            asyncOp=getattr(given, "asyncOp", True),
        )


def tensors_of(given: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [given] if isinstance(given, torch.Tensor) else list(given)


def only(given: Sequence[One], what: str) -> One:
    """Where torch's lists are those of a time when a process had several devices."""
    if len(given) != 1:
        raise InvalidArgumentError(f"{what} takes one tensor, or one list, and not {len(given)}")
    return given[0]
