"""What an operation may work on, and what to say about everything else.

Taken without a copy: numpy arrays, anything with the buffer protocol (array.array, bytearray,
memoryview, ctypes arrays), and CPU tensors with DLPack (torch, jax and others, which are not
imported here). A list or tuple of them is one operation.

The core takes what is plainly right by itself. Only if it does not, the slow half of this file
looks closer: it unwraps DLPack and bfloat16, or raises an error that names the array.

Sizes that depend on the number of members are not judged here. A member that is lost between
cutting and calling makes them wrong at some ranks only, and a call that only some refuse would put
the numbers of all later ones out of step: the core refuses such a call for all.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from pyccl import _core
from pyccl.errors import InvalidArgumentError, InvalidTypeError

ArrayLike = Any
"""A numpy array, an object with the buffer protocol, or a CPU tensor with DLPack."""

_READ_OFF_THE_BUFFER = -1
_ROWS_MAX = 1 << 48
_SUPPORTED = "f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64"
_FLOATING = ("f32", "f64", "f16", "bf16")
_NUMPY_NAMES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}  # fmt: skip
# Of shared state only, which is moved and never reduced.
_ONLY_MOVED = {"bool": "bool", "complex64": "c64", "complex128": "c128"}

Shape = tuple[int, ...]
ShapeOf = Callable[[Shape], Shape]
"""From an input's shape to that of its result."""


def paired(x: ArrayLike, out: ArrayLike | None, world: int = 0) -> _core.Arrays:
    """Arrays whose results look as they do; in place if `out` is None."""
    if not isinstance(x, (list, tuple)):
        if isinstance(out, (list, tuple)):
            raise InvalidTypeError("out is a list, but x is a single array")
        arrays = _core.Arrays(1, world)
        if not arrays.add(x, out, _READ_OFF_THE_BUFFER):
            _add_slowly(arrays, x, out, "x", "out")
        return arrays

    _check_lists(x, out)
    arrays = _core.Arrays(len(x), world)
    for i, one in enumerate(x):
        target = None if out is None else out[i]
        if out is not None and target is None:
            raise InvalidTypeError(f"out[{i}] is None, not an array")
        if not arrays.add(one, target, _READ_OFF_THE_BUFFER):
            _add_slowly(arrays, one, target, f"x[{i}]", f"out[{i}]")
    return arrays


def apart(
    x: ArrayLike | None, out: ArrayLike | None, world: int, shape_of: ShapeOf, *, reads: bool = True
) -> tuple[_core.Arrays, Any]:
    """Arrays whose results look different, and those results: `out`, or new arrays.

    Where `reads` is false only the shape and the type of `x` count, and with `out` not even those.
    """
    if x is None and out is not None and not reads:
        x = [None] * len(out) if isinstance(out, (list, tuple)) else None
    if not isinstance(x, (list, tuple)):
        if isinstance(out, (list, tuple)):
            raise InvalidTypeError("out is a list, but x is a single array")
        arrays = _core.Arrays(1, world)
        return arrays, _add_with_result(arrays, x, out, shape_of, reads, ("x", "out"))

    _check_lists(x, out)
    arrays = _core.Arrays(len(x), world)
    results = []
    for i, one in enumerate(x):
        if out is not None and out[i] is None:
            raise InvalidTypeError(f"out[{i}] is None, not an array")
        target = None if out is None else out[i]
        names = f"x[{i}]", f"out[{i}]"
        results.append(_add_with_result(arrays, one, target, shape_of, reads, names))
    return arrays, results if out is None else out


def read_only(x: ArrayLike, world: int = 0) -> _core.Arrays:
    """Arrays that are sent and have no result here."""
    return _only(x, "x", world, writable=False)


def written_only(x: ArrayLike) -> _core.Arrays:
    """Arrays that are received into."""
    return _only(x, "x", 0, writable=True)


def floats(x: ArrayLike) -> list[tuple[str, Shape]]:
    """Name and shape of each array; an error where one is of another kind of numbers."""
    many = isinstance(x, (list, tuple))
    if many and not x:
        raise InvalidArgumentError("x is an empty list: there is nothing to work on")
    found = []
    for i, one in enumerate(x if many else [x]):
        name = f"x[{i}]" if many else "x"
        memory, dtype = _memory_of(one, name, writable=False)
        if _name_of(dtype) not in _FLOATING:
            raise InvalidTypeError(
                f"{name} holds {_name_of(dtype)}; only {' '.join(_FLOATING)} can be quantized"
            )
        found.append((name, memoryview(memory).shape or ()))
    return found


def tensor(x: ArrayLike, name: str) -> tuple[Any, str, Shape]:
    """What shared state may hold: writable memory without a gap, as an object with a buffer, the
    name of its type, and its shape. Bits are never looked at, so bool and complex will do too."""
    memory: Any
    if isinstance(x, np.ndarray):
        only_moved = _ONLY_MOVED.get(x.dtype.name)
        memory, kind = _of_numpy(x, name, only_moved)
    else:
        memory, kind = _tensor_of(x, name)
    view = memoryview(memory)
    if view.readonly:
        raise InvalidArgumentError(
            f"{name} is read-only, but a sync may have to write it (a number is to be an array "
            "without dimensions: numpy.array(7))"
        )
    return memory, kind, view.shape or ()


def row_size(x: ArrayLike, name: str) -> int:
    """Elements of what counts by rank count: of a row."""
    if isinstance(x, (list, tuple)):
        raise InvalidArgumentError("counts by rank are for a single array, not for a list")
    if isinstance(x, np.ndarray):
        shape = x.shape
    else:
        shape = memoryview(_memory_of(x, name, writable=False)[0]).shape or ()
    if not shape:
        raise InvalidArgumentError(f"{name} has no first dimension to count the rows of")
    return math.prod(shape[1:])


def rows(counts: Any, name: str) -> list[int]:
    """Counts of rows by rank as plain numbers."""
    try:
        numbers_by_rank = list(counts)
    except TypeError as error:
        raise InvalidTypeError(f"{name} is no sequence of numbers: {error}") from error
    for i, one in enumerate(numbers_by_rank):
        if not isinstance(one, numbers.Integral) or not 0 <= int(one) < _ROWS_MAX:
            raise InvalidArgumentError(f"{name}[{i}] is {one!r}, but must be a count of rows")
    return [int(one) for one in numbers_by_rank]


def stacked(count: int) -> ShapeOf:
    """As many inputs, one behind the other along a new first dimension."""
    return lambda shape: (count, *shape)


def part(world: int) -> ShapeOf:
    """The share of one of so many members. Where the shares have one row each, and the rows are
    arrays, that dimension goes."""

    def share(shape: Shape) -> Shape:
        if not shape:
            raise InvalidArgumentError("x has no first dimension to be divided among the members")
        if shape[0] == world and len(shape) > 1:
            return shape[1:]
        return (shape[0] // world, *shape[1:])

    return share


def with_rows(count: int) -> ShapeOf:
    return lambda shape: (count, *shape[1:])


def same(shape: Shape) -> Shape:
    return shape


def _check_lists(x: Any, out: Any) -> None:
    if not x:
        raise InvalidArgumentError("x is an empty list: there is nothing to work on")
    if out is None:
        return
    if not isinstance(out, (list, tuple)):
        raise InvalidTypeError("x is a list of arrays, so out must be one too")
    if len(out) != len(x):
        raise InvalidArgumentError(f"x has {len(x)} arrays, but out has {len(out)}")


def _only(x: ArrayLike, name: str, world: int, *, writable: bool) -> _core.Arrays:
    many = isinstance(x, (list, tuple))
    if many and not x:
        raise InvalidArgumentError(f"{name} is an empty list: there is nothing to work on")
    arrays = _core.Arrays(len(x) if many else 1, world)
    for i, one in enumerate(x if many else [x]):
        its_name = f"{name}[{i}]" if many else name
        if writable:
            _add_apart(arrays, None, one, "", its_name)
        else:
            _add_apart(arrays, one, None, its_name, "")
    return arrays


def _add_with_result(
    arrays: _core.Arrays, x: Any, out: Any, shape_of: ShapeOf, reads: bool, names: tuple[str, str]
) -> Any:
    if x is None and (reads or out is None):
        raise InvalidTypeError(f"{names[0]} is None, not an array")
    result = _new_like(x, shape_of, names[0]) if out is None else out
    _add_apart(arrays, x if reads else None, result, *names)
    return result


def _new_like(x: Any, shape_of: ShapeOf, name: str) -> np.ndarray[Any, Any]:
    if isinstance(x, np.ndarray):
        return np.empty(shape_of(x.shape), x.dtype)
    memory, dtype = _memory_of(x, name, writable=False)
    return np.empty(shape_of(memoryview(memory).shape or ()), _numpy_type(dtype, name))


def _numpy_type(dtype: int, name: str) -> np.dtype[Any]:
    return numpy_type(_name_of(dtype), name)


def numpy_type(dtype: str, name: str) -> np.dtype[Any]:
    """The numpy type for one of our names ("f32"); `name` is that of the array."""
    names = {**_NUMPY_NAMES, **_ONLY_MOVED}
    known = next((one for one, short in names.items() if short == dtype), None)
    if known is None:
        raise InvalidTypeError(f"{name} is of type {dtype!r}, which this version does not know")
    if known != "bfloat16":
        return np.dtype(known)
    try:
        import ml_dtypes
    except ImportError:
        raise InvalidTypeError(
            f"{name} holds bf16, which numpy has not: pass out= for the result, or install "
            "ml_dtypes"
        ) from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def _add_apart(arrays: _core.Arrays, x: Any, out: Any, x_name: str, out_name: str) -> None:
    if arrays.add_apart(x, out, _READ_OFF_THE_BUFFER):
        return
    source = target = None
    dtype = -1
    # What is not there has no name.
    if x is not None or out is None:
        source, dtype = _memory_of(x, x_name or out_name, writable=False)
    if out is not None:
        target, out_dtype = _memory_of(out, out_name, writable=True)
        if source is not None and dtype != out_dtype:
            raise InvalidTypeError(
                f"{out_name} holds {_name_of(out_dtype)}, but {x_name} holds {_name_of(dtype)}"
            )
        dtype = out_dtype
    if not arrays.add_apart(source, target, dtype):
        raise InvalidArgumentError(f"{x_name or out_name} gives no plain view of its memory")


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
        memory, known = _of_numpy(x, name)
        dtype = _core.dtypes[known]
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


def _tensor_of(x: Any, name: str) -> tuple[Any, str]:
    try:
        view = memoryview(x)
    except TypeError:
        capsule = _dlpack(x, name)
        return capsule, capsule.name
    except (ValueError, BufferError) as error:
        raise InvalidArgumentError(f"{name} does not give its memory away: {error}") from error
    only_moved = {"?": "bool", "Zf": "c64", "Zd": "c128"}.get(view.format)
    if only_moved is None:
        memory, dtype = _of_buffer(view, name)
        return memory, _name_of(dtype)
    if not view.c_contiguous:
        raise _not_contiguous(name, view.shape, view.strides)
    return view, only_moved


def _of_numpy(x: np.ndarray[Any, Any], name: str, known: str | None = None) -> tuple[Any, str]:
    known = known or _NUMPY_NAMES.get(x.dtype.name)
    if known is None:
        raise _unsupported(name, str(x.dtype))
    if not x.dtype.isnative:
        raise InvalidTypeError(f"{name} is in foreign byte order ({x.dtype.str})")
    if not x.flags.c_contiguous:
        raise _not_contiguous(name, x.shape, x.strides)
    # numpy has no letter for bfloat16, which comes from ml_dtypes, and refuses to make a buffer.
    return (x.view(np.uint16) if known == "bf16" else x), known


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
    memory = _dlpack(x, name)
    if memory.dtype < 0:
        raise _unsupported(name, memory.name)
    return memory, memory.dtype


def _dlpack(x: Any, name: str) -> _core.DlpackMemory:
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
    return memory


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
