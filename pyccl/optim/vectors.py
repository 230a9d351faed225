"""What the states of outer optimizers have in common: phi and its momentum as two flat vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyccl.optim.layout import F32, Array, Layout


class Vectors:
    """Two vectors of fp32, and where in them each array of a model lies: one behind the other in
    the order given, each in C order. They stay where they are for the life of this."""

    __slots__ = ("_layout", "_momentum", "_params")

    def __init__(self, layout: Layout, params: F32, momentum: F32) -> None:
        self._layout = layout
        self._params = params
        self._momentum = momentum

    @property
    def names(self) -> tuple[str, ...]:
        return self._layout.names

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """By position, like the names."""
        return self._layout.shapes

    @property
    def ends(self) -> tuple[int, ...]:
        """Where each array ends in `params`."""
        return self._layout.ends

    @property
    def params(self) -> F32:
        """phi: the vector itself, one element for each of all arrays."""
        return self._params

    @property
    def momentum(self) -> F32:
        """The vector itself, as `params`. Zeros at the start."""
        return self._momentum

    @property
    def views(self) -> Mapping[str, F32]:
        """phi by name and in shape: views of `params`."""
        return self._layout.views(self._params)

    def empty(self) -> F32:
        """A vector as long as `params`, of any numbers."""
        return np.empty_like(self._params)

    def cut(self, flat: F32) -> list[F32]:
        """A vector as long as `params` by array and in shape: views."""
        return [view for _, view in self._layout.cut(flat)]

    def write(self, arrays: Sequence[Array]) -> None:
        """Puts phi into the arrays, in place and rounded to their types. Raises
        InvalidArgumentError and InvalidTypeError for other arrays than at the start."""
        self._layout.check(arrays)
        for one, value in zip(arrays, self.views.values(), strict=True):
            one[...] = value
