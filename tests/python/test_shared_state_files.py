"""Snapshots of a shared state: both ways back, and what a file that is not sound leaves alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl import SharedState, _state_file

from .values import DTYPES, type_of

ALL_DTYPES = [*DTYPES, "?", "c8", "c16"]


def filled(seed: int, revision: int = 0, **options: Any) -> SharedState:
    """All types, and sizes at which something begins or ends."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for name in ALL_DTYPES:
        for shape in ((), (0, 3), (5,), (17, 31)):
            kind = type_of(name)
            size = int(np.prod(shape)) * kind.itemsize
            raw = rng.integers(0, 2 if name == "?" else 256, size, np.uint8)
            tensors[f"{name} {shape}"] = raw.view(kind).reshape(shape)
    tensors["large"] = rng.integers(0, 256, (1 << 20) + 1, np.uint8)
    tensors["\u4e2d"] = np.zeros((9 << 20) // 8)
    return SharedState(tensors, revision, **options)


def bits(state: SharedState) -> dict[str, bytes]:
    return {name: bytes(np.asarray(one).view(np.uint8).data) if np.ndim(one) else one.tobytes()
            for name, one in state.items()}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.pyccl"


@pytest.mark.parametrize("expect_next", [False, True])
def test_a_new_state_from_a_file(path: Path, expect_next: bool) -> None:
    state = filled(1, (1 << 64) - 1, expect_next=expect_next)
    assert state.save(path) == path.stat().st_size
    back = SharedState.load(path, expect_next=expect_next)
    assert back.revision == state.revision
    assert back.digest() == state.digest()
    assert bits(back) == bits(state)
    assert {name: (one.dtype, one.shape) for name, one in back.items()} == {
        name: (one.dtype, one.shape) for name, one in state.items()
    }
    assert all(one.flags.writeable for one in back.values())


def test_into_the_arrays_that_there_are(path: Path) -> None:
    state, other = filled(1, 12), filled(2, 40)
    state.save(path)
    arrays = dict(other)
    assert other.load(path) is None
    assert other.revision == 12
    assert bits(other) == bits(state)
    assert all(other[name] is one for name, one in arrays.items())


def test_tensors_of_other_libraries(path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = SharedState({"x": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(4)}, 3)
    state.save(path)
    other = SharedState({"x": torch.zeros(2, 3), "n": torch.tensor(0)})
    other.load(path)
    assert torch.equal(other["x"], state["x"])
    assert int(other["n"]) == 4
    plain = SharedState.load(path)
    np.testing.assert_array_equal(plain["x"], state["x"].numpy())
    assert plain.digest() == state.digest()


def test_bfloat16_comes_back(path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = SharedState({"x": torch.arange(6).to(torch.bfloat16)}, 3)
    state.save(path)
    assert SharedState.load(path).digest() == state.digest()


def test_a_state_of_nothing(path: Path) -> None:
    SharedState({}, 6).save(path)
    assert SharedState.load(path).revision == 6
    state = SharedState({})
    state.load(path)
    assert state.revision == 6


def test_paths_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SharedState({"x": np.zeros(3)}, 1)
    monkeypatch.chdir(tmp_path)
    for place in ("plain", tmp_path / "path", str(tmp_path / "text")):
        state.save(place)
        assert SharedState.load(place).revision == 1
    for call in (state.load, SharedState.load):
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "missing")
    with pytest.raises(OSError, match="missing"):
        state.save(tmp_path / "missing" / "file")
    assert state.void == ()


def test_other_tensors_are_named(path: Path) -> None:
    SharedState({"a": np.zeros(3), "b": np.zeros(2, "i4"), "c": np.zeros((2, 3))}, 8).save(path)
    mine = {"a": np.ones(3), "b": np.ones(2, "f4"), "c": np.ones((3, 2)), "d": np.ones(1)}
    state = SharedState(mine, 2)
    with pytest.raises(pyccl.InvalidArgumentError) as caught:
        state.load(path)
    text = str(caught.value)
    assert str(path) in text
    assert "'d' is not in the file" in text
    assert "'b' is i32(2) in the file, but f32(2) here" in text
    assert "'c' is f64(2, 3) in the file, but f64(3, 2) here" in text
    assert "'a'" not in text
    with pytest.raises(pyccl.InvalidArgumentError, match="'b' is in the file only"):
        SharedState({"a": np.ones(3), "c": np.ones((2, 3))}).load(path)
    assert all((one == 1).all() for one in mine.values())
    assert (state.revision, state.void) == (2, ())


def test_of_many_other_tensors_some_are_named(path: Path) -> None:
    SharedState({str(i): np.zeros(1) for i in range(50)}).save(path)
    with pytest.raises(pyccl.InvalidArgumentError, match="and 42 more"):
        SharedState({}).load(path)


def test_expect_next_is_part_of_what_a_snapshot_stands_for(path: Path) -> None:
    state = SharedState({"x": np.arange(3.0)}, 4, expect_next=True)
    state.save(path)
    assert SharedState.load(path, expect_next=True).digest() == state.digest()
    assert SharedState.load(path).digest() == state.digest()
    with pytest.raises(pyccl.InvalidArgumentError, match="expect_next=True"):
        SharedState.load(path, expect_next=False)
    # Nothing is overwritten by a state of another rule.
    x = np.zeros(3)
    with pytest.raises(pyccl.InvalidArgumentError, match="expect_next is True there"):
        SharedState({"x": x}).load(path)
    assert not x.any()


def damaged(whole: bytes) -> dict[str, bytes]:
    """By what was done to it."""
    found = {f"cut at {at}": whole[:at] for at in (0, 7, 8, 40, len(whole) // 2, len(whole) - 1)}
    for at in (0, 9, 60, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        found[f"byte {at}"] = bytes(changed)
    found["longer"] = whole + b"\0"
    found["twice"] = whole + whole
    found["something else"] = b"PK\3\4" + whole
    return found


def test_a_damaged_file_changes_nothing(path: Path) -> None:
    filled(1, 12).save(path)
    mine = filled(2, 40)
    before, digest = bits(mine), mine.digest()
    for what, content in damaged(path.read_bytes()).items():
        path.write_bytes(content)
        for call in (mine.load, SharedState.load):
            with pytest.raises(pyccl.StateFileError) as caught:
                call(path)
            assert str(path) in str(caught.value), what
        assert bits(mine) == before, what
        assert (mine.revision, mine.void, mine.digest()) == (40, (), digest), what


def test_a_digest_of_another_state_is_noticed(path: Path) -> None:
    """A sound file whose header lies about the state."""
    x = np.arange(4.0)
    info = _state_file.TensorInfo("x", "f64", (4,), x.nbytes)
    header = _state_file.Header(3, "0" * 32, (info,))
    _state_file.write(path, header, [memoryview(x).cast("B")])
    with pytest.raises(pyccl.StateFileError, match="digest"):
        SharedState.load(path)
    state = SharedState({"x": np.zeros(4)}, 1)
    with pytest.raises(pyccl.StateFileError, match="digest"):
        state.load(path)
    # Here it is known only when all has been written.
    assert state.void == ("x",)
    assert state.revision == 1


def test_a_void_state_is_not_saved_until_somebody_vouches_for_it(path: Path) -> None:
    state = filled(1, 7)
    names = sorted(state)
    state._core.spoil()
    assert sorted(state.void) == names
    assert ", void: " in repr(state)
    with pytest.raises(pyccl.StateFileError, match="not whole, see `void`"):
        state.save(path)
    assert not path.exists()
    state.revision = 8
    assert state.void == ()
    state.save(path)
    state._core.spoil()
    state.load(path)
    assert (state.void, state.revision) == ((), 8)


def test_a_void_state_of_no_tensors_is_refused_too(path: Path) -> None:
    state = SharedState({}, 7)
    state._core.spoil()
    state.revision = 7
    assert state.void == ()
    state.save(path)


def test_tensors_that_change_while_they_are_saved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.zeros(1 << 20)
    state = SharedState({"x": x}, 1)
    state.save(path)
    whole = path.read_bytes()
    pack = _state_file._pack

    def changing(data: memoryview) -> bytes:
        x[-1] += 1
        return pack(data)

    monkeypatch.setattr(_state_file, "_pack", changing)
    with pytest.raises(pyccl.StateFileError, match="changed while they were saved"):
        state.save(path)
    assert path.read_bytes() == whole
    assert os.listdir(path.parent) == [path.name]


def test_an_impatient_user_leaves_a_void_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an untouched one, if the interrupt comes before anything was written."""
    filled(1, 12).save(path)
    for calls_before in (0, 30, 60, 500):
        mine = filled(2, 40)
        before = mine.digest()
        unpack, calls = _state_file._unpack, [0]

        def impatient(*arguments: Any, limit: int = calls_before, **options: Any) -> None:
            calls[0] += 1  # noqa: B023
            if calls[0] > limit:  # noqa: B023
                raise KeyboardInterrupt
            unpack(*arguments, **options)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(_state_file, "_unpack", impatient)
            if calls_before < 500:
                with pytest.raises(KeyboardInterrupt):
                    mine.load(path)
                assert (mine.void == ()) == (mine.digest() == before)
                assert mine.revision == 40
            else:
                mine.load(path)
        mine.load(path)
        assert (mine.void, mine.revision) == ((), 12)
