"""The compiled core: a thin mirror of the C++ runtime. Use the package, not this module."""

from collections.abc import Callable, Mapping
from typing import Any, final

codes: dict[str, int]
dtypes: dict[str, int]
reduce_ops: dict[str, int]
algorithms: dict[str, int]
on_loss: dict[str, int]
roles: dict[str, int]
transports: dict[str, int]
collectives: dict[str, int]
pair_roles: dict[str, int]
any_source: int
codecs: dict[str, int]
roundings: dict[str, int]
strategies: dict[str, int]

# (code, reason, peer), the arguments of pyccl.errors.from_status()
_Status = tuple[int, str, str | None]
_Epoch = tuple[int, int]
# The fields of pyccl.OperationInfo in their order.
_Info = tuple[
    int, int, _Epoch, int, int, int, float, str, float, bool, float, int, float, int | None
]  # fmt: skip

# The fields of pyccl.SyncInfo in their order; ranks are None for peers that are lost.
_SyncInfo = tuple[
    int,
    str,
    int,
    int,
    int,
    int,
    list[tuple[int | None, str, int]],
    list[tuple[int | None, str, int, bool]],
    list[tuple[int | None, str]],
    int,
    float,
    bool,
]

@final
class SharedState:
    def __init__(
        self,
        tensors: list[tuple[str, str, tuple[int, ...], object]],
        revision: int,
        strict: bool,
    ) -> None: ...
    @property
    def revision(self) -> int: ...
    @revision.setter
    def revision(self, revision: int) -> None: ...
    @property
    def bytes(self) -> int: ...
    def digest(self) -> str: ...
    def restored(self, revision: int) -> None: ...
    def spoil(self) -> None: ...
    def void_tensors(self) -> tuple[str, ...]: ...

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
    @property
    def name(self) -> str: ...

@final
class Arrays:
    def __init__(self, count_max: int, world: int = 0) -> None: ...
    def add(self, input: object, output: object | None, dtype: int) -> bool: ...
    def add_apart(self, input: object | None, output: object | None, dtype: int) -> bool: ...
    def cut(self, shares: list[int]) -> None: ...
    def cut_both(self, sends: list[int], receives: list[int]) -> None: ...

@final
class BlockFormat:
    def __init__(self, codec: int, block: int, scale: int) -> None: ...
    def wire_bytes(self, count: int) -> int: ...

def encode(
    source: Arrays,
    target: Arrays,
    format: BlockFormat,
    rounding: int,
    seed: int,
    first_block: int = 0,
) -> float: ...
def decode(source: Arrays, target: Arrays, format: BlockFormat) -> float: ...
def rounded(arrays: Arrays, format: BlockFormat, rounding: int, seed: int) -> float: ...
def convert(source: Arrays, target: Arrays) -> None: ...
def outer_step(
    params: Any,
    momentum: Any,
    gradient: Any,
    rate: float,
    factor: float,
    nesterov: bool,
    divisor: float = ...,
    limit: float = ...,
) -> None: ...

@final
class Work:
    def wait(self, seconds: float, interruptible: bool = True) -> bool: ...
    def done(self) -> bool: ...
    def outcome(self) -> tuple[_Status | None, _Info] | None: ...
    def notify(self, fd: int) -> None: ...

@final
class Settings:
    def __init__(
        self,
        collective: int,
        op: int,
        weight: float,
        tag: int,
        on_loss: int,
        algorithm: int,
        rank: int,
    ) -> None: ...
    def quantize(
        self, codec: int, block: int, scale: int, partial: int, rounding: int, seed: int, zstd: bool
    ) -> None: ...

@final
class Subgroup:
    def rank(self) -> int: ...
    def size(self) -> int: ...
    def peers(self) -> tuple[str, ...]: ...

@final
class Communicator:
    def admission(self) -> Work: ...
    def call(
        self,
        arrays: Arrays,
        settings: Settings,
        subgroup: Subgroup | None,
        timeout: float,
        waits: bool,
    ) -> Work: ...
    def call_pair(
        self,
        arrays: Arrays,
        settings: Settings,
        role: int,
        other: int,
        subgroup: Subgroup | None,
        timeout: float,
        waits: bool,
    ) -> Work: ...
    def update(self, timeout: float) -> Work: ...
    def leave(self, timeout: float) -> Work: ...
    def sync(
        self,
        state: SharedState,
        strategy: int,
        expect_next: bool,
        timeout: float,
        progress: Callable[[int, int], object] | None,
    ) -> tuple[_Status | None, _SyncInfo]: ...
    def cancel(self, work: Work) -> None: ...
    def close(self) -> None: ...
    def view(self) -> tuple[_Epoch, int, tuple[str, ...], _Status | None]: ...
    def place(self) -> tuple[int, int]: ...
    def members_most(self) -> int: ...
    def groups(self) -> int: ...
    def subgroup(self, ranks: list[int], name: str, of: Subgroup | None) -> Subgroup: ...
    def is_valid(self, subgroup: Subgroup) -> bool: ...
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
    transport: int,
    spin_us: int,
    log: LogLines | None,
) -> Communicator: ...

@final
class Coordinator:
    def address(self) -> str: ...
    def incarnation(self) -> int: ...
    def members(self) -> int: ...
    def stop(self) -> None: ...

def start_coordinator(
    *,
    bind: str,
    state: str | None,
    limits: Mapping[str, float],
    log: LogLines | None,
) -> Coordinator: ...
def begin_exit() -> None: ...
