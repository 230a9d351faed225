"""Peers that take NoLoCo's steps while others come and die, and what must come of that. Loaded by
file in the peers' processes."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from process.jobs import order

import pyccl
from pyccl.optim.gossip import NoLoCoState, group_of
from pyccl.optim.meetings import Meetings
from pyccl.testing import report

Array = np.ndarray[Any, Any]

SEED = 3
EVERY = 3  # steps from boundary to boundary


class Step(NamedTuple):
    """What a peer has come to. Without contributors: as it began, or got a state of another."""

    index: int
    peer: int
    number: int
    members: tuple[int, ...]
    contributors: int
    seconds: float
    digest: str


def state_of(size: int) -> NoLoCoState:
    return NoLoCoState(["w"], [np.random.default_rng(0).standard_normal(size, np.float32)])


def digest_of(state: NoLoCoState) -> str:
    return hashlib.sha256(state.params.tobytes() + state.momentum.tobytes()).hexdigest()


def learned(state: NoLoCoState, index: int) -> Array:
    """Theta behind a window: something else for each peer and each step."""
    change = np.random.default_rng([index, state.step]).standard_normal(state.params.size)
    return state.params - change.astype(np.float32)


def train(comm: pyccl.Communicator, index: int, size: int) -> str:
    state = state_of(size)
    meetings = Meetings(state, comm, seed=SEED, admit_every=EVERY)
    meetings.join()
    peer, contributors, seconds = int(comm.peer, 16), 0, 0.0
    while True:
        report(
            Step(index, peer, state.step, meetings.members, contributors, seconds, digest_of(state))
        )
        if state.step % EVERY == 0:
            ending = np.array([order() == "end"], np.uint8)
            comm.all_reduce(ending, op="max")
            if ending[0]:
                return "ended"
        theta = learned(state, index)
        time.sleep(0.01)
        found = meetings.run(theta)
        assert found.applied, found
        contributors, seconds = found.contributors, found.seconds


class Replay:
    """The same run in numpy. A peer's step is that of its group, or of those of it who lived."""

    def __init__(self, steps: list[Step], size: int) -> None:
        self.size = size
        self.told = {(one.index, one.number): one for one in steps}
        self.index = {one.peer: one.index for one in steps}
        self.states: dict[tuple[int, int], NoLoCoState] = {}
        """By index of the peer and number of the step."""
        self.alone = 0

    def run(self) -> None:
        # A newcomer's state is looked for among those of the same step.
        for told in sorted(self.told.values(), key=lambda one: (one.number, -one.contributors)):
            found = self._begun(told) if told.contributors == 0 else self._met(told)
            self.states[told.index, told.number] = found
            self.alone += told.contributors == 1

    def _begun(self, told: Step) -> NoLoCoState:
        if told.number == 0:
            possible = iter([state_of(self.size)])
        else:
            possible = (
                one
                for index in set(self.index.values()) - {told.index}
                for one in self._outcomes(index, told.number)
            )
        for one in possible:
            if digest_of(one) == told.digest:
                return one
        raise AssertionError(f"{told} has the state of nobody")

    def _met(self, told: Step) -> NoLoCoState:
        for one in self._outcomes(told.index, told.number, told.contributors):
            if digest_of(one) == told.digest:
                return one
        raise AssertionError(f"{told} is the step of no {told.contributors} of its group")

    def _outcomes(self, index: int, number: int, contributors: int = 0) -> Iterator[NoLoCoState]:
        """What a peer may have come to, which it was perhaps killed before it could tell."""
        if (index, number) in self.states:
            yield self.states[index, number]
        elif before := self.told.get((index, number - 1)):
            group = sorted(group_of(before.peer, before.members, SEED, before.number))
            # A peer tells of each step before it begins the next one.
            alive = [one for one in group if (self.index[one], before.number) in self.states]
            for count in [contributors] if contributors else range(1, len(alive) + 1):
                for present in itertools.combinations(alive, count):
                    if before.peer in present:
                        yield self._meeting(before, present)

    def _meeting(self, before: Step, present: Sequence[int]) -> NoLoCoState:
        states = {self.index[one]: self.states[self.index[one], before.number] for one in present}
        made = state_of(self.size)
        made.import_(states[before.index].export())
        made.apply([learned(state, index) for index, state in states.items()])
        return made
