"""The compiled core: a thin mirror of the C++ runtime. Use the package, not this module."""

from collections.abc import Mapping
from typing import Any, final

codes: dict[str, int]
dtypes: dict[str, int]
reduce_ops: dict[str, int]
algorithms: dict[str, int]
on_loss: dict[str, int]
roles: dict[str, int]

# (code, reason, peer), the arguments of pyccl.errors.from_status()
_Status = tuple[int, str, str | None]
_Epoch = tuple[int, int]
# The fields of pyccl.OperationInfo in their order.
_Info = tuple[int, int, _Epoch, int, int, int, float, str, float, bool]

@final
class LogLines:
    def __init__(self, wake_fd: int, level_min: int) -> None: ...
    def drain(self) -> list[tuple[int, str]]: ...

@final
class DlpackMemory:
    """Supports the buffer protocol."""

    def __init__(self, capsule: Any) -> None: ...
    @property
    def dtype(self) -> int: ...

@final
class Arrays:
    def __init__(self, count_max: int) -> None: ...
    def add(self, input: object, output: object | None, dtype: int) -> bool: ...

@final
class Work:
    def wait(self, seconds: float, interruptible: bool = True) -> bool: ...
    def done(self) -> bool: ...
    def outcome(self) -> tuple[_Status, _Info]: ...
    def notify(self, fd: int) -> None: ...

@final
class ReduceSettings:
    def __init__(self, op: int, weight: float, tag: int, on_loss: int, algorithm: int) -> None: ...

@final
class Communicator:
    def admission(self) -> Work: ...
    def all_reduce(
        self, arrays: Arrays, settings: ReduceSettings, timeout: float, waits: bool
    ) -> Work: ...
    def barrier(self, tag: int, timeout: float) -> Work: ...
    def update(self, timeout: float) -> Work: ...
    def leave(self, timeout: float) -> Work: ...
    def cancel(self, work: Work) -> None: ...
    def close(self) -> None: ...
    def view(self) -> tuple[_Epoch, int, tuple[str, ...], _Status | None]: ...
    def peer(self) -> str: ...
    def address(self) -> str: ...

def open(
    *,
    coordinator: str,
    group: str,
    role: int,
    connections: int,
    listen: str | None,
    advertise: str | None,
    timeout: float,
    limits: Mapping[str, float],
    log: LogLines | None,
) -> Communicator: ...

@final
class Coordinator:
    def address(self) -> str: ...
    def incarnation(self) -> int: ...
    def stop(self) -> None: ...

def start_coordinator(
    *,
    bind: str,
    state: str | None,
    limits: Mapping[str, float],
    log: LogLines | None,
) -> Coordinator: ...
