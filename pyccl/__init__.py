"""pyccl: fault-tolerant collective communication for groups whose membership changes.

    import numpy as np, pyccl

    with pyccl.connect("127.0.0.1:48148") as comm:
        x = np.ones(1000, np.float32)
        info = comm.all_reduce(x)        # x is now the sum over info.world_size members

`pyccl coordinator` on the command line, or pyccl.Coordinator, gives the address to connect to.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pyccl.arrays import ArrayLike
from pyccl.communicator import Communicator, View, connect
from pyccl.coordinator import Coordinator
from pyccl.error_feedback import ErrorFeedback
from pyccl.errors import (
    AddressInUseError,
    CancelledError,
    ClosedError,
    CoordinatorUnavailableError,
    EvictedError,
    InvalidArgumentError,
    InvalidTypeError,
    LimitExceededError,
    MismatchError,
    NotAdmittedError,
    OperationTimeout,
    PeerLostError,
    ProtocolError,
    PycclError,
    StateFileError,
    StateSyncError,
    TransportError,
)
from pyccl.quantization import Quantization
from pyccl.shared_state import Behind, Refuted, SharedState, Source, SyncInfo
from pyccl.subgroup import Subgroup
from pyccl.work import Epoch, OperationInfo, Work

if TYPE_CHECKING:
    from pyccl import diagnostics, optim
else:

    def __getattr__(name):
        """What most programs do not need, for those that have only imported pyccl."""
        if name in ("diagnostics", "optim"):
            return importlib.import_module(f"pyccl.{name}")
        raise AttributeError(f"module 'pyccl' has no attribute {name!r}")


try:
    __version__ = version("pyccl-ft")
except PackageNotFoundError:  # run out of a source tree that was never installed
    __version__ = "unknown"

__all__ = [
    "AddressInUseError",
    "ArrayLike",
    "Behind",
    "CancelledError",
    "ClosedError",
    "Communicator",
    "Coordinator",
    "CoordinatorUnavailableError",
    "Epoch",
    "ErrorFeedback",
    "EvictedError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "LimitExceededError",
    "MismatchError",
    "NotAdmittedError",
    "OperationInfo",
    "OperationTimeout",
    "PeerLostError",
    "ProtocolError",
    "PycclError",
    "Quantization",
    "Refuted",
    "SharedState",
    "Source",
    "StateFileError",
    "StateSyncError",
    "Subgroup",
    "SyncInfo",
    "TransportError",
    "View",
    "Work",
    "connect",
    "diagnostics",
    "optim",
]
