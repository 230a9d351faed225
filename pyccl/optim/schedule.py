"""When Streaming DiLoCo (arXiv 2501.18512) sends which fragment, and when it applies it.

The parameters are cut into P fragments, of which each is synced once in H inner steps, one after
the other: a gap of about H / P steps belongs to one outer step. Where P does not divide H some gaps
are a step longer than others, and those of one fragment are all alike. Outer step t, on which all
peers agree, is of fragment t mod P. It is sent `overlap` inner steps before the end of its gap, and
applied at the end. So one fragment is under way at a time, and a peer that comes knows from t alone
what is next.

Nothing here trains or communicates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from pyccl.errors import InvalidArgumentError

Kind = Literal["send", "apply"]


class Event(NamedTuple):
    """What is due behind an inner step."""

    kind: Kind
    fragment: int


def check_steps(value: object, name: str, low: int = 1) -> None:
    """Raises InvalidArgumentError unless it counts something."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InvalidArgumentError(f"{name} is {value!r}, but must be {low} or more")


class StreamingSchedule:
    """P fragments, H inner steps, and how many of them a sync may take.

    fragments: P, at least 1.
    sync_every: H, at least P.
    overlap: inner steps between sending and applying, from 0 to below the shortest gap.

    Raises InvalidArgumentError.
    """

    __slots__ = ("_fragments", "_overlap", "_sync_every")

    def __init__(self, fragments: int, sync_every: int, overlap: int = 0) -> None:
        check_steps(fragments, "fragments")
        check_steps(sync_every, "sync_every")
        check_steps(overlap, "overlap", 0)
        if sync_every < fragments:
            raise InvalidArgumentError(
                f"sync_every is {sync_every}, but must not be below the {fragments} fragments: "
                "each of them is synced once in that many steps, one behind the other"
            )
        gap = sync_every // fragments
        if overlap >= gap:
            raise InvalidArgumentError(
                f"overlap is {overlap}, but must be below sync_every / fragments, which is {gap}: "
                "a fragment has to be applied before the next one is sent"
            )
        self._fragments, self._sync_every, self._overlap = fragments, sync_every, overlap

    @property
    def fragments(self) -> int:
        return self._fragments

    @property
    def sync_every(self) -> int:
        return self._sync_every

    def gap(self, step: int) -> int:
        """Inner steps of outer step `step`, counted from 0."""
        return self.begin(step + 1) - self.begin(step)

    def begin(self, step: int) -> int:
        """Inner steps before outer step `step`: the gaps of all before it."""
        rounds, fragment = divmod(step, self._fragments)
        return rounds * self._sync_every + fragment * self._sync_every // self._fragments

    @property
    def overlap(self) -> int:
        return self._overlap

    def fragment(self, step: int) -> int:
        """That of outer step `step`, counted from 0."""
        return step % self._fragments

    def due(self, inner_steps: int, step: int) -> tuple[Event, ...]:
        """What is due behind an inner step.

        inner_steps: since outer step `step` began, with this one: 1 to gap(step).
        step: outer steps that all peers have done. One that did not come about is tried again, with
            the same fragment.
        """
        gap = self.gap(step)
        if not 1 <= inner_steps <= gap:
            raise InvalidArgumentError(
                f"inner_steps is {inner_steps}, but outer step {step} is of 1 to {gap}"
            )
        fragment = self.fragment(step)
        events = []
        if inner_steps == gap - self._overlap:
            events.append(Event("send", fragment))
        if inner_steps == gap:
            events.append(Event("apply", fragment))
        return tuple(events)


def balanced(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """Names in `count` fragments of about the same size: the largest first, each to the fragment
    that has least, the first of such. The same for the same sizes, whatever their order; ties go by
    name. No fragment is empty.

    Raises InvalidArgumentError for more fragments than names.
    """
    if not 1 <= count <= len(sizes):
        raise InvalidArgumentError(
            f"{count} fragments of {len(sizes)} parameters: there must be 1 to {len(sizes)}"
        )
    fragments: list[list[str]] = [[] for _ in range(count)]
    _fill(fragments, sizes, sizes)
    return fragments


def strided(layers: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """Layers, each a sequence of names, in `count` fragments: layer i goes to fragment i mod count,
    so that each holds parts of the whole depth.

    Raises InvalidArgumentError for more fragments than layers.
    """
    if not 1 <= count <= len(layers):
        raise InvalidArgumentError(
            f"{count} fragments of {len(layers)} layers: there must be 1 to {len(layers)}"
        )
    return [[name for layer in layers[i::count] for name in layer] for i in range(count)]


def layered(sizes: Mapping[str, int], each: int) -> list[list[str]]:
    """Names in fragments of `each` layers, as strided() deals them out, and what is in no layer
    where there is least.

    A layer is what has the same name up to its first number, like "blocks.3." or "0.", in the order
    of `sizes`. Raises InvalidArgumentError if there are none.
    """
    layers: dict[str, list[str]] = {}
    others = []
    for name in sizes:
        number = re.search(r"(?:^|\.)\d+\.", name)
        if number is None:
            others.append(name)
        else:
            layers.setdefault(name[: number.end()], []).append(name)
    if each < 1 or not layers:
        raise InvalidArgumentError(
            f"there are no fragments of {each} layers in {len(sizes)} parameters, of {len(layers)} "
            'layers by their names, which have a number as in "blocks.3.weight"; give '
            "model.named_parameters(), or a number of fragments"
        )
    fragments = strided(list(layers.values()), -(-len(layers) // each))
    _fill(fragments, sizes, others)
    return fragments


def _fill(fragments: list[list[str]], sizes: Mapping[str, int], names: Iterable[str]) -> None:
    """The largest first, each to the fragment that has least."""
    filled = [sum(sizes[name] for name in fragment) for fragment in fragments]
    for name in sorted(names, key=lambda one: (-sizes[one], one)):
        # An empty one before all, also behind parameters of no size.
        at = min(range(len(fragments)), key=lambda i: (filled[i], len(fragments[i]), i))
        fragments[at].append(name)
        filled[at] += sizes[name]
