"""Optimizers that hardly communicate: DiLoCo for torch, and the numpy core that it is made of.

`outer`, `gossip`, `staleness`, `penalty` and `numpy` need no torch; the optimizers of torch are
loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pyccl.optim import numpy
from pyccl.optim.gossip import NoLoCoState
from pyccl.optim.outer import OuterState
from pyccl.optim.report import Share, SyncReport
from pyccl.optim.schedule import StreamingSchedule
from pyccl.optim.staleness import adaptive_penalty

if TYPE_CHECKING:
    from pyccl.optim.co2 import CO2
    from pyccl.optim.delayed import DelayedDiLoCo, delayed_lr_max
    from pyccl.optim.diloco import DiLoCo
    from pyccl.optim.edit import EDiT
    from pyccl.optim.noloco import NoLoCo
    from pyccl.optim.streaming import StreamingDiLoCo

_OF_TORCH = {
    "CO2": "co2",
    "DelayedDiLoCo": "delayed",
    "DiLoCo": "diloco",
    "EDiT": "edit",
    "NoLoCo": "noloco",
    "StreamingDiLoCo": "streaming",
    "delayed_lr_max": "delayed",
}

__all__ = [
    "CO2",
    "DelayedDiLoCo",
    "DiLoCo",
    "EDiT",
    "NoLoCo",
    "NoLoCoState",
    "OuterState",
    "Share",
    "StreamingDiLoCo",
    "StreamingSchedule",
    "SyncReport",
    "adaptive_penalty",
    "delayed_lr_max",
    "numpy",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_OF_TORCH[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs torch: pip install 'pyccl-ft[torch]'", name="torch"
        ) from error


def __dir__() -> list[str]:
    there = set(globals()) | set(_OF_TORCH)
    # Who goes through all that there is should not meet an error.
    return sorted(there if find_spec("torch") else there - set(_OF_TORCH))
