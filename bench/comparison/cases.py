"""What a collective works on, whatever library runs it, and what must come out.

Block j of what a rank gives holds rank * n + j + 1 everywhere. As in nccl-tests a size is that of
all blocks, where one side of a collective has a block for each of n ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ITEM_BYTES = 4
ROOT = 0


@dataclass(frozen=True)
class Shape:
    """Which arrays a collective has."""

    blocks_in: bool = False
    blocks_out: bool = False
    in_place: bool = False
    """The result replaces the input, and there is no other array."""
    sums: bool = False


SHAPES = {
    "all_reduce": Shape(in_place=True, sums=True),
    "all_gather": Shape(blocks_out=True),
    "reduce_scatter": Shape(blocks_in=True, sums=True),
    "all_to_all": Shape(blocks_in=True, blocks_out=True),
    "broadcast": Shape(in_place=True),
    "reduce": Shape(in_place=True, sums=True),
    "gather": Shape(blocks_out=True),
    "scatter": Shape(blocks_in=True),
    "send_recv": Shape(),
    "exchange": Shape(),
    "barrier": Shape(),
}
USUAL = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


def bytes_of(collective: str, size: int, ranks: int) -> int:
    """A size, rounded down to whole elements of each block."""
    if collective == "barrier":
        return 0
    return size - size % unit_of(collective, ranks)


def unit_of(collective: str, ranks: int) -> int:
    shape = SHAPES[collective]
    return ITEM_BYTES * (ranks if shape.blocks_in or shape.blocks_out else 1)


def moved_bytes(collective: str, size: int, ranks: int) -> float:
    """What has to pass between the ranks, all of them together, whatever the algorithm."""
    if collective in ("gather", "scatter"):
        return size * (ranks - 1) / ranks
    if collective == "send_recv":
        return size * ranks
    if collective == "exchange":
        return size * (ranks - ranks % 2)
    return size * (ranks - 1) * (2 if collective == "all_reduce" else 1)


def neighbours(rank: int, ranks: int) -> tuple[int, int]:
    """Whom a rank sends to, and whom it receives from, when all send around a ring."""
    return (rank + 1) % ranks, (rank - 1) % ranks


def partner_of(rank: int, ranks: int) -> int | None:
    """With whom a rank exchanges; with an odd number the last one is left over."""
    return partner if (partner := rank ^ 1) < ranks else None


@dataclass
class Case:
    """The arrays of one collective at one size and rank."""

    collective: str
    rank: int
    ranks: int
    x: Array
    y: Array
    """The result: x itself if in place."""

    @staticmethod
    def of(collective: str, size: int, rank: int, ranks: int) -> Case:
        shape = SHAPES[collective]
        count = bytes_of(collective, size, ranks) // unit_of(collective, ranks)

        def array(blocks: bool) -> Array:
            return np.zeros((ranks, count) if blocks else count, np.float32)

        x = array(shape.blocks_in)
        case = Case(collective, rank, ranks, x, x if shape.in_place else array(shape.blocks_out))
        case._fill()
        return case

    def wrong(self) -> str | None:
        """What is wrong with the result, if anything is."""
        want = self._expected()
        if want is None:
            return None
        blocks = self.y.reshape(len(want), -1)
        for number, value in enumerate(want):
            if not np.all(blocks[number] == value):
                return f"{self.collective}: block {number} is {blocks[number]} instead of {value}"
        return None

    def settle(self) -> None:
        """What would grow with each call becomes zero, and stays so."""
        if SHAPES[self.collective].sums:
            self.x.fill(0)

    def _fill(self) -> None:
        if self.y is not self.x:
            self.y.fill(-1)
        if SHAPES[self.collective].blocks_in:
            for number in range(self.ranks):
                self.x[number] = self._given(self.rank, number)
        else:
            self.x.fill(self._given(self.rank, 0))

    def _given(self, rank: int, block: int) -> int:
        return rank * self.ranks + block + 1

    def _sum(self, block: int) -> int:
        return sum(self._given(rank, block) for rank in range(self.ranks))

    def _of_all(self, block: int) -> list[int]:
        return [self._given(rank, block) for rank in range(self.ranks)]

    def _expected(self) -> list[int] | None:
        """The value of each block of the result; None: this rank has none."""
        if self.collective in ("reduce", "gather") and self.rank != ROOT:
            return None
        partner = partner_of(self.rank, self.ranks)
        if self.collective == "barrier" or (self.collective == "exchange" and partner is None):
            return None
        return {
            "all_reduce": lambda: [self._sum(0)],
            "reduce": lambda: [self._sum(0)],
            "reduce_scatter": lambda: [self._sum(self.rank)],
            "all_gather": lambda: self._of_all(0),
            "gather": lambda: self._of_all(0),
            "all_to_all": lambda: self._of_all(self.rank),
            "broadcast": lambda: [self._given(ROOT, 0)],
            "scatter": lambda: [self._given(ROOT, self.rank)],
            "send_recv": lambda: [self._given(neighbours(self.rank, self.ranks)[1], 0)],
            "exchange": lambda: [self._given(partner or 0, 0)],
        }[self.collective]()
