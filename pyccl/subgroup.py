"""Operations among some members only, and the class of everything that has collectives."""

from __future__ import annotations

from collections.abc import Iterable

from pyccl import _core
from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.movements import Movements
from pyccl.operations import Shared
from pyccl.options import rank_of
from pyccl.pairs import Pairs
from pyccl.reductions import Reductions


class Collectives(Reductions, Movements, Pairs):
    """All operations, of a communicator or of a subgroup."""

    def subgroup(self, ranks: Iterable[int], name: str = "") -> Subgroup:
        """Some of the members, for operations among them alone, usable at once.

        ranks: of the present view, this peer's own among them; they get ranks from 0 in this order.
            All of them make it, with the same ranks in the same order. Nothing is sent.
        name: tells subgroups of the same members apart.

        Once one of its members is lost, operations on it raise PeerLostError: make another. Raises
        InvalidArgumentError for ranks that do not exist or come twice, or without the own one.
        """
        if not isinstance(name, str):
            raise InvalidArgumentError(f"name is {name!r}, but must be a text")
        try:
            chosen = [rank_of(rank, "a rank") for rank in ranks]
        except TypeError as error:
            raise InvalidTypeError(f"ranks are no sequence of numbers: {error}") from error
        place = self._shared.core.subgroup(chosen, name, self._subgroup)
        return Subgroup(self._shared, place, tuple(chosen), name)


class Subgroup(Collectives):
    """Made by `subgroup()`. It has all operations of a Communicator, which concern its members
    only; `on_loss="retry"` means nothing here, since it ends with the first member that is lost."""

    def __init__(
        self, shared: Shared, subgroup: _core.Subgroup, ranks: tuple[int, ...], name: str
    ) -> None:
        super().__init__(shared, subgroup)
        self._core_subgroup = subgroup
        self._ranks = ranks
        self._name = name

    @property
    def rank(self) -> int:
        """This peer's place in the subgroup, from 0."""
        return self._core_subgroup.rank()

    @property
    def world_size(self) -> int:
        """Members of the subgroup."""
        return self._core_subgroup.size()

    @property
    def peers(self) -> tuple[str, ...]:
        """The ids of its members in rank order."""
        return self._core_subgroup.peers()

    @property
    def ranks(self) -> tuple[int, ...]:
        """What it was made of: ranks in the view of that moment, or in the subgroup that it is a
        subgroup of."""
        return self._ranks

    @property
    def name(self) -> str:
        return self._name

    @property
    def valid(self) -> bool:
        """Whether all its members are in the present view; false for ever once one is not."""
        return not self._shared.closed and self._shared.core.is_valid(self._core_subgroup)

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        state = "" if self.valid else ", no longer valid"
        return f"<pyccl.Subgroup{name} rank {self.rank} of {self.world_size}{state}>"
