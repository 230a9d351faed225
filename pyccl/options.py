"""Checks of what callers give: each returns the plain value, or says what would have been right."""

from __future__ import annotations

import numbers

from pyccl.errors import InvalidArgumentError

_RANK_MAX = 0x7FFFFFFF


def code(codes: dict[str, int], name: object, what: str) -> int:
    if not isinstance(name, str) or name not in codes:
        raise InvalidArgumentError(f"{what} is {name!r}, but must be one of {', '.join(codes)}")
    return codes[name]


def text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be a text")
    return value


def integer(value: object, what: str, low: int, high: int) -> int:
    if not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be from {low} to {high}")
    return int(value)


def above_zero(value: object, what: str) -> float:
    """Infinity will do."""
    if not isinstance(value, numbers.Real) or not float(value) > 0:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be a number above 0")
    return float(value)


def fraction(value: object, what: str) -> float:
    if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be a number from 0 to 1")
    return float(value)


def rank_of(value: object, what: str) -> int:
    """Whether there is such a rank shows at the operation, for that depends on the view."""
    if not isinstance(value, numbers.Integral) or not 0 <= int(value) <= _RANK_MAX:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be a rank from 0")
    return int(value)


def seconds(value: object, what: str) -> float:
    if not isinstance(value, numbers.Real) or not float(value) > 0:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be seconds above 0")
    return float(value)
