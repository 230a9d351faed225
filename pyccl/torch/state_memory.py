"""The tensors of a training as named memory for shared state.

Dense CPU tensors lend their own memory, also where its order is not that of their dimensions. All
others have a mirror: a dense copy in CPU memory that is read from them and written back to them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.torch.tensors import as_bytes, plain

Get = Callable[[], Any]
Put = Callable[[torch.Tensor], None]

# What the core has names for; all else is moved as integers of its size.
_NAMED = {
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.complex64, torch.complex128,
}  # fmt: skip
_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
_CHANNELS_LAST: dict[int, tuple[torch.memory_format, tuple[int, ...]]] = {
    4: (torch.channels_last, (0, 2, 3, 1)),
    5: (torch.channels_last_3d, (0, 2, 3, 4, 1)),
}
# There are 720 orders of six dimensions; beyond that a tensor in another order gets a mirror.
_DIMENSIONS_MAX = 6


def local(tensor: Any, name: str) -> torch.Tensor:
    """What this process holds of a tensor: the shard of a DTensor, else the tensor itself."""
    if _is_plain(tensor):
        return tensor.detach()
    if not isinstance(tensor, torch.Tensor):
        raise InvalidTypeError(f"{name!r} is of type {type(tensor).__name__}, not a tensor")
    if torch.nn.parameter.is_lazy(tensor):
        raise InvalidArgumentError(f"{name!r} has no shape yet: call the model once before")
    if hasattr(tensor, "to_local"):
        with torch.no_grad():
            return tensor.to_local().detach()
    if is_traceable_wrapper_subclass(tensor):
        raise InvalidTypeError(
            f"{name!r} is a {type(tensor).__name__}, which has no memory of its own to share"
        )
    return tensor.detach()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Of tensors of one type and shape without gaps."""
    return bool(torch.equal(as_bytes(one), as_bytes(other)))


def mirror_of(tensor: torch.Tensor) -> torch.Tensor:
    """Memory on the CPU, without gaps, for such a tensor."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def lent(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor's own memory as one without gaps, of a type that the core knows; else None."""
    if tensor.device.type != "cpu" or tensor.is_conj() or tensor.is_neg():
        return None
    order = _order_in_memory(tensor)
    if order is None:
        return None
    moved = tensor.permute(order)
    # All that a member sees of another's order is the shape; it must stand for one order only.
    if order != _order_meant(tuple(tensor.shape), tuple(moved.shape)):
        return None
    return named(moved)


def named(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype in _NAMED:
        return tensor
    return tensor.view(_OF_SIZE[tensor.element_size()])


def _order_in_memory(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The dimensions from the widest stride to the narrowest, if there are no gaps."""
    count = tensor.dim()
    if tensor.is_contiguous():
        return tuple(range(count))
    if count in _CHANNELS_LAST:
        form, order = _CHANNELS_LAST[count]
        if tensor.is_contiguous(memory_format=form):
            return order
    order = tuple(sorted(range(count), key=lambda i: -tensor.stride(i)))
    return order if tensor.permute(order).is_contiguous() else None


@functools.lru_cache(maxsize=256)
def _order_meant(shape: tuple[int, ...], moved: tuple[int, ...]) -> tuple[int, ...] | None:
    """The first of the orders by which a tensor of that shape looks like `moved`."""
    count = len(shape)
    first = [tuple(range(count))]
    if count in _CHANNELS_LAST:
        first.append(_CHANNELS_LAST[count][1])
    every = itertools.permutations(range(count)) if count <= _DIMENSIONS_MAX else iter(())
    orders = itertools.chain(first, every)
    return next((one for one in orders if tuple(shape[i] for i in one) == moved), None)


class _Place:
    """Where a tensor is kept, and the memory that stands for it."""

    __slots__ = ("address", "found", "get", "memory", "mirror", "name", "plain", "put", "tensor")

    def __init__(self, name: str, get: Get, put: Put | None) -> None:
        self.name = name
        self.get = get
        self.put = put
        self.found = get()
        self.tensor = local(self.found, name)
        _check(self.tensor, name)
        self.address = self.tensor.data_ptr()
        own = lent(self.tensor)
        self.mirror = mirror_of(self.tensor) if own is None else None
        self.memory = named(self.mirror) if own is None else own
        self.plain = own is not None and _is_plain(self.found)

    def check(self) -> None:
        """Whether it is where it was."""
        if self.get() is not self.found or _address(self.found) != self.address:
            raise self._replaced()

    def tie(self) -> None:
        """The same of one that goes by another's name. What was put in the place of both is right
        if it is what the other has."""
        now = self.get()
        other = now is not self.found and isinstance(now, torch.Tensor)
        if other and self.put is not None and now.dtype == self.tensor.dtype:
            if not torch.equal(local(now, self.name), self.tensor):
                raise self._replaced()
            self.put(self.found)
        self.check()

    def gather(self) -> None:
        now = self.get()
        if now is self.found and self.mirror is None:
            return self.check()
        if not isinstance(now, torch.Tensor):
            raise self._replaced()
        tensor = local(now, self.name)
        if tensor.shape != self.tensor.shape or tensor.dtype != self.tensor.dtype:
            raise self._replaced()
        if self.mirror is not None:
            self.mirror.copy_(tensor)
        elif self.put is None or _address(self.found) != self.address:
            raise self._replaced()
        else:
            # As load_state_dict() of an optimizer does. The memory that is shared stays the same.
            self.tensor.copy_(tensor)
            self.put(self.found)

    def scatter(self) -> None:
        if self.mirror is None:
            return
        tensor = local(self.get(), self.name)
        if not same_bits(torch.empty_like(self.mirror).copy_(tensor), self.mirror):
            tensor.copy_(self.mirror)

    def _replaced(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.name!r} is not the tensor that it was when the state was made: change tensors "
            "in place, or make the state anew"
        )


def _address(tensor: Any) -> int:
    return int(local(tensor, "").data_ptr())


def _is_plain(tensor: Any) -> bool:
    return type(tensor) is torch.nn.Parameter or type(tensor) is torch.Tensor


def _check(tensor: torch.Tensor, name: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InvalidArgumentError(f"{name!r} is not dense, but {tensor.layout}, {tensor.dtype}")
    if tensor.device.type == "meta":
        raise InvalidArgumentError(f"{name!r} has no memory: it is on the meta device")
    strides = tensor.stride()
    expanded = 0 in strides and any(
        size > 1 and stride == 0 for size, stride in zip(tensor.shape, strides, strict=True)
    )
    if expanded and tensor.numel() > 0:
        raise InvalidArgumentError(f"{name!r} is expanded: several elements have one memory")


class Tensors:
    """Named tensors, each memory once."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._known: set[tuple[Any, ...]] = set()
        self._ties: list[_Place] = []

    def add(self, name: str, get: Get, put: Put | None = None) -> None:
        """get: gives the tensor that is there. put: sets another one in its place, where that is
        allowed.

        One with the memory of an earlier one, as of tied weights, goes by that one's name.
        """
        place = _Place(name, get, put)
        memory = _memory(place.tensor)
        if memory in self._known:
            self._ties.append(place)
            return
        if memory is not None:
            self._known.add(memory)
        if name in self._places:
            raise InvalidArgumentError(f"two tensors would be called {name!r}")
        self._places[name] = place

    def arrays(self) -> Iterator[tuple[str, torch.Tensor]]:
        _check_apart(list(self._places.values()))
        for name, place in self._places.items():
            yield name, place.memory

    def gather(self) -> None:
        for place in self._places.values():
            found = place.found
            # The rule, and quick: there are many of them.
            if place.plain and place.get() is found and found.data_ptr() == place.address:
                continue
            place.gather()
        for tie in self._ties:
            tie.tie()

    def scatter(self) -> None:
        for place in self._places.values():
            place.scatter()


def _memory(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """What two tensors have in common that have all of their memory in common."""
    if tensor.numel() == 0:
        return None
    where = tensor.device, tensor.data_ptr()
    if _order_in_memory(tensor) is not None:
        return *where, tensor.numel() * tensor.element_size()
    return *where, tensor.dtype, tuple(tensor.shape), tensor.stride()


def _end(tensor: torch.Tensor) -> int:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in sizes)
    return int(tensor.data_ptr() + (last + 1) * tensor.element_size())


def _check_apart(places: list[_Place]) -> None:
    held = [one for one in places if one.tensor.numel() > 0]
    held.sort(key=lambda one: (str(one.tensor.device), one.address))
    for i, one in enumerate(held):
        end = _end(one.tensor)
        for other in itertools.islice(held, i + 1, None):
            if other.tensor.device != one.tensor.device or other.address >= end:
                break
            if not _interleaved(one.tensor, other.tensor):
                raise InvalidArgumentError(
                    f"{one.name!r} and {other.name!r} have a part of their memory in common"
                )


def _interleaved(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether tensors have no byte in common although they begin in between each other, as columns
    of one matrix do."""
    if plain(first) and plain(second):
        return False
    start = first.data_ptr()
    marks = torch.zeros(max(_end(first), _end(second)) - start, dtype=torch.bool, device="cpu")

    def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.element_size()
        strides = [stride * size for stride in tensor.stride()]
        return marks.as_strided((*tensor.shape, size), (*strides, 1), tensor.data_ptr() - start)

    bytes_of(first).fill_(True)
    return not bool(bytes_of(second).any())
