"""The same ranks do the same with gloo and with pyccl, and compare what they hold then.

Jobs for forge.py. A case is a function of nothing but its ranks; it gives numbers, tensors, and
lists and dicts of those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import exchanges
import training
from forge import Rank
from torch import distributed as dist
from trees import Difference, compare

CASES: dict[str, Callable[[Rank], Any]] = {**training.CASES, **exchanges.CASES}


def both(rank: Rank) -> None:
    """Reports how far what pyccl gives is from what the reference gives."""
    case = CASES[rank.arguments["case"]]
    found = []
    for number, backend in enumerate((rank.arguments["reference"], "pyccl")):
        store = rank.store(number, rank.world, rank.rank == 0)
        dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world)
        found.append(case(rank))
        # Nobody leaves, with the store maybe, while others are still at it.
        dist.barrier()
        dist.destroy_process_group()
    difference: Difference = compare(*found)
    rank.report(compared=difference.numbers, most=difference.most, where=difference.where,
                bitwise=difference.bitwise)  # fmt: skip
