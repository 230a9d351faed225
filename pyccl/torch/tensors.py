"""Tensors as the memory that an operation of the core works on.

Dense CPU tensors without gaps are taken as they are. Others go through a copy: strided ones, those
of other devices, and lists where the core wants one array. What is only moved may be of any type;
what is computed with is taken as the numbers that it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.distributed import ReduceOp

from pyccl.torch.errors import InvalidArgumentError

# As the core computes with them. The others have no sum, or torch has no arithmetic for them.
_REDUCED = {
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
}  # fmt: skip
_OPS = {
    ReduceOp.SUM: "sum",
    ReduceOp.AVG: "avg",
    ReduceOp.PRODUCT: "prod",
    ReduceOp.MIN: "min",
    ReduceOp.MAX: "max",
    ReduceOp.BAND: "band",
    ReduceOp.BOR: "bor",
    ReduceOp.BXOR: "bxor",
    ReduceOp.PREMUL_SUM: "sum",
}
# True is 1 and False is 0, and every result must be one of both: 1 + 1 is 1.
_OPS_OF_BOOL = {"sum": "bor", "max": "bor", "prod": "band", "min": "band"}
# The core has no averages of these; NCCL has, and so there are programs that take them.
_DIVIDED = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_OPS_OF_COMPLEX = ("sum", "avg")


def check_dense(tensor: torch.Tensor, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgumentError(f"{what} is of type {type(tensor).__name__}, not a tensor")
    if tensor.layout != torch.strided:
        raise InvalidArgumentError(
            f"{what} is sparse ({tensor.layout}); only all_reduce takes that"
        )


def readable(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in memory without gaps: the tensor itself where that is so."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def plain(tensor: torch.Tensor) -> bool:
    """Whether the core may write the tensor's own memory."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor without gaps, flat, as bytes; for what is only moved."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def as_moved(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor without gaps, flat, in its own type where the core knows it: then it
    tells of ranks that mean different ones."""
    return tensor.detach().reshape(-1) if tensor.dtype in _REDUCED else as_bytes(tensor)


def as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor without gaps, flat, as what the core computes with."""
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.bool:
        return flat.view(torch.uint8)
    if flat.is_complex():
        return torch.view_as_real(flat).reshape(-1)
    if flat.dtype not in _REDUCED:
        raise InvalidArgumentError(f"tensors of {tensor.dtype} can be moved, but not be reduced")
    return flat


def op_of(op: ReduceOp | ReduceOp.RedOpType, dtype: torch.dtype) -> str:
    """The core's name for a reduction of such numbers."""
    kind = _kind_of(op)
    name = _OPS.get(kind)
    if name is None:
        raise InvalidArgumentError(f"{kind} is no reduction that pyccl knows")
    floating = dtype.is_floating_point or dtype.is_complex
    if dtype == torch.bool:
        name = _OPS_OF_BOOL.get(name, name)
    if dtype.is_complex and name not in _OPS_OF_COMPLEX:
        raise InvalidArgumentError(f"{name} of complex numbers is not defined; sum and avg are")
    if name == "avg" and not floating:
        raise InvalidArgumentError(f"avg is not for {dtype} here")
    if name in ("band", "bor", "bxor") and floating:
        raise InvalidArgumentError(f"{name} is for integers and bool only, not for {dtype}")
    return name


def divides(op: ReduceOp | ReduceOp.RedOpType, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether this is an average that is made of a sum: one of whole numbers."""
    return _kind_of(op) == ReduceOp.AVG and all(one.dtype in _DIVIDED for one in tensors)


def factor_of(op: ReduceOp | ReduceOp.RedOpType) -> float | torch.Tensor | None:
    """What PREMUL_SUM multiplies by before it adds; else None."""
    if _kind_of(op) != ReduceOp.PREMUL_SUM:
        return None
    factor: float | torch.Tensor | None = op.__getstate__()[1]
    if factor is None:
        raise InvalidArgumentError("PREMUL_SUM without a factor: make it by _make_nccl_premul_sum")
    return factor


def _kind_of(op: ReduceOp | ReduceOp.RedOpType) -> ReduceOp.RedOpType:
    return op if isinstance(op, ReduceOp.RedOpType) else op.__getstate__()[0]


def behind_each_other(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Their memory as bytes, if all of it is one piece in this order, as chunks of one tensor are;
    else None."""
    if not all(plain(one) and one.device == tensors[0].device for one in tensors):
        return None
    kept = [one.detach() for one in tensors if one.numel() > 0]
    if not kept:
        return None
    first = kept[0]
    storage = first.untyped_storage()
    at = first.data_ptr()
    for one in kept:
        if one.data_ptr() != at or one.untyped_storage().data_ptr() != storage.data_ptr():
            return None
        at += one.numel() * one.element_size()
    begin = first.data_ptr() - storage.data_ptr()
    whole = torch.empty(0, dtype=torch.uint8, device=first.device)
    return whole.set_(storage, begin, (at - first.data_ptr(),))


def split_sizes(given: Sequence[int], rows: int, world: int, what: str) -> list[int]:
    """Rows by rank: as given, or all alike."""
    if given:
        sizes = [int(one) for one in given]
        if len(sizes) != world:
            raise InvalidArgumentError(
                f"Number of tensor splits not equal to group size: {len(sizes)} in {what}, but "
                f"the group has {world} ranks"
            )
        if sum(sizes) != rows or min(sizes) < 0:
            raise InvalidArgumentError(
                f"Split sizes doesn't match total dim 0 size: {what} are {sizes}, but the tensor "
                f"has {rows} rows"
            )
        return sizes
    if rows % world != 0:
        raise InvalidArgumentError(
            f"Tensor's dim 0 does not divide equally across group size: {rows} rows, {world} ranks"
        )
    return [rows // world] * world


def row_bytes(tensor: torch.Tensor) -> int:
    """Bytes of one row, a step in the first dimension."""
    return int(math.prod(tensor.shape[1:]) * tensor.element_size())
