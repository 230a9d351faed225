"""The snapshot of a shared state as a file: named tensors with a revision, whole or not at all.

    "PYCCLST1"    magic
    u64           bytes of the header
    header        JSON in UTF-8: {"version": 1, "revision", "digest", "expect_next", "piece_bytes",
                  "tensors": [{"name", "dtype", "shape", "bytes"}, ...]}
    16 bytes      digest of all that is before them
    u32, frame    for each piece: bytes of the frame; a zstd frame with content size and checksum
    "PYCCLEND"    magic
    u64           bytes of the whole file
    16 bytes      digest of all that is before them

Numbers are little endian, digests are blake2b. The bytes of each tensor, in the header's order, are
cut into pieces of as many bytes as the header says, at most 4 MiB; its last one may be shorter, and
a tensor of no bytes has none. So the header tells which pieces must follow, and how long each one
is when it is unpacked.

The last digest is over all the rest: nothing can be lost, changed, swapped or added without notice.
The checksums of the frames are there to tell where. Neither is a signature: who can write the file
can make another one that is sound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import zstandard

from pyccl.errors import InvalidArgumentError, StateFileError

VERSION = 1
PIECE_BYTES = 4 << 20  # what is written
PIECE_BYTES_MAX = 4 << 20  # what is read
HEADER_BYTES_MAX = 64 << 20

_BEGIN, _END = b"PYCCLST1", b"PYCCLEND"
_DIGEST_BYTES = 16
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_DIMENSIONS_MAX = 64
_NUMBER_MAX = (1 << 63) - 1
_REVISION_MAX = (1 << 64) - 1

# A piece takes twice its size while it is unpacked: together these stay below 64 MiB, however many
# processors there are.
_WORKERS = min(os.cpu_count() or 1, 6)
_PIECES_AHEAD = _WORKERS + 2


class TensorInfo(NamedTuple):
    """What a tensor is. `dtype` is only kept here, so `bytes` is taken as it is said."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class Header(NamedTuple):
    """What a snapshot holds. `digest` is the state's own: 32 hex digits, which are only kept."""

    revision: int
    digest: str
    tensors: tuple[TensorInfo, ...]
    expect_next: bool = False
    """Whether each sync must go on by one revision; a part of what the digest stands for."""


def write(
    path: str | os.PathLike[str],
    header: Header,
    memory: Sequence[memoryview],
    check: Callable[[], None] = lambda: None,
) -> int:
    """Makes the file, or replaces it, and returns its size in bytes.

    memory: the bytes of each tensor, flat and contiguous ("B"). They must not change meanwhile.
    check: called when the new file is complete; if it raises, the old one stays.

    The new file is on the disk before it takes the place of the old one. After an error the old one
    is still there; the new one only if nothing but the last step failed, which makes the exchange
    outlast a loss of power. A process that is killed may leave `.NAME.*.tmp` beside it, which
    nobody needs. A link at `path` is replaced, not followed.

    Raises InvalidArgumentError if header and memory don't fit, and OSError.
    """
    target = os.fspath(path)
    try:
        head = _encode(header, PIECE_BYTES)
    except ValueError as error:
        raise InvalidArgumentError(f"{target}: can't hold this state: {error}") from error
    _check_memory(header, memory, writable=False)
    folder, name = os.path.split(target)
    # The name may be as long as the system permits, and the process id the same in two containers.
    unique = f".{name[:40]}.{os.getpid()}.{secrets.token_hex(8)}.tmp"
    temporary = os.path.join(folder, unique)
    directory = os.open(folder or os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Not by tempfile: its files are their owner's only, whatever the umask says.
        with open(temporary, "xb") as file:
            size = _write_all(file, head, header, memory)
            file.flush()
            os.fsync(file.fileno())
        check()
        os.replace(temporary, target)
        os.fsync(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(directory)
    return size


def read_header(path: str | os.PathLike[str]) -> Header:
    """What the file holds, without a look at the tensors' bytes.

    Raises StateFileError if the header is not sound, and OSError.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        try:
            return _Source(file).header
        except _UnsoundError as error:
            raise StateFileError(f"{name}: {error}") from error


def read(path: str | os.PathLike[str], prepare: Callable[[Header], Sequence[memoryview]]) -> Header:
    """Fills memory with the tensors' bytes, and returns what they are.

    prepare: gets the header and returns the memory to fill, flat and contiguous ("B"), one for each
        tensor. It may raise, if the state is not the one that is expected.

    The file is read twice: nothing is written into the memory before all of it has been found
    sound. It stays open in between, so that one that is replaced meanwhile is no matter.

    Raises StateFileError if the file is not sound, and OSError. Should the second reading fail, for
    example of a file that was overwritten in place, the text of the StateFileError says that the
    memory is void; so it is after anything that interrupts this reading.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        try:
            source = _Source(file)
            memory = prepare(source.header)
            _check_memory(source.header, memory, writable=True)
            source.unpack(None)
        except _UnsoundError as error:
            raise StateFileError(f"{name}: {error}") from error
        try:
            source.unpack(memory)
        except (_UnsoundError, OSError) as error:
            raise StateFileError(
                f"{name}: was sound at first, but not when it was read again, so the memory that "
                f"it was read into is void: {error}"
            ) from error
    return source.header


class _UnsoundError(Exception):
    """Something is wrong with the file. The text goes on where its name has been said."""


class _Pipeline:
    """Work for a few threads. What it gives is handed on in the order of its submission, by the
    thread that submits it, and work that is ahead of this is bounded."""

    def __init__(self, hand_on: Callable[[Any], object]) -> None:
        self._hand_on = hand_on
        self._pending: deque[Future[Any]] = deque()
        self._pool = ThreadPoolExecutor(_WORKERS, "pyccl-state-file")

    def __enter__(self) -> _Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody may touch the memory once this is over.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Raises what earlier work raised, as finish() does."""
        if len(self._pending) == _PIECES_AHEAD:
            self._hand_on(self._pending.popleft().result())
        self._pending.append(self._pool.submit(work, *arguments))

    def finish(self) -> None:
        while self._pending:
            self._hand_on(self._pending.popleft().result())


class _Piece(NamedTuple):
    """The bytes from `begin` to `end` of a tensor."""

    tensor: int
    begin: int
    end: int
    text: str


def _pieces(header: Header, piece_bytes: int) -> Iterator[_Piece]:
    for tensor, info in enumerate(header.tensors):
        for i, begin in enumerate(range(0, info.bytes, piece_bytes)):
            end = min(begin + piece_bytes, info.bytes)
            yield _Piece(tensor, begin, end, f"piece {i} of tensor {info.name!r}")


class _Sink:
    """A file that is written from its beginning, and the digest of what it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = _new_hash()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def _write_all(file: BinaryIO, head: bytes, header: Header, memory: Sequence[memoryview]) -> int:
    sink = _Sink(file)
    sink.write(head)

    def append(frame: bytes) -> None:
        sink.write(_U32.pack(len(frame)))
        sink.write(frame)

    with _Pipeline(append) as pipeline:
        for piece in _pieces(header, PIECE_BYTES):
            pipeline.submit(_pack, memory[piece.tensor][piece.begin : piece.end])
        pipeline.finish()
    sink.write(_END + _U64.pack(sink.bytes + len(_END) + _U64.size + _DIGEST_BYTES))
    sink.write(sink.digest())
    return sink.bytes


def _pack(data: memoryview) -> bytes:
    # Level 1: more takes several times as long, and finds little in the mantissas of weights.
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True)
    return compressor.compress(data)


class _Source:
    """A file that is read from its beginning. Has its header at once."""

    header: Header

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = _new_hash()
        self._position = 0
        self.header, self._piece_bytes = self._read_header()
        self._hash_of_header = self._hash.copy()
        self._begin = self._position

    def unpack(self, memory: Sequence[memoryview] | None) -> None:
        """Reads all pieces and the end, and fills the memory if there is any."""
        self._file.seek(self._begin)
        self._position = self._begin
        self._hash = self._hash_of_header.copy()
        with _Pipeline(lambda _: None) as pipeline:
            for piece in _pieces(self.header, self._piece_bytes):
                try:
                    frame = self._read_frame(piece)
                except _UnsoundError:
                    # Something before it may be wrong as well, and be the cause.
                    pipeline.finish()
                    raise
                target = memory[piece.tensor][piece.begin : piece.end] if memory else None
                pipeline.submit(_unpack, frame, piece, target)
            pipeline.finish()
        self._read_end()

    def _take(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        self._position += len(data)
        self._hash.update(data)
        if len(data) < count:
            missing = self._position - len(data) + count
            raise _UnsoundError(
                f"is truncated: ends at byte {self._position} of at least {missing}, in {what}"
            )
        return data

    def _read_header(self) -> tuple[Header, int]:
        magic = self._file.read(len(_BEGIN))
        if not _BEGIN.startswith(magic):
            raise _UnsoundError("is no snapshot of pyccl")
        self._file.seek(0)
        self._take(len(_BEGIN), "its header")
        (count,) = _U64.unpack(self._take(_U64.size, "its header"))
        if count > HEADER_BYTES_MAX:
            raise _UnsoundError(
                f"is damaged: its header has {count} bytes, but at most {HEADER_BYTES_MAX} can be"
            )
        text = self._take(count, "its header")
        expected = self._hash.digest()
        if self._take(_DIGEST_BYTES, "its header") != expected:
            raise _UnsoundError("is damaged: its header has another digest than it says")
        return _decode(text)

    def _read_frame(self, piece: _Piece) -> bytes:
        (count,) = _U32.unpack(self._take(_U32.size, piece.text))
        if count > _frame_bytes_max(piece.end - piece.begin):
            raise _UnsoundError(
                f"is damaged: {piece.text} has {count} bytes, more than it can have, at byte "
                f"{self._position}"
            )
        return self._take(count, piece.text)

    def _read_end(self) -> None:
        if self._take(len(_END), "its end mark") != _END:
            raise _UnsoundError("is damaged: it goes on where it should end")
        (count,) = _U64.unpack(self._take(_U64.size, "its end mark"))
        expected = self._hash.digest()
        if self._take(_DIGEST_BYTES, "its end mark") != expected:
            raise _UnsoundError("is damaged: it has another digest than its end mark says")
        if count != self._position:
            raise _UnsoundError(
                f"is damaged: it has {self._position} bytes, but {count} by its end mark"
            )
        if self._file.read(1):
            raise _UnsoundError(f"is damaged: it goes on after its end at byte {self._position}")


def _unpack(frame: bytes, piece: _Piece, target: memoryview | None) -> None:
    count = piece.end - piece.begin
    try:
        # Before anything is allocated: zstd believes the frame, whatever max_output_size says.
        found = zstandard.frame_content_size(frame)
        if found != count:
            raise _UnsoundError(f"is damaged: {piece.text} has {found} bytes instead of {count}")
        decompressor = zstandard.ZstdDecompressor(max_window_size=PIECE_BYTES_MAX)
        data = decompressor.decompress(frame, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _UnsoundError(f"is damaged: {piece.text} can't be unpacked: {error}") from error
    if target is not None:
        target[:] = data


def _frame_bytes_max(count: int) -> int:
    # ZSTD_COMPRESSBOUND of zstd.h.
    return count + (count >> 8) + (max((128 << 10) - count, 0) >> 11)


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def _encode(header: Header, piece_bytes: int) -> bytes:
    """All that is before the first piece. ValueError says what no header may be."""
    _check(header)
    fields = {
        "version": VERSION,
        "revision": header.revision,
        "digest": header.digest,
        "expect_next": header.expect_next,
        "piece_bytes": piece_bytes,
        "tensors": [one._asdict() for one in header.tensors],
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    if len(text) > HEADER_BYTES_MAX:
        raise ValueError(f"the header takes {len(text)} bytes, at most {HEADER_BYTES_MAX} can be")
    head = _BEGIN + _U64.pack(len(text)) + text
    return head + hashlib.blake2b(head, digest_size=_DIGEST_BYTES).digest()


def _decode(text: bytes) -> tuple[Header, int]:
    """The header and the bytes of a piece."""
    try:
        fields = json.loads(text)
        version = fields["version"]
        _check_number(version, "version", _NUMBER_MAX)
        if version > VERSION:
            raise _UnsoundError(
                f"was written by a later version of pyccl: its format is {version}, and this one "
                f"reads up to {VERSION}"
            )
        piece_bytes = fields["piece_bytes"]
        _check_number(piece_bytes, "piece_bytes", PIECE_BYTES_MAX)
        if piece_bytes == 0:
            raise ValueError("piece_bytes is 0")
        tensors = tuple(
            TensorInfo(one["name"], one["dtype"], tuple(one["shape"]), one["bytes"])
            for one in fields["tensors"]
        )
        header = Header(
            fields["revision"], fields["digest"], tensors, fields.get("expect_next") is True
        )
        _check(header)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        # Its digest is right, so somebody wrote it like this.
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _UnsoundError(f"is damaged: its header can't be: {reason}") from error
    return header, piece_bytes


def _check(header: Header) -> None:
    _check_number(header.revision, "revision", _REVISION_MAX)
    if not isinstance(header.digest, str) or not re.fullmatch(r"[0-9a-f]{32}", header.digest):
        raise ValueError(f"digest is {header.digest!r}, but must be 32 hex digits")
    names = set()
    for one in header.tensors:
        if not isinstance(one.name, str) or not isinstance(one.dtype, str):
            raise ValueError(f"name {one.name!r} and dtype {one.dtype!r} must be text")
        if one.name in names:
            raise ValueError(f"two tensors have the name {one.name!r}")
        names.add(one.name)
        what = f"tensor {one.name!r}"
        if len(one.shape) > _DIMENSIONS_MAX:
            raise ValueError(f"{what} has {len(one.shape)} dimensions")
        for length in one.shape:
            _check_number(length, f"a length of {what}", _NUMBER_MAX)
        _check_number(one.bytes, f"bytes of {what}", _NUMBER_MAX)
        elements = math.prod(one.shape)
        # How long an element is only its dtype tells; but it is not 0, and all are alike.
        fits = one.bytes > 0 and one.bytes % elements == 0 if elements else one.bytes == 0
        if not fits:
            raise ValueError(f"{what} of shape {one.shape} can't have {one.bytes} bytes")


def _check_number(value: Any, what: str, largest: int) -> None:
    # bool is an int as well.
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"{what} is {value!r}, but must be a number from 0 to {largest}")


def _check_memory(header: Header, memory: Sequence[memoryview], *, writable: bool) -> None:
    if len(memory) != len(header.tensors):
        raise InvalidArgumentError(
            f"there is memory for {len(memory)} tensors, but there are {len(header.tensors)}"
        )
    for info, view in zip(header.tensors, memory, strict=True):
        if view.format != "B" or view.ndim != 1 or not view.c_contiguous:
            raise InvalidArgumentError(f"the memory of tensor {info.name!r} is no flat bytes")
        if view.nbytes != info.bytes:
            raise InvalidArgumentError(
                f"the memory of tensor {info.name!r} has {view.nbytes} bytes, not {info.bytes}"
            )
        if writable and view.readonly:
            raise InvalidArgumentError(f"the memory of tensor {info.name!r} is read-only")
