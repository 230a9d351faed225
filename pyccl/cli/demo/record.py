"""What the demo remembers: rounds as all peers saw them, events, and the verdict."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from pyccl.cli.demo.training import Row

ACCURACY_MIN = 0.95


@dataclass
class Event:
    """Something that happened to the run, and what it cost."""

    name: str
    round: int
    """The last one that had ended before, or the one that it struck."""
    text: str
    began: float
    milliseconds_lost: float | None = None
    """None until it is known."""


@dataclass
class Round:
    """The rows of all members, which must agree."""

    number: int
    rows: list[Row] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return bool(self.rows) and len(self.rows) >= self.rows[0].members

    @property
    def digests(self) -> set[str]:
        return {row.digest for row in self.rows}

    @property
    def seconds(self) -> float:
        return max(row.seconds for row in self.rows if not row.joined)

    @property
    def ended_at(self) -> float:
        return max(row.ended_at for row in self.rows)

    def summary(self) -> dict[str, Any]:
        """As it goes into the table and the file."""
        first = self.rows[0]
        losses = [row.loss for row in self.rows if not row.joined]
        return {
            "round": self.number,
            "epoch": first.epoch,
            "peers": first.members,
            "contributors": first.world_size,
            "loss": statistics.fmean(losses),
            "accuracy": first.accuracy,
            "digest": first.digest if len(self.digests) == 1 else "DIFFERENT",
            "attempts": first.attempts,
            "milliseconds": 1000 * self.seconds,
        }


@dataclass
class Record:
    """All of a run."""

    peers: int
    rounds: list[Round] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What went wrong, in sentences; none in a good run."""
    seconds: float = 0.0

    def add(self, row: Row) -> Round:
        while len(self.rounds) <= row.round:
            self.rounds.append(Round(len(self.rounds)))
        self.rounds[row.round].rows.append(row)
        return self.rounds[row.round]

    def undisturbed_seconds(self) -> float:
        """The median round; events are too few to move it."""
        return statistics.median(one.seconds for one in self.rounds if one.complete)

    def lost_between(self, first: int, last: int) -> float:
        """Milliseconds that these rounds took longer than as many undisturbed ones."""
        usual = self.undisturbed_seconds()
        rounds = self.rounds[first : last + 1]
        return 1000 * sum(one.seconds - usual for one in rounds if one.rows)

    @property
    def accuracy(self) -> float:
        complete = [one for one in self.rounds if one.complete]
        return complete[-1].rows[0].accuracy if complete else 0.0

    def judge(self, rounds_expected: int) -> list[str]:
        """What is wrong with the run; nothing is the good verdict."""
        faults = list(self.faults)
        complete = sum(one.complete for one in self.rounds)
        if complete < rounds_expected:
            faults.append(f"only {complete} of {rounds_expected} rounds were completed")
        different = [str(one.number) for one in self.rounds if len(one.digests) > 1]
        if different:
            faults.append(f"digests differ in round {', '.join(different)}")
        if self.accuracy < ACCURACY_MIN:
            faults.append(f"accuracy is {self.accuracy:.3f}, below {ACCURACY_MIN}")
        faults += [
            f"nobody could say what {event.name} cost"
            for event in self.events
            if event.milliseconds_lost is None
        ]
        return faults

    def to_json(self, faults: list[str]) -> dict[str, Any]:
        return {
            "peers": self.peers,
            "seconds": round(self.seconds, 3),
            "accuracy": self.accuracy,
            "rounds": [one.summary() for one in self.rounds if one.rows],
            "events": [asdict(event) for event in self.events],
            "verdict": {"good": not faults, "faults": faults},
        }
