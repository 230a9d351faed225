"""What can go wrong, as a tree of exceptions under one root.

The text of an error says what happened, names ranks and operations where there are any, and where
something can be done about it, says what.
"""

from __future__ import annotations

from pyccl import _core


class PycclError(Exception):
    """The root of all errors of this package.

    `peer` is the id (16 hex digits) of the peer at fault where there is one, else None.
    """

    peer: str | None = None

    def __init__(self, reason: str = "", *, peer: str | None = None) -> None:
        super().__init__(reason)
        self.peer = peer


class InvalidArgumentError(PycclError, ValueError):
    """The caller's fault; nothing was sent and nobody else was harmed."""


class InvalidTypeError(InvalidArgumentError, TypeError):
    """An argument is no array, or its elements are of a type that can't be reduced."""


class MismatchError(PycclError):
    """Peers called the same operation with different sizes, types or options.

    Raised on all of them; the text names both ranks and both descriptions.
    """


class PeerLostError(PycclError):
    """A peer died during an operation with `on_loss="raise"`. Raised on all survivors."""


class OperationTimeout(PycclError, TimeoutError):  # noqa: N818 - the name is fixed
    """A deadline passed; the text names the ranks that had not arrived."""


class CoordinatorUnavailableError(PycclError):
    """The coordinator can't be reached and is needed."""


class NotAdmittedError(PycclError):
    """The coordinator or the members refused this peer; the text says why."""


class EvictedError(PycclError):
    """The others went on without this peer. Connect again to take part as a new one."""


class CancelledError(PycclError):
    """The operation was given up by a caller, here or elsewhere."""


class ClosedError(PycclError):
    """Used after leave() or close()."""


class AddressInUseError(PycclError):
    """Somebody else listens there."""


class LimitExceededError(PycclError):
    """One of the library's bounds was reached, for example too many open operations."""


class ProtocolError(PycclError):
    """The other side does not speak this version of pyccl."""


class TransportError(PycclError):
    """The operating system refused something: a name that can't be resolved, a file, a socket."""


class StateSyncError(PycclError):
    """The members' shared states can't be brought to one; the text names ranks and tensors.

    Raised on all of them. What each of them holds then, SharedState says.
    """


class StateFileError(PycclError, ValueError):
    """A snapshot of a shared state is damaged, truncated, of a later version, or none at all. The
    text names the file and the place."""


_CLASSES: dict[str, type[PycclError]] = {
    "invalid_argument": InvalidArgumentError,
    "mismatch": MismatchError,
    "peer_lost": PeerLostError,
    "timeout": OperationTimeout,
    "coordinator_unavailable": CoordinatorUnavailableError,
    "not_admitted": NotAdmittedError,
    "evicted": EvictedError,
    "cancelled": CancelledError,
    "closed": ClosedError,
    "address_in_use": AddressInUseError,
    "limit_exceeded": LimitExceededError,
    "protocol_violation": ProtocolError,
    "io": TransportError,
    "state_sync": StateSyncError,
}
_BY_CODE = {_core.codes[name]: cls for name, cls in _CLASSES.items()}


def from_status(code: int, reason: str, peer: str | None = None) -> PycclError:
    """The exception for a status of the core."""
    return _BY_CODE.get(code, PycclError)(reason, peer=peer)
