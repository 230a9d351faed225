"""Comparison of lists and dicts of tensors, numbers and words."""

from __future__ import annotations

import math
from typing import Any

import torch


class Difference:
    """What has been found so far: how many numbers, and the worst of them."""

    def __init__(self) -> None:
        self.numbers = 0
        self.most = 0.0
        self.where = ""
        self.bitwise = True

    def note(self, where: str, amount: float) -> None:
        self.bitwise = False
        # Where one has a number and the other has none, nothing can be worse.
        amount = math.inf if math.isnan(amount) else amount
        if amount >= self.most:
            self.most, self.where = amount, where


def compare(one: Any, other: Any, where: str = "", into: Difference | None = None) -> Difference:
    into = Difference() if into is None else into
    if type(one) is not type(other):
        into.note(f"{where}: {type(one).__name__} and {type(other).__name__}", math.inf)
    elif isinstance(one, torch.Tensor):
        _compare_tensors(one.detach(), other.detach(), where, into)
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            into.note(f"{where}: {len(one)} and {len(other)} long", math.inf)
        for i, (left, right) in enumerate(zip(one, other, strict=False)):
            compare(left, right, f"{where}[{i}]", into)
    elif isinstance(one, dict):
        if list(one) != list(other):
            into.note(f"{where}: keys {list(one)} and {list(other)}", math.inf)
        for key in one.keys() & other.keys():
            compare(one[key], other[key], f"{where}.{key}", into)
    else:
        into.numbers += 1
        if one != other:
            amount = abs(one - other) if isinstance(one, (int, float)) else math.inf
            into.note(f"{where}: {one!r} and {other!r}", amount)
    return into


def _compare_tensors(one: torch.Tensor, other: torch.Tensor, where: str, into: Difference) -> None:
    if one.shape != other.shape or one.dtype != other.dtype:
        into.note(f"{where}: {one.shape}, {one.dtype} and {other.shape}, {other.dtype}", math.inf)
        return
    into.numbers += one.numel()
    left, right = (t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    if not torch.equal(left, right):
        into.note(where, float((one - other).abs().max()))
