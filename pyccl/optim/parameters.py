"""The parameters of torch that an outer optimizer has: which, under which names, and how they come
to a flat vector of fp32 and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim.layout import F32

_ALL = slice(None)


class Parameters:
    """Trainable tensors, each once.

    given: tensors, (name, tensor) pairs as of named_parameters(), or param groups. Tensors without
        names are called by their place. What is tied is taken once, under its first name; what
        needs no gradient, or is empty, is left out. Of a DTensor the shard of this rank.

    Raises InvalidTypeError and InvalidArgumentError.
    """

    def __init__(self, given: Iterable[Any]) -> None:
        self.names: list[str] = []
        self.tensors: list[torch.Tensor] = []
        seen: set[Any] = set()
        for name, tensor in _named(given):
            if not isinstance(tensor, torch.Tensor):
                raise InvalidTypeError(
                    f"parameter {name!r} is of type {type(tensor).__name__}, not a tensor"
                )
            local = _local(tensor)
            if not tensor.requires_grad or local.numel() == 0:
                continue
            if not tensor.is_floating_point():
                raise InvalidTypeError(
                    f"parameter {name!r} is of {tensor.dtype}, but must be of floating point"
                )
            key = _memory_of(local)
            if key not in seen:
                seen.add(key)
                self.names.append(name)
                self.tensors.append(tensor)
        if not self.tensors:
            raise InvalidArgumentError("there are no parameters that need a gradient")

    def arrange(self, fragments: Sequence[Sequence[str]], what: str = "fragment") -> None:
        """Puts them into the order of fragments, each a sequence of names. Raises
        InvalidArgumentError unless each parameter is in exactly one of them."""
        named = [name for fragment in fragments for name in fragment]
        unknown = [name for name in named if name not in self.names]
        missing = [name for name in self.names if name not in named]
        if unknown or missing or len(named) != len(self.names) or not all(map(len, fragments)):
            raise InvalidArgumentError(
                f"each parameter must be in exactly one {what}, and each {what} have some; "
                f"unknown: {unknown[:8]}, in none: {missing[:8]}, named: {len(named)} of "
                f"{len(self.names)}"
            )
        places = {name: place for place, name in enumerate(self.names)}
        self.tensors = [self.tensors[places[name]] for name in named]
        self.names = named

    def arrays(self) -> list[F32]:
        """Copies of all, in fp32."""
        return [
            _local(one).detach().to("cpu", torch.float32).numpy().copy() for one in self.tensors
        ]

    def check(self, given: Iterable[torch.Tensor]) -> None:
        """Raises InvalidArgumentError unless these are among `given`."""
        theirs = {_memory_of(_local(one)) for one in given if isinstance(one, torch.Tensor)}
        missing = [name for name, one in self._items() if _memory_of(_local(one)) not in theirs]
        if missing:
            raise InvalidArgumentError(
                "the inner optimizer does not have these parameters: " + ", ".join(missing[:8])
            )

    def subtract_from(
        self, start: Sequence[F32], target: Sequence[F32], part: slice = _ALL
    ) -> None:
        """target = start - these, in fp32. Of narrower types the start is rounded to them first,
        as write() does it.

        part: of which of the tensors, by place; start and target are of those.
        """
        with torch.no_grad():
            for one, begin, out in zip(self.tensors[part], start, target, strict=True):
                local = _local(one).detach()
                first = torch.from_numpy(begin)
                if local.element_size() < 4:
                    first = first.to(local.dtype).float()
                learned = torch.from_numpy(out)
                learned.copy_(local)  # straight to where it is needed: fresh memory is slow
                torch.sub(first, learned, out=learned)

    def read(self, start: Sequence[F32], target: Sequence[F32]) -> None:
        """target = these, in fp32. Of narrower types the start and what they have moved from where
        write() put them, so that nothing learned is no change."""
        with torch.no_grad():
            for one, begin, out in zip(self.tensors, start, target, strict=True):
                local, first = _local(one).detach(), torch.from_numpy(begin)
                into = torch.from_numpy(out)
                into.copy_(local)
                if local.dtype.itemsize < 4:
                    into.sub_(first.to(local.dtype).float()).add_(first)

    def write(self, values: Sequence[F32]) -> None:
        """Puts the values into the tensors, in place and rounded to their types."""
        with torch.no_grad():
            for one, value in zip(self.tensors, values, strict=True):
                _local(one).copy_(torch.from_numpy(value))

    def merge(self, values: Sequence[F32], kept: float, part: slice) -> None:
        """kept * these + (1 - kept) * values, in fp32 and rounded to their types, in place."""
        with torch.no_grad():
            for one, value in zip(self.tensors[part], values, strict=True):
                local, other = _local(one), torch.from_numpy(value)
                if kept > 0:
                    mine = local.detach().to("cpu", torch.float32)
                    mixed = kept * mine + (1 - kept) * other
                    # What is spoiled would stay so.
                    other = torch.where(mine.isfinite(), mixed, other)
                local.copy_(other)

    def clone(self) -> list[torch.Tensor]:
        return [_local(one).detach().clone() for one in self.tensors]

    def restore(self, saved: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for one, value in zip(self.tensors, saved, strict=True):
                _local(one).copy_(value)

    def _items(self) -> Iterator[tuple[str, torch.Tensor]]:
        return zip(self.names, self.tensors, strict=True)


def _named(given: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(given, torch.Tensor):
        raise InvalidTypeError("params is a single tensor, but must be a sequence of them")
    if isinstance(given, (dict, torch.nn.Module)) or not isinstance(given, Iterable):
        raise InvalidTypeError(
            f"params is of type {type(given).__name__}; give model.parameters(), "
            "model.named_parameters() or param groups"
        )
    place = 0
    for one in given:
        inside = one["params"] if isinstance(one, dict) else [one]
        for each in [inside] if isinstance(inside, torch.Tensor) else inside:
            if isinstance(each, tuple):
                yield str(each[0]), each[1]
            else:
                yield str(place), each
            place += 1


def _local(tensor: torch.Tensor) -> torch.Tensor:
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _memory_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
