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

    @classmethod
    def of(cls, given: Any, timeout: timedelta | None = None, op: Any = None) -> Options:
        """From torch's options, or from what stands in their place: an operator or a root."""
        if isinstance(given, timedelta):
            given, timeout = None, given
        if given is None:
            return cls(timeout=timeout, op=cls().op if op is None else op)
        if isinstance(given, int):
            return cls(root=given, timeout=timeout, op=cls().op if op is None else op)
        if isinstance(given, (dist.ReduceOp, dist.ReduceOp.RedOpType)):
            return cls(op=given, timeout=timeout)
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
