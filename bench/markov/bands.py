"""What has to come out, in nats: the means over seeds beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from markov.chain import SYMBOLS

_STEPS_LATE, _QUANTIZED = 0.008, 0.003
_WINDOW_LATE = 1.3


class Band(NamedTuple):
    """row: its name. sense: "<=", ">=", or "~" for a distance of at most `margin`. beside: the row
    that it is held against; None: zero."""

    row: str
    sense: str
    beside: str | None
    margin: float

    def __str__(self) -> str:
        if self.beside is None:
            return f"{self.row} {self.sense} {self.margin:.4g}"
        if self.sense == "~":
            return f"{self.row} = {self.beside} +- {self.margin:g}"
        return f"{self.row} {self.sense} {self.beside} {self.margin:+g}"

    @property
    def rows(self) -> set[str]:
        return {one for one in (self.row, self.beside) if one is not None}

    def distance(self, means: Mapping[str, float]) -> float:
        """What is held against the margin."""
        return means[self.row] - (0.0 if self.beside is None else means[self.beside])

    def holds(self, means: Mapping[str, float]) -> bool:
        distance = self.distance(means)
        if self.sense == "<=":
            return distance <= self.margin
        if self.sense == ">=":
            return distance >= self.margin
        return abs(distance) <= self.margin


BANDS = [
    Band("diloco-20", "<=", "data-parallel", 0.005),
    Band("diloco-20", "<=", "alone", -0.015),
    *(
        Band(row, "~", "diloco-20", _QUANTIZED)
        for row in ("int8", "fp4-1024", "fp4-64", "fp4-1024-feedback")
    ),
    *(
        Band(row, "<=", "diloco-20", _STEPS_LATE)
        for row in ("streaming-0-0", "streaming-1-0", "streaming-1-0.5", "streaming-5-0.5")
    ),
    Band("noloco", "<=", "heavy-ball-8", 0.005),
    Band("noloco", "<=", "alone", -0.01),
    *(
        Band(row, "<=", None, _WINDOW_LATE)
        for row in ("delayed-0.7-0", "delayed-0.4-0.5", "delayed-0.2-0.9", "co2")
    ),
    # What a wrong outer optimizer costs, by half of what was measured: the bands above are worth
    # something only where these hold.
    Band("heavy-ball", ">=", "diloco-20", 0.025),
    Band("fedavg", ">=", "diloco-20", 0.008),
    Band("alone", ">=", "diloco-20", 0.0115),
    # It diverges: worse than a guess.
    Band("delayed-0.7-0.9", ">=", None, float(np.log(SYMBOLS))),
]
