"""The memory of tensors for one operation: lent where it is fit, else that of copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pyccl.torch.errors import InvalidArgumentError
from pyccl.torch.tensors import as_bytes, behind_each_other, check_dense, plain, readable


class Lent:
    """Copies that have to be carried back when the operation has succeeded."""

    def __init__(self) -> None:
        self._back: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._then: Callable[[], None] | None = None

    def read(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Its numbers, in CPU memory without gaps."""
        check_dense(tensor, what)
        return readable(tensor).cpu()

    def write(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Memory for its numbers; what it holds does not matter."""
        _check_writable(tensor, what)
        if _fit(tensor):
            return tensor.detach()
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        self._back.append((tensor.detach(), copy))
        return copy

    def change(self, tensor: torch.Tensor, what: str = "the tensor") -> torch.Tensor:
        """Memory with its numbers, for an operation in place."""
        _check_writable(tensor, what)
        if _fit(tensor):
            return tensor.detach()
        copy = readable(tensor).cpu()
        if copy.data_ptr() == tensor.data_ptr():
            copy = copy.clone()
        self._back.append((tensor.detach(), copy))
        return copy

    def read_all(self, tensors: Sequence[torch.Tensor], what: str = "the tensors") -> torch.Tensor:
        """The numbers of all of them behind each other, as bytes."""
        for i, one in enumerate(tensors):
            check_dense(one, f"{what}[{i}]")
        together = behind_each_other(tensors) if _on_cpu(tensors) else None
        if together is not None:
            return together
        return torch.cat([as_bytes(readable(one).cpu()) for one in tensors])

    def write_all(self, tensors: Sequence[torch.Tensor], what: str = "the tensors") -> torch.Tensor:
        """Memory for the numbers of all of them behind each other, as bytes."""
        for i, one in enumerate(tensors):
            _check_writable(one, f"{what}[{i}]")
        together = behind_each_other(tensors) if _on_cpu(tensors) else None
        if together is not None:
            return together
        sizes = [one.numel() * one.element_size() for one in tensors]
        copy = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu")
        for tensor, piece in zip(tensors, copy.split(sizes), strict=True):
            self._back.append((tensor.detach(), piece))
        return copy

    def then(self, step: Callable[[], None]) -> None:
        """To be done when the tensors hold what the operation gives."""
        self._then = step

    @property
    def finish(self) -> Callable[[], None] | None:
        """What is left to be done behind the operation."""
        return self._end if self._back or self._then else None

    def _end(self) -> None:
        # Whoever does this may be on another thread than the caller, in whose mode tensors may have
        # been made; in this one all can be written.
        with torch.inference_mode():
            self._carry_back()
            if self._then is not None:
                self._then()

    def _carry_back(self) -> None:
        for tensor, copy in self._back:
            if copy.dtype == tensor.dtype and copy.shape == tensor.shape:
                tensor.copy_(copy)
            else:  # a piece, which may lie at any byte, where no number of that type may
                tensor.copy_(copy.clone().view(tensor.dtype).view(tensor.shape))


def _check_writable(tensor: torch.Tensor, what: str) -> None:
    check_dense(tensor, what)
    if any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    ):
        raise InvalidArgumentError(
            f"{what} has several elements in one place (it was expanded): make it contiguous"
        )


def _fit(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and plain(tensor)


def _on_cpu(tensors: Sequence[torch.Tensor]) -> bool:
    return all(one.device.type == "cpu" for one in tensors)
