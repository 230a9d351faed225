"""The memory of tensors for one operation: lent where it is fit, else that of copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pyccl.torch import staging
from pyccl.torch.errors import InvalidArgumentError
from pyccl.torch.staging import Copies
from pyccl.torch.tensors import as_bytes, behind_each_other, check_dense, plain, readable


class Lent:
    """Copies that have to be carried back when the operation has succeeded."""

    def __init__(self) -> None:
        self.copies: Copies | None = None
        """Those of a device, which may be under way; None: all of the memory is the CPU's."""
        self._back: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._first: Callable[[], None] | None = None
        self._then: Callable[[], None] | None = None
        self._joined: list[torch.Tensor] = []

    def read(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Its numbers, in CPU memory without gaps."""
        check_dense(tensor, what)
        source = readable(tensor)
        return self._fetched(source) if staging.elsewhere(source) else source

    def write(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Memory for its numbers; what it holds does not matter."""
        check_writable(tensor, what)
        if _fit(tensor):
            return tensor.detach()
        copy = self._room([tensor], tensor.shape, tensor.dtype)
        self._back.append((tensor.detach(), copy))
        return copy

    def change(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Memory with its numbers, for an operation in place."""
        check_writable(tensor, what)
        if _fit(tensor):
            return tensor.detach()
        copy = readable(tensor)
        if staging.elsewhere(copy):
            copy = self._fetched(copy)
        elif copy.data_ptr() == tensor.data_ptr():
            copy = copy.clone()
        self._back.append((tensor.detach(), copy))
        return copy

    def read_all(self, tensors: Sequence[torch.Tensor], what: str = "the tensors") -> torch.Tensor:
        """The numbers of all of them behind each other, as bytes."""
        for i, one in enumerate(tensors):
            check_dense(one, f"{what}[{i}]")
        together = behind_each_other(tensors)
        if together is not None:
            return self._fetched(together) if staging.elsewhere(together) else together
        sources = [as_bytes(readable(one)) for one in tensors]
        if not any(staging.elsewhere(one) for one in sources):
            return torch.cat(sources)
        sizes = [one.numel() for one in sources]
        room = self._room(sources, torch.Size([sum(sizes)]), torch.uint8)
        for source, piece in zip(sources, room.split(sizes), strict=True):
            assert self.copies is not None
            self.copies.fetch(source, piece)
        return room

    def write_all(self, tensors: Sequence[torch.Tensor], what: str = "the tensors") -> torch.Tensor:
        """Memory for the numbers of all of them behind each other, as bytes."""
        for i, one in enumerate(tensors):
            check_writable(one, f"{what}[{i}]")
        together = behind_each_other(tensors)
        if together is not None and not staging.elsewhere(together):
            return together
        sizes = [one.numel() * one.element_size() for one in tensors]
        room = self._room(tensors, torch.Size([sum(sizes)]), torch.uint8)
        for tensor, piece in zip(tensors, room.split(sizes), strict=True):
            self._back.append((tensor.detach(), piece))
        return room

    def first(self, step: Callable[[], None]) -> None:
        """To be done when the operation has succeeded, before what it gives is carried back."""
        self._first = step

    def then(self, step: Callable[[], None]) -> None:
        """To be done when the tensors hold what the operation gives."""
        self._then = step

    def join(self, tensor: torch.Tensor) -> None:
        """What is done behind the operation is done by the device of the tensor, behind what other
        parts of it put there."""
        self._copies_of(tensor)
        self._joined.append(tensor.detach())

    @property
    def finish(self) -> Callable[[], None] | None:
        """What is left to be done behind the operation."""
        ends = self._back or self._first or self._then or self._joined
        return self._end if ends else None

    def _room(
        self, tensors: Sequence[torch.Tensor], shape: torch.Size, dtype: torch.dtype
    ) -> torch.Tensor:
        """CPU memory for what these tensors hold."""
        copies = [self._copies_of(one) for one in tensors if staging.elsewhere(one)]
        if copies:
            return copies[0].stream.pinned(shape, dtype)
        return torch.empty(shape, dtype=dtype, device="cpu")

    def _fetched(self, source: torch.Tensor) -> torch.Tensor:
        target = self._room([source], source.shape, source.dtype)
        self._copies_of(source).fetch(source, target)
        return target

    def _copies_of(self, tensor: torch.Tensor) -> Copies:
        stream = staging.stream_of(tensor.device)
        if self.copies is None:
            self.copies = Copies(stream)
        if self.copies.stream is not stream:
            raise InvalidArgumentError("the tensors of one operation must be on one device")
        return self.copies

    def _end(self) -> None:
        # Whoever does this may be on another thread than the caller, in whose mode tensors may have
        # been made; in this one all can be written.
        with torch.inference_mode():
            if self._first is not None:
                self._first()
            if self.copies is None:
                self._carry_back()
            else:
                changed = [tensor for tensor, _ in self._back] + self._joined
                self.copies.put(changed, self._carry_back)

    def _carry_back(self) -> None:
        for tensor, copy in self._back:
            if copy.dtype == tensor.dtype and copy.shape == tensor.shape:
                _unflagged(tensor, copy).copy_(copy, non_blocking=True)
            elif plain(tensor):
                as_bytes(tensor).copy_(copy, non_blocking=True)
            else:  # a piece, which may lie at any byte, where no number of that type may
                tensor.copy_(copy.clone().view(tensor.dtype).view(tensor.shape))
        if self._then is not None:
            self._then()


def check_writable(tensor: torch.Tensor, what: str) -> None:
    check_dense(tensor, what)
    if any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    ):
        raise InvalidArgumentError(
            f"{what} has several elements in one place (it was expanded): make it contiguous"
        )


def _unflagged(tensor: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """The memory of a conjugate or negative view, and in `copy` what is to stand there. torch would
    do that on the device, behind the copy, and on a busy one that was seen to get lost."""
    if tensor.is_conj():
        tensor = tensor.conj()
        copy.conj_physical_()
    if tensor.is_neg():
        tensor = torch._neg_view(tensor)
        copy.neg_()
    return tensor


def _fit(tensor: torch.Tensor) -> bool:
    return not staging.elsewhere(tensor) and plain(tensor)
