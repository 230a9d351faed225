"""What an operation may work on, and what to say about everything else.

Taken without a copy: numpy arrays, anything with the buffer protocol (array.array, bytearray,
memoryview, ctypes arrays), and CPU tensors with DLPack (torch, jax and others, which are not
imported here). A list or tuple of them is one operation.

The core takes what is plainly right by itself. Only if it does not, the slow half of this file
looks closer: it unwraps DLPack and bfloat16, or raises an error that names the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyccl import _core
from pyccl.errors import InvalidArgumentError, InvalidTypeError

ArrayLike = Any
"""A numpy array, an object with the buffer protocol, or a CPU tensor with DLPack."""

_READ_OFF_THE_BUFFER = -1
_SUPPORTED = "f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64"
_NUMPY_NAMES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}  # fmt: skip


def gather(x: ArrayLike, out: ArrayLike | None) -> _core.Arrays:
    """The arrays of one operation as the core wants them; in place if `out` is None."""
    if not isinstance(x, (list, tuple)):
        if isinstance(out, (list, tuple)):
            raise InvalidTypeError("out is a list, but x is a single array")
        arrays = _core.Arrays(1)
        if not arrays.add(x, out, _READ_OFF_THE_BUFFER):
            _add_slowly(arrays, x, out, "x", "out")
        return arrays

    if not x:
        raise InvalidArgumentError("x is an empty list: there is nothing to reduce")
    if out is not None:
        if not isinstance(out, (list, tuple)):
            raise InvalidTypeError("x is a list of arrays, so out must be one too")
        if len(out) != len(x):
            raise InvalidArgumentError(f"x has {len(x)} arrays, but out has {len(out)}")
    arrays = _core.Arrays(len(x))
    for i, one in enumerate(x):
        target = None if out is None else out[i]
        if out is not None and target is None:
            raise InvalidTypeError(f"out[{i}] is None, not an array")
        if not arrays.add(one, target, _READ_OFF_THE_BUFFER):
            _add_slowly(arrays, one, target, f"x[{i}]", f"out[{i}]")
    return arrays


def _add_slowly(arrays: _core.Arrays, x: Any, out: Any, x_name: str, out_name: str) -> None:
    memory, dtype = _memory_of(x, x_name, writable=out is None)
    target = None
    if out is not None:
        target, out_dtype = _memory_of(out, out_name, writable=True)
        if dtype != out_dtype:
            raise InvalidTypeError(
                f"{out_name} holds {_name_of(out_dtype)}, but {x_name} holds {_name_of(dtype)}"
            )
        shape, out_shape = memoryview(memory).shape, memoryview(target).shape
        if shape != out_shape:
            raise InvalidArgumentError(
                f"{out_name} has shape {_plain(out_shape)}, but {x_name} has shape {_plain(shape)}"
            )
    if not arrays.add(memory, target, dtype):
        raise InvalidArgumentError(f"{x_name} gives no plain view of its memory")


def _memory_of(x: Any, name: str, *, writable: bool) -> tuple[Any, int]:
    """An object with a buffer over the array's own memory, and the type of its elements."""
    if isinstance(x, np.ndarray):
        memory, dtype = _of_numpy(x, name)
    else:
        try:
            view = memoryview(x)
        except TypeError:
            memory, dtype = _of_dlpack(x, name)
        except (ValueError, BufferError) as error:
            raise InvalidArgumentError(f"{name} does not give its memory away: {error}") from error
        else:
            memory, dtype = _of_buffer(view, name)
    if writable and memoryview(memory).readonly:
        advice = "; pass out= for the result" if name.startswith("x") else ""
        raise InvalidArgumentError(f"{name} is read-only{advice}")
    return memory, dtype


def _of_numpy(x: np.ndarray[Any, Any], name: str) -> tuple[Any, int]:
    known = _NUMPY_NAMES.get(x.dtype.name)
    if known is None:
        raise _unsupported(name, str(x.dtype))
    if not x.dtype.isnative:
        raise InvalidTypeError(f"{name} is in foreign byte order ({x.dtype.str})")
    if not x.flags.c_contiguous:
        raise _not_contiguous(name, x.shape, x.strides)
    # numpy has no letter for bfloat16, which comes from ml_dtypes, and refuses to make a buffer.
    return (x.view(np.uint16) if known == "bf16" else x), _core.dtypes[known]


def _of_buffer(view: memoryview, name: str) -> tuple[Any, int]:
    if not view.c_contiguous:
        raise _not_contiguous(name, view.shape, view.strides)
    try:
        dtype = np.dtype(view.format)
    except (TypeError, ValueError):
        raise _unsupported(name, f"format {view.format!r}") from None
    known = _NUMPY_NAMES.get(dtype.name)
    if known is None or dtype.itemsize != view.itemsize:
        raise _unsupported(name, f"format {view.format!r}")
    if not dtype.isnative:
        raise InvalidTypeError(f"{name} is in foreign byte order (format {view.format!r})")
    return view, _core.dtypes[known]


def _of_dlpack(x: Any, name: str) -> tuple[Any, int]:
    if not hasattr(x, "__dlpack__"):
        raise InvalidTypeError(
            f"{name} is of type {type(x).__name__}, not an array: "
            "it has neither the buffer protocol nor DLPack"
        )
    try:
        try:
            capsule = x.__dlpack__(max_version=(1, 0))
        except TypeError:  # from before DLPack had versions
            capsule = x.__dlpack__()
        memory = _core.DlpackMemory(capsule)
    except TypeError as error:
        raise InvalidTypeError(f"{name} {error}; supported are {_SUPPORTED}") from error
    except Exception as error:
        # Each library refuses in its own way: BufferError, RuntimeError, ValueError.
        raise InvalidArgumentError(f"{name} can't be taken by DLPack: {error}") from error
    return memory, memory.dtype


def _unsupported(name: str, what: str) -> InvalidTypeError:
    hint = " (view it as uint8)" if what in ("bool", "format '?'") else ""
    return InvalidTypeError(f"{name} holds {what}{hint}; supported are {_SUPPORTED}")


def _not_contiguous(name: str, shape: Any, strides: Any) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name} is not C-contiguous (shape {_plain(shape)}, strides {_plain(strides)} bytes)"
    )


def _plain(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers or ())


def _name_of(dtype: int) -> str:
    return next(name for name, code in _core.dtypes.items() if code == dtype)
