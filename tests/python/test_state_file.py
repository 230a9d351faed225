"""Snapshots of a shared state come back as they were, and are written whole or not at all."""

from __future__ import annotations

import os
import re
import resource
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyccl
from pyccl import _state_file
from pyccl._state_file import Header, TensorInfo, read, read_header, write

from .state_files import DIGEST, PIECE, SMALL, Memory, Tensors, header_of, load, noise, save


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where to write, in a folder in which nothing else may be left."""
    yield tmp_path / "state.pyccl"
    assert os.listdir(tmp_path) in ([], ["state.pyccl"])


SIZES = st.one_of(
    st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1]),
    st.integers(0, 40 * PIECE),
)


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.dictionaries(st.text(max_size=8), SIZES, max_size=6),
    revision=st.integers(0, (1 << 64) - 1),
    zeros=st.booleans(),
)
def test_what_was_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, int], revision: int, zeros: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip"
    state = {
        name: bytes(count) if zeros else noise(count, seed)
        for seed, (name, count) in enumerate(tensors.items())
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state_file, "PIECE_BYTES", PIECE)
        assert save(path, state, revision) == path.stat().st_size
    # The reader goes by the file, so the pieces need not be what it would write.
    assert load(path) == state
    assert read_header(path) == header_of(state, revision)


def test_shapes_come_back(path: Path) -> None:
    infos = (
        TensorInfo("0-d", "f32", (), 4),
        TensorInfo("empty", "f64", (3, 0, 2), 0),
        TensorInfo("", "bf16", (2, 1, 3), 12),
        TensorInfo("lone \ud800", "a dtype nobody knows", (3,), 3 * 7),
    )
    header = Header(0, DIGEST, infos)
    given = [noise(one.bytes) for one in infos]
    write(str(path), header, [memoryview(one) for one in given])
    memory = Memory()
    assert read(str(path), memory.prepare) == header == read_header(str(path))
    assert memory.arrays == given


def test_a_state_of_no_tensors(path: Path) -> None:
    assert save(path, {}, revision=3) == path.stat().st_size
    assert read(path, lambda _: []) == Header(3, DIGEST, ())


def test_prepare_decides_before_anything_is_read(path: Path) -> None:
    save(path, SMALL)
    damaged = bytearray(path.read_bytes())
    damaged[-40] ^= 1
    path.write_bytes(damaged)

    def refuse(header: Header) -> Sequence[memoryview]:
        assert header == header_of(SMALL)
        raise LookupError("not the state that is here")

    with pytest.raises(LookupError, match="not the state"):
        read(path, refuse)


def test_memory_that_does_not_fit(path: Path) -> None:
    faults: list[tuple[list[memoryview], str]] = [
        ([], "memory for 0 tensors, but there are 1"),
        ([memoryview(bytearray(8))] * 2, "memory for 2 tensors"),
        ([memoryview(bytearray(7))], "tensor 'w' has 7 bytes, not 8"),
        ([memoryview(np.zeros(2, np.float32))], "tensor 'w' is no flat bytes"),
        ([memoryview(np.zeros((2, 4), np.uint8))], "tensor 'w' is no flat bytes"),
        ([memoryview(bytearray(16))[::2]], "tensor 'w' is no flat bytes"),
    ]
    state = {"w": b"12345678"}
    for memory, text in faults:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            write(path, header_of(state), memory)
    assert not path.exists()
    save(path, state)
    for memory, text in [*faults, ([memoryview(bytes(8))], "tensor 'w' is read-only")]:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            read(path, lambda _, memory=memory: memory)
    for wrong in (Header(-1, DIGEST, ()), Header(0, "", ()), header_of(state, np.int64(3))):
        with pytest.raises(pyccl.InvalidArgumentError, match=r"state\.pyccl: can't hold this"):
            write(path, wrong, [memoryview(b"12345678")][: len(wrong.tensors)])
    assert load(path) == state


def test_a_header_that_is_too_long(path: Path) -> None:
    state = {"x" * _state_file.HEADER_BYTES_MAX: b""}
    with pytest.raises(pyccl.InvalidArgumentError, match="the header takes"):
        save(path, state)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace", "_pack", "_new_hash"])
def test_an_interrupted_write_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    save(path, SMALL)
    for target in (path, path.with_name("new")):
        with monkeypatch.context() as patch:
            module = os if hasattr(os, where) else _state_file
            patch.setattr(module, where, failing(error))
            with pytest.raises(type(error)):
                save(target, {"w": b"other"})
    assert load(path) == SMALL


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    save(path, SMALL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(path, {"w": noise(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(path) == SMALL


def test_the_old_file_goes_only_when_the_new_one_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        steps.append("fsync of " + ("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"))
        fsync(fd)

    def noted_replace(old: str, new: str) -> None:
        steps.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save(path, SMALL)
    assert steps == ["fsync of file", "replace", "fsync of folder"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for place in ("missing/state", "file/state", "folder", "folder/", ""):
        with pytest.raises(OSError, match="Errno"):
            write(place and f"{tmp_path}/{place}", Header(0, DIGEST, ()), [])
    with pytest.raises(OSError, match="Errno"):
        write("/proc/state", Header(0, DIGEST, ()), [])
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_names_of_all_lengths_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s", "s" * 255, "\u4e2d" * 85):
        save(Path(name), SMALL)
        assert load(tmp_path / name) == SMALL
    umask = os.umask(0o027)
    try:
        save(Path("mode"), SMALL)
    finally:
        os.umask(umask)
    assert Path("mode").stat().st_mode & 0o777 == 0o640


def test_two_writers_at_once(path: Path) -> None:
    states = [{"w": noise(100_000, seed)} for seed in range(4)]
    begin = threading.Barrier(len(states) + 1)
    errors: list[BaseException] = []

    def repeat(state: Tensors) -> None:
        try:
            begin.wait(30)
            for _ in range(5):
                save(path, state)
        except BaseException as error:
            errors.append(error)

    save(path, states[0])
    threads = [threading.Thread(target=repeat, args=(one,)) for one in states]
    for thread in threads:
        thread.start()
    begin.wait(30)
    while any(thread.is_alive() for thread in threads):
        assert load(path) in states
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_file_that_is_replaced_while_it_is_read(path: Path) -> None:
    save(path, SMALL)
    memory = Memory()

    def prepare(header: Header) -> Sequence[memoryview]:
        save(path, {"other": b"state"})
        return memory.prepare(header)

    assert read(path, prepare) == header_of(SMALL)
    assert memory.arrays == list(SMALL.values())


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_changes_in_place_voids_the_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    # Longer than what a buffered reader may still know.
    save(path, {"w": noise(9 << 20)})
    memory, whole, at = Memory(), path.read_bytes(), 6 << 20
    real = _state_file._Source._read_end

    def change(source: Any) -> None:
        real(source)
        assert memory.untouched
        path.write_bytes(whole[:at] + (b"" if cut else bytes(8) + whole[at + 8 :]))

    monkeypatch.setattr(_state_file._Source, "_read_end", change)
    text = "was sound at first, but .* is void: is " + ("truncated" if cut else "damaged")
    with pytest.raises(pyccl.StateFileError, match=f"{re.escape(str(path))}: {text}"):
        read(path, memory.prepare)


def test_only_a_second_reading_that_fails_voids_the_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(path, SMALL)
    real, fails = _state_file._Source.unpack, False

    def unpack(source: Any, memory: Sequence[memoryview] | None) -> None:
        if fails == (memory is not None):
            raise OSError(5, "Input/output error")
        real(source, memory)

    monkeypatch.setattr(_state_file._Source, "unpack", unpack)
    memory = Memory()
    with pytest.raises(OSError, match="Input/output error"):
        read(path, memory.prepare)
    assert memory.untouched
    fails = True
    with pytest.raises(pyccl.StateFileError, match=r"is void: .*Input/output error"):
        read(path, memory.prepare)


def test_a_large_state(path: Path) -> None:
    given = np.random.default_rng(0).standard_normal(16 << 20, np.float32)
    header = Header(1, DIGEST, (TensorInfo("w", "f32", given.shape, given.nbytes),))
    found = np.zeros_like(given)
    size = write(path, header, [memoryview(given).cast("B")])
    assert given.nbytes / 2 < size < given.nbytes
    assert read(path, lambda _: [memoryview(found).cast("B")]) == header
    np.testing.assert_array_equal(found, given)


def test_memory_beside_the_state_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = _state_file._PIECES_AHEAD + _state_file._WORKERS
    assert ahead * _state_file.PIECE_BYTES_MAX <= 64 << 20
    # The same at a smaller scale.
    piece = 64 << 10
    monkeypatch.setattr(_state_file, "PIECE_BYTES", piece)
    state, found = noise(100 * piece), bytearray(100 * piece)
    tracemalloc.start()
    save(path, {"w": state})
    read(path, lambda _: [memoryview(found)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == state
    assert peak < (ahead + 4) * piece
