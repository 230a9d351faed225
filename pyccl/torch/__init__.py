"""pyccl as a backend of torch.distributed: `init_process_group("pyccl")`.

    import pyccl.torch
    torch.distributed.init_process_group("pyccl")

Rendezvous is torch's own: torchrun, an init_method or a store. Rank 0 runs the coordinator;
PYCCL_COORDINATOR=host:port uses one that runs already. PYCCL_LISTEN=host:port says on which address
this process is reached.

And for groups whose members come and go, `shared_state()`: a training as state for comm.sync().
"""

from __future__ import annotations

from pyccl.torch.ddp import DDPState, ElasticDDP, ddp_hook
from pyccl.torch.elastic import ElasticGroup
from pyccl.torch.errors import (
    BackendError,
    ClosedError,
    InvalidArgumentError,
    MismatchError,
    OperationTimeout,
    PeerLostError,
)
from pyccl.torch.process_group import ProcessGroup
from pyccl.torch.registration import register
from pyccl.torch.state import shared_state
from pyccl.torch.work import Work

register()

__all__ = [
    "BackendError",
    "ClosedError",
    "DDPState",
    "ElasticDDP",
    "ElasticGroup",
    "InvalidArgumentError",
    "MismatchError",
    "OperationTimeout",
    "PeerLostError",
    "ProcessGroup",
    "Work",
    "ddp_hook",
    "shared_state",
]
