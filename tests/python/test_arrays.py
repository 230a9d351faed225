"""What all_reduce takes as arrays, and what it says about the rest."""

from __future__ import annotations

import array
import ctypes
from typing import Any

import numpy as np
import pytest

import pyccl

NUMPY_TYPES = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_every_type_is_taken_in_place_and_out_of_place(
    alone: pyccl.Communicator, dtype: str
) -> None:
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    out = np.zeros_like(x)
    alone.all_reduce(x, out=out)
    np.testing.assert_array_equal(out, x)
    alone.all_reduce(x)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize(
    "memory",
    [
        array.array("d", [1.0, 2.0]),
        array.array("l", [1, 2]),
        bytearray(b"\x01\x02"),
        memoryview(bytearray(8)).cast("f"),
        (ctypes.c_int32 * 3)(1, 2, 3),
        (ctypes.c_float * 2)(1.0, 2.0),
    ],
    ids=lambda memory: type(memory).__name__,
)
def test_anything_with_a_buffer_is_taken(alone: pyccl.Communicator, memory: Any) -> None:
    before = bytes(memory)
    alone.all_reduce(memory)
    assert bytes(memory) == before


def test_empty_and_zero_dimensional_arrays_are_fine(alone: pyccl.Communicator) -> None:
    alone.all_reduce(np.zeros((0, 3), np.float32))
    alone.all_reduce([np.zeros(0), np.ones(2), np.zeros(0, np.int8)])
    zero_dimensional = np.array(7.0)
    alone.all_reduce(zero_dimensional)
    assert zero_dimensional == 7.0


def test_read_only_input_is_fine_with_out(alone: pyccl.Communicator) -> None:
    out = bytearray(3)
    alone.all_reduce(b"abc", out=out)
    assert out == b"abc"


def test_out_may_be_the_input_itself(alone: pyccl.Communicator) -> None:
    x = np.arange(5.0)
    alone.all_reduce(x, out=x)
    np.testing.assert_array_equal(x, np.arange(5.0))


def test_weight_shows_that_the_memory_itself_is_written(alone: pyccl.Communicator) -> None:
    x = [np.ones(3, np.float32), array.array("d", [1.0])]
    alone.all_reduce(x, weight=2.5)
    assert x[0].tolist() == [2.5] * 3
    assert x[1].tolist() == [2.5]


def read_only() -> Any:
    x = np.ones(3)
    x.flags.writeable = False
    return x


Fault = tuple[Any, Any, type[pyccl.PycclError], str]
STRIDED = np.ones((4, 4))[:, :2]
SHARED = np.ones(10)
FAULTS: dict[str, Fault] = {
    "read-only": (read_only(), None, pyccl.InvalidArgumentError, "x is read-only; pass out="),
    "read-only in a list": (
        [np.ones(1), b"abc"], None, pyccl.InvalidArgumentError, r"x\[1\] is read-only"),
    "read-only out": (
        np.ones(3), read_only(), pyccl.InvalidArgumentError, "out is read-only"),
    "strided": (STRIDED, None, pyccl.InvalidArgumentError, r"x is not C-contiguous \(shape \(4, 2"),
    "fortran order": (
        np.ones((2, 3), order="F"), None, pyccl.InvalidArgumentError, "not C-contiguous"),
    "strided buffer": (
        memoryview(bytearray(8))[::2], None, pyccl.InvalidArgumentError, "not C-contiguous"),
    "objects": (np.array([object()]), None, pyccl.InvalidTypeError, "x holds object"),
    "complex": (np.ones(2, complex), None, pyccl.InvalidTypeError, "x holds complex128"),
    "bool": (np.ones(2, bool), None, pyccl.InvalidTypeError, "view it as uint8"),
    "bool buffer": (
        memoryview(bytearray(2)).cast("?"), None, pyccl.InvalidTypeError, "view it as uint8"),
    "characters": (
        memoryview(bytearray(2)).cast("c"), None, pyccl.InvalidTypeError, "x holds format 'c'"),
    "structured": (np.zeros(2, "f4,i4"), None, pyccl.InvalidTypeError, "x holds"),
    "long double": (
        np.ones(2, np.longdouble), None, pyccl.InvalidTypeError, "x holds (float128|longdouble)"),
    "foreign byte order": (
        np.ones(2, np.dtype("f4").newbyteorder()), None, pyccl.InvalidTypeError, "byte order"),
    "no array": (3.0, None, pyccl.InvalidTypeError, "x is of type float, not an array"),
    "list of numbers": (
        [1.0, 2.0], None, pyccl.InvalidTypeError, r"x\[0\] is of type float, not an array"),
    "none": (None, None, pyccl.InvalidTypeError, "x is of type NoneType"),
    "empty list": ([], None, pyccl.InvalidArgumentError, "x is an empty list"),
    "other shape": (
        np.ones((2, 3)), np.ones((3, 2)), pyccl.InvalidArgumentError,
        r"out has shape \(3, 2\), but x has shape \(2, 3\)"),
    "other type": (
        np.ones(3), np.ones(3, np.float32), pyccl.InvalidTypeError,
        "out holds f32, but x holds f64"),
    "out is a list": (np.ones(3), [np.ones(3)], pyccl.InvalidTypeError, "out is a list"),
    "out is no list": ([np.ones(3)], np.ones(3), pyccl.InvalidTypeError, "x is a list"),
    "out is shorter": (
        [np.ones(1), np.ones(1)], [np.ones(1)], pyccl.InvalidArgumentError, "2 arrays, but out"),
    "none in out": ([np.ones(1)], [None], pyccl.InvalidTypeError, r"out\[0\] is None"),
    "out overlaps": (SHARED[:6], SHARED[4:], pyccl.InvalidArgumentError, "share memory"),
    "arrays overlap": (
        [SHARED[:6], SHARED[5:]], None, pyccl.InvalidArgumentError, "array 0 and array 1"),
    "out overlaps another input": (
        [SHARED[:2], SHARED[4:6]], [SHARED[5:7], np.ones(2)], pyccl.InvalidArgumentError,
        "array 0 and array 1"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "out", "error", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_bad_arrays_are_refused_by_name(
    alone: pyccl.Communicator, x: Any, out: Any, error: type[pyccl.PycclError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        alone.all_reduce(x, out=out)
    assert isinstance(caught.value, (ValueError, TypeError))
    # Nothing was sent, so the communicator is as good as before.
    assert alone.all_reduce(np.ones(2)).world_size == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"op": "mean"}, "op is 'mean', but must be one of sum, avg"),
        ({"op": 3}, "op is 3"),
        ({"op": ["sum"]}, "no plain value"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": "1"}, "weight is '1'"),
        ({"tag": -1}, "tag is -1"),
        ({"tag": 1 << 32}, "tag is 4294967296"),
        ({"on_loss": "ignore"}, "must be one of retry, raise"),
        ({"algorithm": "tree"}, "must be one of auto, ring, direct"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
    ],
)
def test_bad_options_are_refused_by_name(
    alone: pyccl.Communicator, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=text):
        alone.all_reduce(np.ones(2), **options)


@pytest.mark.parametrize("op", ["band", "bor", "bxor"])
def test_bit_operations_want_integers(alone: pyccl.Communicator, op: Any) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=op):
        alone.all_reduce(np.ones(2, np.float32), op=op)


def test_averages_want_floating_point(alone: pyccl.Communicator) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match="avg"):
        alone.all_reduce([np.ones(2), np.ones(2, np.int32)], op="avg")


def test_the_memory_of_an_operation_cannot_be_moved(alone: pyccl.Communicator) -> None:
    memory = bytearray(8)
    held = pyccl._core.Arrays(1)
    assert held.add(memory, None, -1)
    with pytest.raises(BufferError):
        memory.extend(b"more")
    del held
    memory.extend(b"more")
