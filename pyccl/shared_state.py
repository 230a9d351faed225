"""Shared state: named tensors with a revision that all members hold bit for bit."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from pyccl import _core, _state_file
from pyccl.arrays import ArrayLike, numpy_type, tensor
from pyccl.errors import InvalidArgumentError, InvalidTypeError, StateFileError, from_status
from pyccl.options import integer

Strategy = Literal["popular", "send_only", "receive_only"]
Progress = Callable[[int, int], object]
"""Is told bytes that have been moved between all members, and bytes that are to be."""

_REVISION_MAX = (1 << 64) - 1
Path = str | os.PathLike[str]


class Source(NamedTuple):
    """Who sent blocks to this peer."""

    rank: int | None
    """When the sync ended; None if the peer was lost meanwhile."""
    peer: str
    bytes: int


class Behind(NamedTuple):
    """Who had not the elected state when the sync began."""

    rank: int | None
    peer: str
    revision: int
    """What it had."""
    drifted: bool
    """It had the elected revision, but with other bits: memory has changed that should not have."""


class Refuted(NamedTuple):
    """Who sent other bits than it had reported; nothing of them was taken."""

    rank: int | None
    peer: str


class SyncInfo(NamedTuple):
    """How a sync went. Revision, digest, behind and refuted are the same on all members."""

    revision: int
    digest: str
    """32 hex digits, of names, types, shapes and bits."""
    bytes_sent: int
    """Payload that this peer sent, reports and all."""
    bytes_received: int
    blocks_fetched: int
    """Blocks (1 MiB, or the rest of a tensor) that this peer lacked and got."""
    bytes_fetched: int
    sources: tuple[Source, ...]
    behind: tuple[Behind, ...]
    refuted: tuple[Refuted, ...]
    attempts: int
    """1, and one more for each time that it began again because a peer was lost."""
    seconds: float
    peers_pending: bool
    """As in OperationInfo."""

    @classmethod
    def _of(cls, fields: _core._SyncInfo) -> SyncInfo:
        known = cls(*fields)  # type: ignore[arg-type]
        return known._replace(
            sources=tuple(Source(*one) for one in known.sources),
            behind=tuple(Behind(*one) for one in known.behind),
            refuted=tuple(Refuted(*one) for one in known.refuted),
        )


class _Load:
    """`load`, which means one thing of the class and another of a state."""

    def __get__(self, state: SharedState | None, owner: type[SharedState]) -> Callable[..., Any]:
        return owner._from_file if state is None else state._load


class SharedState(Mapping[str, Any]):
    """Named tensors with a revision, for `Communicator.sync()`.

    tensors: arrays by name: numpy arrays, anything with the buffer protocol, CPU tensors with
        DLPack (torch and others). Contiguous and writable; a number is an array without dimensions.
        They stay where they are: a sync reads and writes the caller's own memory. Any type that
        can be reduced, and bool, complex64 and complex128.
    revision: what the tensors are at, 0 to 2**64 - 1. The highest one wins, so count it up whenever
        they change for all.
    expect_next: each sync must go on by exactly one revision from the one before, else it is a
        StateSyncError. All members say the same. The first sync takes any revision.

    As a mapping it gives the arrays by name. Raises InvalidArgumentError and InvalidTypeError; the
    text names the tensor.

        state = pyccl.SharedState({"w": w, "step": np.array(0)}, revision=0)
        comm.sync(state)
        ...
        state.save("snapshot.pyccl")
        state = pyccl.SharedState.load("snapshot.pyccl")  # new arrays
        state.load("snapshot.pyccl")                      # into its own
    """

    __slots__ = ("_arrays", "_busy", "_core", "_described", "_expect_next", "_lock")

    def __init__(
        self, tensors: Mapping[str, ArrayLike], revision: int = 0, *, expect_next: bool = False
    ) -> None:
        if not isinstance(tensors, Mapping):
            raise InvalidTypeError(f"tensors are of type {type(tensors).__name__}, not a mapping")
        self._arrays = dict(tensors)
        self._described: list[tuple[str, str, tuple[int, ...], Any]] = []
        for name, one in self._arrays.items():
            if not isinstance(name, str):
                raise InvalidTypeError(f"the name of a tensor is {name!r}, but must be a text")
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InvalidArgumentError(f"the name of a tensor is {name!a}, no UTF-8") from None
            memory, dtype, shape = tensor(one, f"tensor {name!r}")
            self._described.append((name, dtype, tuple(shape), memory))
        at = integer(revision, "revision", 0, _REVISION_MAX)
        self._lock = threading.Lock()
        self._busy = False
        self._expect_next = bool(expect_next)
        self._core = _core.SharedState(self._described, at, self._expect_next)

    @property
    def revision(self) -> int:
        """May be set: that is the caller's word that the tensors are those of that revision."""
        return self._core.revision

    @revision.setter
    def revision(self, revision: int) -> None:
        self._core.revision = integer(revision, "revision", 0, _REVISION_MAX)

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return self._core.bytes

    @property
    def void(self) -> tuple[str, ...]:
        """Names of tensors that a failed sync, or a failed load(), has overwritten in part.

        While there are any, this state is not given to others. A sync that succeeds makes it whole,
        so does load(), and setting the revision says that the caller has.
        """
        return self._core.void_tensors()

    def digest(self) -> str:
        """Reads all tensors and returns 32 hex digits that stand for names, types, shapes and
        bits: states are equal if these are. Not the revision."""
        with self._lock:
            if not self._busy:
                self._gather()
        return self._core.digest()

    def save(self, path: Path) -> int:
        """Writes a snapshot and returns its size in bytes.

        The file takes the place of an older one when it is complete and on the disk, or not at all.
        Raises StateFileError if the tensors are written to meanwhile, or void, InvalidArgumentError
        for more names than a header takes (some 500 000 tensors), and OSError.
        """
        if self.void:
            raise StateFileError(f"{os.fspath(path)}: this state is not whole, see `void`")
        digest = self.digest()
        header = _state_file.Header(self.revision, digest, self._schema(), self._expect_next)

        def check() -> None:
            if self.digest() != digest:
                raise StateFileError(f"{os.fspath(path)}: tensors changed while they were saved")

        return _state_file.write(path, header, [_flat(one[3]) for one in self._described], check)

    load = _Load()
    """`SharedState.load(path)` gives a new state with arrays of its own (numpy), and expect_next as
    it was. `state.load(path)` fills the arrays that there are, which must be the same by name, type
    and shape, and takes the revision; nothing is written unless the whole file is sound. After it
    any revision may follow (expect_next).

    Raises StateFileError for what is truncated, altered or no snapshot, InvalidArgumentError for a
    snapshot of other tensors, and OSError.
    """

    @classmethod
    def _from_file(cls, path: Path, *, expect_next: bool | None = None) -> SharedState:
        made: list[SharedState] = []

        def prepare(header: _state_file.Header) -> list[memoryview]:
            if expect_next is not None and bool(expect_next) != header.expect_next:
                raise InvalidArgumentError(
                    f"{os.fspath(path)} was saved with expect_next={header.expect_next}"
                )
            arrays = {
                one.name: np.empty(one.shape, numpy_type(one.dtype, f"tensor {one.name!r}"))
                for one in header.tensors
            }
            made.append(cls(arrays, header.revision, expect_next=header.expect_next))
            return made[0]._memory_for(header, path)

        header = _state_file.read(path, prepare)
        made[0]._check(header, path)
        return made[0]

    def _load(self, path: Path) -> None:
        with self._held():
            self._fill(path)
            self._scatter()

    def _fill(self, path: Path) -> None:
        prepared = False

        def prepare(header: _state_file.Header) -> list[memoryview]:
            nonlocal prepared
            memory = self._memory_for(header, path)
            prepared = True
            return memory

        before = self._core.digest()
        try:
            header = _state_file.read(path, prepare)
            self._check(header, path)
        except BaseException:
            # Only where the file changed under our hands, or the user was impatient.
            if prepared and self._core.digest() != before:
                self._core.spoil()
            raise
        self._core.restored(header.revision)

    def _memory_for(self, header: _state_file.Header, path: Path) -> list[memoryview]:
        own = {one.name: one for one in self._schema()}
        there = {one.name: one for one in header.tensors}
        faults = [f"{name!r} is not in the file" for name in own if name not in there]
        faults += [f"{name!r} is in the file only" for name in there if name not in own]
        faults += [
            f"{name!r} is {_typed(there[name])} in the file, but {_typed(one)} here"
            for name, one in own.items()
            if name in there and there[name] != one
        ]
        if header.expect_next != self._expect_next:
            faults.append(f"expect_next is {header.expect_next} there and {self._expect_next} here")
        if faults:
            more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
            raise InvalidArgumentError(
                f"{os.fspath(path)} holds other tensors: {'; '.join(faults[:8])}{more}"
            )
        memory = {one[0]: one[3] for one in self._described}
        return [_flat(memory[one.name]) for one in header.tensors]

    def _check(self, header: _state_file.Header, path: Path) -> None:
        if self._core.digest() != header.digest:
            raise StateFileError(
                f"{os.fspath(path)}: its tensors do not have the digest that it names"
            )

    def _sync(self, run: Callable[[], tuple[tuple[Any, ...] | None, _core._SyncInfo]]) -> SyncInfo:
        """A sync by the core, between what subclasses do before and after it."""
        with self._held():
            changed = True
            try:
                failure, fields = run()
                if failure is not None:
                    raise from_status(*failure)
                info = SyncInfo._of(fields)
                changed = info.blocks_fetched > 0
            finally:
                # One that has failed may have brought all of the new bits, and the new revision.
                if changed and not self.void:
                    self._scatter()
            return info

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """What was gathered stays as it is: others neither begin anew nor gather meanwhile."""
        with self._lock:
            if self._busy:
                raise InvalidArgumentError("a sync or load of this state is running")
            self._gather()
            self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _gather(self) -> None:
        """For subclasses whose tensors stand for something that is kept elsewhere: reads it into
        them. Called before each sync, digest, save and load."""

    def _scatter(self) -> None:
        """The way back: called when a sync or a load may have changed the tensors, and has left
        them whole. What was not changed is not to be written."""

    def _schema(self) -> tuple[_state_file.TensorInfo, ...]:
        return tuple(
            _state_file.TensorInfo(name, dtype, shape, memoryview(memory).nbytes)
            for name, dtype, shape, memory in self._described
        )

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    # Two states are compared by their digests; as mappings of arrays they can't be.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        void = f", void: {', '.join(self.void)}" if self.void else ""
        return (
            f"<pyccl.SharedState of {len(self)} tensors, {self.bytes} bytes, "
            f"revision {self.revision}{void}>"
        )


def _typed(one: _state_file.TensorInfo) -> str:
    return f"{one.dtype}({', '.join(map(str, one.shape))})"


def _flat(memory: Any) -> memoryview:
    """The bytes of an array as one row; memoryview itself can't do that where it is empty."""
    return np.asarray(memory).reshape(-1).view(np.uint8).data
