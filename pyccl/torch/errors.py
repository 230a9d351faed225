"""The errors of the package as torch.distributed knows errors.

Each is a DistBackendError, which scripts for torch catch, and the error of the same name in
pyccl.errors. The text names ranks of the process group.
"""

from __future__ import annotations

import re

from torch.distributed import DistBackendError

from pyccl import errors


class BackendError(DistBackendError, errors.PycclError):  # type: ignore[misc]
    """The root of what operations of a process group raise.

    ranks: those of the group that are lost, if any.
    """

    ranks: tuple[int, ...] = ()

    def __init__(
        self, reason: str = "", *, peer: str | None = None, ranks: tuple[int, ...] = ()
    ) -> None:
        super().__init__(reason)
        self.peer = peer
        self.ranks = ranks


class PeerLostError(BackendError, errors.PeerLostError):
    """Members of the group are lost, and with them the group: destroy it and make a new one."""


class OperationTimeout(BackendError, errors.OperationTimeout):  # noqa: N818
    """The group's timeout, or that of the operation, has passed."""


class MismatchError(BackendError, errors.MismatchError):
    """Ranks have called different operations, or the same with different sizes or types."""


class ClosedError(BackendError, errors.ClosedError):
    """The group was destroyed or aborted."""


class InvalidArgumentError(BackendError, errors.InvalidArgumentError):
    """Tensors or options that the operation can't take; nothing was sent."""


_CLASSES: tuple[tuple[type[errors.PycclError], type[BackendError]], ...] = (
    (errors.PeerLostError, PeerLostError),
    (errors.OperationTimeout, OperationTimeout),
    (errors.MismatchError, MismatchError),
    (errors.ClosedError, ClosedError),
    (errors.InvalidArgumentError, InvalidArgumentError),
)


def of_torch(
    error: errors.PycclError,
    where: str,
    ranks: tuple[int, ...] = (),
    peers: tuple[str, ...] = (),
) -> BackendError:
    """The same error for torch; `where` names the operation, `ranks` those that are lost, and
    `peers` are those of the group, by rank."""
    if isinstance(error, BackendError):
        return error
    made = PeerLostError if ranks else BackendError
    for ours, theirs in _CLASSES:
        if isinstance(error, ours):
            made = theirs
            break
    lost = ""
    if ranks:
        lost = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} lost: "

    def name(peer: re.Match[str]) -> str:
        return f"rank {peers.index(peer[1])}" if peer[1] in peers else peer[0]

    # The run has ranks of its own, in the order of joining, which here would name others.
    reason = re.sub(r"peer ([0-9a-f]{16}) \(rank \d+\)", name, str(error))
    return made(f"{where}: {lost}{reason}", peer=error.peer, ranks=ranks)
