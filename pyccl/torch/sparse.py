"""The sum of sparse tensors: everybody's indices and values to everybody, added up by each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pyccl.torch.tensors import as_bytes, row_bytes

if TYPE_CHECKING:
    import pyccl


def sum_sparse(
    group: pyccl.Subgroup, tensor: torch.Tensor, seconds: float, tag: int
) -> torch.Tensor:
    """Of COO tensors of one shape and type; the result is coalesced.

    The values of one place are added in the order of ranks, so all have the same bits.
    """
    mine = tensor.detach().coalesce().cpu()
    indices, values = mine.indices().t().contiguous(), mine.values().contiguous()
    found = torch.empty((group.world_size, 1), dtype=torch.int64, device="cpu")
    count = torch.tensor([indices.shape[0]], device="cpu")
    group.all_gather(count, out=found, timeout=seconds, tag=tag)
    counts = found[:, 0].tolist()
    all_indices = _gathered(group, indices, counts, seconds, tag)
    all_values = _gathered(group, values, counts, seconds, tag)
    summed = torch.sparse_coo_tensor(
        all_indices.t(),
        all_values,
        tensor.shape,
        dtype=tensor.dtype,
        device="cpu",
        check_invariants=True,
    )
    return summed.coalesce().to(tensor.device)


def _gathered(
    group: pyccl.Subgroup, rows: torch.Tensor, counts: list[int], seconds: float, tag: int
) -> torch.Tensor:
    out = torch.empty((sum(counts), *rows.shape[1:]), dtype=rows.dtype, device="cpu")
    row = row_bytes(rows)
    group.all_gather(
        as_bytes(rows), out=as_bytes(out), counts=[count * row for count in counts],
        timeout=seconds, tag=tag,
    )  # fmt: skip
    return out
