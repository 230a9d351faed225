"""What is to be learned: a Markov chain of order 2 whose entropy is known.

Of 12 symbols, each pair has a distribution of the next symbol of its own: 0.97 of one drawn from a
Dirichlet distribution that likes few symbols, and 0.03 of the uniform one. The entropy rate, 1.2369
nats, is what no model can go below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SYMBOLS = 12
PAIRS = SYMBOLS * SYMBOLS

_CONCENTRATION = 0.15
_UNIFORM_SHARE = 0.03
_SEED = 1
_TOLERANCE = 1e-15
_ROUNDS_MAX = 10_000


class Chain:
    """transitions: [pair, next symbol]; pair a, b is row 12 a + b. stationary: of pairs. expected:
    how often each pair is followed by each symbol in the long run, as [pair, next symbol]."""

    def __init__(self) -> None:
        drawn = np.random.default_rng(_SEED).dirichlet([_CONCENTRATION] * SYMBOLS, size=PAIRS)
        self.transitions: Array = (1 - _UNIFORM_SHARE) * drawn + _UNIFORM_SHARE / SYMBOLS
        self.stationary = self._stationary()
        self.expected: Array = self.stationary[:, None] * self.transitions

    @property
    def entropy_rate(self) -> float:
        """In nats: the least expected loss."""
        return -float(np.sum(self.expected * np.log(self.transitions)))

    @property
    def unigram_entropy(self) -> float:
        """In nats: the least expected loss of a model that looks at no context."""
        symbols = self.expected.sum(axis=0)
        return -float(np.sum(symbols * np.log(symbols)))

    def batches(self, seed: int, peer: int, steps: int, size: int) -> Array:
        """What a peer sees: how many times each pair was followed by each symbol, in shares of a
        batch, as [step, pair, next symbol] in fp32. The same for the same arguments; with more
        steps it only goes on."""
        tables = np.empty((steps, PAIRS * SYMBOLS), np.float32)
        pairs_below, next_below = self.stationary.cumsum(), self.transitions.cumsum(axis=1)
        for step in range(steps):
            chance = np.random.default_rng((seed, peer, step))
            pairs = np.searchsorted(pairs_below, chance.random(size), side="right")
            pairs = pairs.clip(max=PAIRS - 1)
            following = (chance.random((size, 1)) >= next_below[pairs]).sum(axis=1)
            following = following.clip(max=SYMBOLS - 1)
            counts = np.bincount(pairs * SYMBOLS + following, minlength=PAIRS * SYMBOLS)
            tables[step] = counts / size
        return tables.reshape(steps, PAIRS, SYMBOLS)

    def _stationary(self) -> Array:
        """Of the chain over pairs: by b, c comes after a, b."""
        cube = self.transitions.reshape(SYMBOLS, SYMBOLS, SYMBOLS)
        found = np.full((SYMBOLS, SYMBOLS), 1 / PAIRS)
        for _ in range(_ROUNDS_MAX):
            before, found = found, np.einsum("ab,abc->bc", found, cube)
            if np.abs(found - before).max() < _TOLERANCE:
                break
        return np.asarray(found.reshape(PAIRS))
