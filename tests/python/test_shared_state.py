"""Shared state on its own: what it takes, what its digest tells, and what a mapping must do."""

from __future__ import annotations

import array
import ctypes
import itertools
import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl import SharedState

from .values import DTYPES, Array, type_of

BLOCK = 1 << 20
ALL_DTYPES = [*DTYPES, "?", "c8", "c16"]


class Tensor:
    """numpy's memory behind DLPack alone, as libraries without the buffer protocol have it."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)


def digest_of(expect_next: bool = False, revision: int = 0, **tensors: Any) -> str:
    return SharedState(tensors, revision, expect_next=expect_next).digest()


# ---- what is taken


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_all_types_and_shapes_are_taken(dtype: str) -> None:
    kind = type_of(dtype)
    shapes: list[Any] = [(), (0,), (1,), (7,), (3, 0, 5), (2, 3, 4), (1,) * 32]
    tensors = {str(shape): np.zeros(shape, kind) for shape in shapes}
    state = SharedState(tensors, 5)
    assert state.bytes == sum(one.nbytes for one in tensors.values())
    assert state.revision == 5
    assert state.void == ()
    before = state.digest()
    tensors[str((2, 3, 4))].view(np.uint8).reshape(-1)[-1] ^= 1
    assert state.digest() != before


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(b"12345678"),
        lambda: memoryview(bytearray(b"12345678")),
        lambda: array.array("d", [3.0]),
        lambda: memoryview(np.zeros((2, 4), np.uint8)),
        lambda: memoryview(np.zeros(8, bool)),
        lambda: memoryview(np.zeros(1, np.complex64)),
        lambda: (ctypes.c_int32 * 2)(),
        lambda: Tensor(np.zeros(8, np.uint8)),
        lambda: Tensor(np.zeros(1, np.complex64)),
        lambda: Tensor(np.zeros(8, bool)),
    ],
)
def test_whatever_gives_its_memory_is_taken(make: Any) -> None:
    x = make()
    state = SharedState({"x": x})
    assert state["x"] is x
    assert state.bytes == 8
    before = state.digest()
    bytes_of = np.asarray(memoryview(getattr(x, "values", x))).reshape(-1).view(np.uint8)
    bytes_of[3] ^= 64
    assert state.digest() != before


def test_the_memory_cant_be_taken_away() -> None:
    x = bytearray(16)
    state = SharedState({"x": x})
    with pytest.raises(BufferError):
        x.extend(b"more")
    del state
    x.extend(b"more")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64", "bool", "complex64"])
def test_torch_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.zeros(2, 3).to(getattr(torch, name))
    state = SharedState({"x": x, "step": torch.tensor(7), "none": torch.zeros(0)})
    before = state.digest()
    x[1, 2] = 1
    assert state.digest() != before
    with pytest.raises(pyccl.InvalidArgumentError, match=r"tensor 'x' .*not contiguous"):
        SharedState({"x": x.T})
    with pytest.raises(pyccl.InvalidArgumentError, match=r"tensor 'x' can't be taken.*detach"):
        SharedState({"x": torch.ones(3, requires_grad=True)})


def test_libraries_agree_about_a_type() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = {digest_of(x=one) for one in (values, memoryview(values), Tensor(values))}
    assert len(found) == 1
    flags = np.array([True, False])
    assert digest_of(x=flags) == digest_of(x=memoryview(flags)) == digest_of(x=Tensor(flags))
    torch = pytest.importorskip("torch")
    assert digest_of(x=torch.from_numpy(values)) in found
    assert digest_of(x=torch.from_numpy(flags)) == digest_of(x=flags)


def test_no_tensors_at_all() -> None:
    state = SharedState({}, 3)
    assert (len(state), state.bytes, state.revision, state.void) == (0, 0, 3, ())
    assert state.digest() != digest_of(x=np.zeros(0))


# ---- what is refused


def read_only() -> Array:
    x = np.zeros(3)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (read_only(), "tensor 'w' is read-only, but a sync may have to write it"),
        (b"1234", "tensor 'w' is read-only"),
        (memoryview(read_only()), "tensor 'w' is read-only"),
        (np.zeros((4, 4))[:, :2], r"tensor 'w' is not C-contiguous \(shape \(4, 2\)"),
        (np.zeros((4, 4)).T[:2], "tensor 'w' is not C-contiguous"),
        (np.zeros((4, 4), bool)[:, 1], "tensor 'w' is not C-contiguous"),
        (memoryview(np.zeros((4, 4)))[::2], "tensor 'w' is not C-contiguous"),
        (Tensor(np.zeros((4, 4))[:, :2]), "tensor 'w' .*not contiguous"),
        (np.zeros((4, 4), np.complex64)[:, 1], "tensor 'w' is not C-contiguous"),
    ],
)
def test_memory_that_wont_do(given: Any, text: str) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=text) as caught:
        SharedState({"w": given})
    assert not isinstance(caught.value, pyccl.InvalidTypeError)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (7, "tensor 'w' is of type int, not an array"),
        (1.5, "tensor 'w' is of type float, not an array"),
        (None, "tensor 'w' is of type NoneType, not an array"),
        ([1, 2], "tensor 'w' is of type list, not an array"),
        ("text", "tensor 'w' is of type str, not an array"),
        (np.array(["a"]), "tensor 'w' holds "),
        (np.array([None]), "tensor 'w' holds object"),
        (np.zeros(2, "M8[s]"), "tensor 'w' holds datetime64"),
        (np.zeros(2, "f4,i4"), "tensor 'w' holds "),
        (np.zeros(2, np.dtype("f8").newbyteorder()), "tensor 'w' is in foreign byte order"),
        (np.zeros(2, np.longdouble), "tensor 'w' holds "),
    ],
)
def test_what_is_no_tensor(given: Any, text: str) -> None:
    with pytest.raises(pyccl.InvalidTypeError, match=text):
        SharedState({"w": given})


def test_complex_numbers_of_foreign_order_are_refused() -> None:
    for kind in ("c8", "c16"):
        foreign = np.zeros(2, np.dtype(kind).newbyteorder())
        with pytest.raises(pyccl.InvalidTypeError, match="tensor 'w' is in foreign byte order"):
            SharedState({"w": foreign})


def test_numbers_are_told_what_to_be() -> None:
    for scalar in (np.float32(1), np.int64(7), np.bool_(True)):
        with pytest.raises(pyccl.InvalidArgumentError, match="tensor 'step'") as caught:
            SharedState({"step": scalar})
        assert "numpy.array(7)" in str(caught.value)


def test_names() -> None:
    for name in ("", "layers.0.weight", "\u4e2d\u6587", "a" * 4096, "with 'quotes' and\nlines"):
        assert list(SharedState({name: np.zeros(1)})) == [name]
    for bad in (1, None, b"w", ("a", "b")):
        with pytest.raises(pyccl.InvalidTypeError, match="the name of a tensor is"):
            SharedState({bad: np.zeros(1)})
    with pytest.raises(pyccl.InvalidArgumentError, match="4096"):
        SharedState({"a" * 4097: np.zeros(1)})
    for tensors in ([("w", np.zeros(1))], None, np.zeros(3), "w"):
        with pytest.raises(pyccl.InvalidTypeError, match="not a mapping"):
            SharedState(tensors)  # type: ignore[arg-type]


def test_a_name_that_is_no_text_in_utf8_is_refused() -> None:
    with pytest.raises(pyccl.PycclError):
        SharedState({"\udc80": np.zeros(1)})


def test_memory_that_two_tensors_share() -> None:
    x = np.zeros(10)
    for a, b in ((x, x), (x[:6], x[5:]), (x, x[3:4]), (x.view(np.uint8), x[:1]), (x[:1], x)):
        with pytest.raises(pyccl.InvalidArgumentError, match="share memory") as caught:
            SharedState({"a": a, "b": b})
        assert "'a'" in str(caught.value)
        assert "'b'" in str(caught.value)
    SharedState({"a": x[:5], "b": x[5:], "none": x[3:3]})


@pytest.mark.parametrize("revision", [-1, 1 << 64, 1.5, "7", None])
def test_a_revision_out_of_range(revision: Any) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match="revision is"):
        SharedState({}, revision)
    state = SharedState({}, 4)
    with pytest.raises(pyccl.InvalidArgumentError, match="revision is"):
        state.revision = revision
    assert state.revision == 4


def test_revisions_of_all_sizes() -> None:
    state = SharedState({})
    assert state.revision == 0
    for revision in (1, (1 << 63) + 1, (1 << 64) - 1, np.int64(3)):
        state.revision = revision  # type: ignore[assignment]
        assert state.revision == revision
        assert type(state.revision) is int
        assert SharedState({}, revision).revision == revision  # type: ignore[arg-type]


# ---- the digest


def test_the_digest_is_of_names_types_shapes_and_bits() -> None:
    x = np.arange(6, dtype=np.int32)
    found = [
        digest_of(x=x),
        digest_of(y=x),
        digest_of(x=x.view(np.uint32)),
        digest_of(x=x.view(np.float32)),
        digest_of(x=x.reshape(2, 3)),
        digest_of(x=x.reshape(3, 2)),
        digest_of(x=x.reshape(6, 1)),
        digest_of(x=x + 1),
        digest_of(x=x[:5].copy()),
        digest_of(x=x[:3].copy(), y=x[3:].copy()),
        digest_of(x=x[:3].copy(), z=x[3:].copy()),
        digest_of(x=x, y=np.zeros(0)),
        digest_of(x=x, y=np.zeros((0, 1))),
        digest_of(x=x, expect_next=True),
        digest_of(),
        digest_of(expect_next=True),
    ]
    assert len(set(found)) == len(found)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in found)


def test_the_digest_is_not_of_order_or_revision_or_place() -> None:
    tensors = {name: np.full(5, i, np.float32) for i, name in enumerate("cab\u4e2d")}
    found = {
        SharedState({name: tensors[name].copy() for name in order}, revision).digest()
        for revision, order in enumerate(itertools.permutations(tensors))
    }
    assert len(found) == 1
    # Nor of where it lies in memory, or how it is aligned.
    raw = np.zeros(64, np.uint8)
    aligned = {digest_of(x=raw[shift : shift + 24].copy()) for shift in range(8)}
    shifted = {digest_of(x=raw[shift : shift + 24]) for shift in range(8)}
    assert aligned == shifted == {digest_of(x=np.zeros(24, np.uint8))}


def test_bits_count_and_not_values() -> None:
    assert digest_of(x=np.zeros(1)) != digest_of(x=-np.zeros(1))
    quiet = np.array([0x7FF8000000000000], np.uint64).view(np.float64)
    other = np.array([0x7FF8000000000001], np.uint64).view(np.float64)
    assert digest_of(x=quiet) == digest_of(x=quiet.copy())
    assert digest_of(x=quiet) != digest_of(x=other)


@pytest.mark.parametrize("size", [1, 16, 241, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 9 * BLOCK])
def test_every_byte_counts(size: int) -> None:
    x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    state = SharedState({"x": x, "y": np.zeros(3)})
    before = state.digest()
    rng = np.random.default_rng(1)
    edges = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, size // 2, size - 2, size - 1]
    places = {at for at in edges if 0 <= at < size} | set(rng.integers(0, size, 12).tolist())
    seen = {before}
    for at in sorted(places):
        bit = np.uint8(1 << int(rng.integers(0, 8)))
        x[at] ^= bit
        seen.add(state.digest())
        x[at] ^= bit
    assert len(seen) == 1 + len(places)
    assert state.digest() == before


def test_blocks_that_change_places_count() -> None:
    x = np.zeros((3, BLOCK), np.uint8)
    x[1] = 1
    before = digest_of(x=x)
    assert digest_of(x=x[[1, 0, 2]]) != before
    assert digest_of(x=x[[0, 2, 1]]) != before
    # Nor may bytes move between tensors without notice.
    assert digest_of(a=x[0].copy(), b=x[1].copy()) != digest_of(a=x[1].copy(), b=x[0].copy())


def test_threads_may_ask_at_once() -> None:
    state = SharedState({"x": np.random.default_rng(0).standard_normal(1 << 20)})
    expected = state.digest()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend(state.digest() for _ in range(3)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [expected] * 12


# ---- as a mapping


def test_it_is_a_mapping_of_the_callers_own_arrays() -> None:
    tensors = {"b": np.zeros(3), "a": bytearray(4)}
    state = SharedState(tensors, 2)
    assert list(state) == ["b", "a"]
    assert len(state) == 2
    assert dict(state.items()) == tensors
    assert all(state[name] is one for name, one in tensors.items())
    assert "a" in state
    assert "c" not in state
    assert state.get("c") is None
    with pytest.raises(KeyError):
        state["c"]
    with pytest.raises(TypeError):
        state["a"] = np.zeros(3)  # type: ignore[index]
    # What is done to the caller's mapping later is its own affair.
    tensors["c"] = np.zeros(1)
    del tensors["a"]
    assert list(state) == ["b", "a"]


def test_equality_is_identity() -> None:
    x, y = {"x": np.zeros(3)}, {"x": np.zeros(3)}
    state = SharedState(x)
    assert state == state
    assert state != SharedState(y)
    assert len({state, state}) == 1


def test_the_text_says_what_it_is() -> None:
    state = SharedState({"x": np.zeros(3), "y": np.zeros(1, np.int8)}, 9)
    assert repr(state) == "<pyccl.SharedState of 2 tensors, 25 bytes, revision 9>"
    with pytest.raises(AttributeError):
        state.revison = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        state.bytes = 3  # type: ignore[misc]
