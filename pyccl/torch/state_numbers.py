"""The numbers of a training that are no tensors, as arrays, and back.

A number may be a float in one member and an int in another: a learning rate of 1 is an int until a
scheduler has multiplied it. So each is sent as f64, and beside all of them goes one array that says
what each of them is, and what an int has lost by becoming one.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pyccl.errors import InvalidArgumentError
from pyccl.torch.state_memory import local, mirror_of, named, same_bits

Array = np.ndarray[Any, Any]

# In place of what an int has lost, which is less than that.
_FLOAT = -(1 << 63)
_BOOL = _FLOAT + 1
_LOST_MAX = 1 << 62


def is_number(value: object) -> bool:
    return isinstance(value, (bool, np.bool_, numbers.Integral, float, np.floating))


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


class Nest:
    """The numbers and tensors in a nest of mappings, lists and tuples, by their paths. All else in
    it is left as it is.

    read: gives the nest as it is now. write: takes one with other numbers in it.
    """

    def __init__(self, name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self._name = name
        self._read = read
        self._write = write
        leaves = self._leaves(read())
        self._described = {path: _described(leaf) for path, leaf in leaves.items()}
        # By name, since mappings of members may differ in their order.
        self._paths = sorted(path for path, leaf in leaves.items() if not _is_memory(leaf))
        self._mirrors = {
            path: mirror_of(local(leaf, path)) if isinstance(leaf, torch.Tensor) else leaf.copy("C")
            for path, leaf in leaves.items()
            if _is_memory(leaf)
        }
        count = sum(len(_listed(leaves[path])) for path in self._paths)
        self._values: Array = np.zeros(count)
        self._kinds: Array = np.zeros(count, np.int64)
        self._shapes = {path: _shape(leaves[path]) for path in self._paths}

    def arrays(self) -> Iterator[tuple[str, Any]]:
        at = 0
        for path in self._paths:
            shape = self._shapes[path]
            count = shape[0] if shape else 1
            yield path, self._values[at : at + count].reshape(shape)
            at += count
        if self._paths:
            yield f"{self._name}:kinds", self._kinds
        for path, mirror in self._mirrors.items():
            yield path, named(mirror) if isinstance(mirror, torch.Tensor) else mirror

    def gather(self) -> None:
        leaves = self._leaves_as_before(self._read())
        self._values[:], self._kinds[:] = self._encoded(leaves)
        for path, mirror in self._mirrors.items():
            _read_into(mirror, leaves[path], path)

    def scatter(self) -> None:
        nest = self._read()
        leaves = self._leaves_as_before(nest)
        changed = {**self._changed_numbers(leaves), **self._changed_mirrors(leaves)}
        if changed:
            self._write(_replaced(nest, self._name, changed))

    def _changed_numbers(self, leaves: dict[str, Any]) -> dict[str, Any]:
        values, kinds = self._encoded(leaves)
        # By their bits: a NaN is no change, and -0.0 is one.
        differs = (values.view(np.int64) != self._values.view(np.int64)) | (kinds != self._kinds)
        changed = {}
        at = 0
        for path in self._paths:
            old = _listed(leaves[path])
            places = range(at, at + len(old))
            if differs[at : at + len(old)].any():
                new = [
                    _decoded(self._values[i], self._kinds[i], one) if differs[i] else one
                    for i, one in zip(places, old, strict=True)
                ]
                many = isinstance(leaves[path], (list, tuple))
                changed[path] = _sequence(leaves[path], new) if many else new[0]
            at += len(old)
        return changed

    def _changed_mirrors(self, leaves: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for path, mirror in self._mirrors.items():
            leaf = leaves[path]
            if isinstance(mirror, torch.Tensor):
                found = torch.empty_like(mirror).copy_(local(leaf, path))
                if not same_bits(found, mirror):
                    changed[path] = leaf.detach().clone()
                    local(changed[path], path).copy_(mirror)
            elif leaf.tobytes() != mirror.tobytes():
                changed[path] = mirror.copy()
        return changed

    def _leaves(self, nest: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, leaf in _walk(nest, self._name):
            if path in found:
                raise InvalidArgumentError(f"two numbers would be called {path!r}")
            found[path] = leaf
        return found

    def _leaves_as_before(self, nest: Any) -> dict[str, Any]:
        leaves = self._leaves(nest)
        now = {path: _described(leaf) for path, leaf in leaves.items()}
        before = self._described
        if now != before:
            path = min(one for one in {**now, **before} if now.get(one) != before.get(one))
            raise InvalidArgumentError(
                f"{path!r} is {now.get(path, 'not there')}, but was "
                f"{before.get(path, 'not there')} when the state was made: make it anew"
            )
        return leaves

    def _encoded(self, leaves: dict[str, Any]) -> tuple[Array, Array]:
        pairs = [_encode(one, path) for path in self._paths for one in _listed(leaves[path])]
        values = np.array([value for value, _ in pairs], np.float64)
        return values, np.array([kind for _, kind in pairs], np.int64)


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _walk(one, f"{path}.{key}")
    elif isinstance(value, (list, tuple)) and not (value and all(map(is_number, value))):
        for i, one in enumerate(value):
            yield from _walk(one, f"{path}.{i}")
    elif isinstance(value, (list, tuple)) or is_number(value) or _is_memory(value):
        yield path, value


def _replaced(value: Any, path: str, changed: dict[str, Any]) -> Any:
    """The same nest with other leaves; what has none of them is taken over as it is."""
    if path in changed:
        return changed[path]
    if isinstance(value, Mapping):
        new = {key: _replaced(one, f"{path}.{key}", changed) for key, one in value.items()}
        if all(new[key] is one for key, one in value.items()):
            return value
        whole: Any = copy.copy(value)
        for key, one in new.items():
            whole[key] = one
        return whole
    if isinstance(value, (list, tuple)):
        items = [_replaced(one, f"{path}.{i}", changed) for i, one in enumerate(value)]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else _sequence(value, items)
    return value


def _is_memory(value: object) -> bool:
    return isinstance(value, torch.Tensor) or _is_array(value)


def _described(leaf: Any) -> str:
    if _is_memory(leaf):
        return f"{leaf.dtype}{tuple(leaf.shape)}"
    return f"{len(leaf)} numbers" if isinstance(leaf, (list, tuple)) else "a number"


def _listed(leaf: Any) -> Any:
    return leaf if isinstance(leaf, (list, tuple)) else (leaf,)


def _shape(leaf: Any) -> tuple[int, ...]:
    return (len(leaf),) if isinstance(leaf, (list, tuple)) else ()


def _sequence(like: Any, items: list[Any]) -> Any:
    """Of the same type; a named tuple takes its fields one by one."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def _read_into(mirror: Any, leaf: Any, path: str) -> None:
    if isinstance(mirror, torch.Tensor):
        mirror.copy_(local(leaf, path))
    else:
        np.copyto(mirror, leaf)


def _encode(number: Any, path: str) -> tuple[float, int]:
    if isinstance(number, (bool, np.bool_)):
        return float(number), _BOOL
    if not isinstance(number, numbers.Integral):
        return float(number), _FLOAT
    whole = int(number)
    try:
        near = float(whole)
        lost = whole - int(near)
    except OverflowError:
        lost = _LOST_MAX
    if abs(lost) >= _LOST_MAX:
        raise InvalidArgumentError(f"{path!r} is an int of {whole.bit_length()} bits: too large")
    return near, lost


def _decoded(value: Any, kind: Any, old: Any) -> Any:
    new: Any
    if kind == _FLOAT:
        new = float(value)
    elif kind == _BOOL:
        new = bool(value)
    else:
        new = int(value) + int(kind)
    # numpy's numbers compute otherwise than Python's.
    return type(old)(new) if isinstance(old, np.generic) else new
