"""What learns: embeddings of 8 numbers, two of them side by side, 64 times tanh, and a softmax.

A batch is a table of how often each pair was followed by each symbol. There are only 144 pairs, so
all of them go through the network, each counts as often as it was seen, and the loss of a batch is
what the expected loss of the whole chain is. Forward and backward are written out in numpy, on the
memory of torch's parameters: autograd would take most of the time of so small a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from markov.chain import PAIRS, SYMBOLS, Array

_EMBEDDING = 8
_HIDDEN = 64
_SHAPES = {
    "embedding": (SYMBOLS, _EMBEDDING),
    "hidden.weight": (2 * _EMBEDDING, _HIDDEN),
    "hidden.bias": (_HIDDEN,),
    "output.weight": (_HIDDEN, SYMBOLS),
    "output.bias": (SYMBOLS,),
}
_FIRST, _SECOND = np.divmod(np.arange(PAIRS), SYMBOLS)


class Network:
    """parameters: torch parameters by name, with gradients that backward() writes."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.parameters: dict[str, Any] = {}
        for name, shape in _SHAPES.items():
            # Embeddings of about 1, and as much comes out of a layer as goes into it.
            scale = 1.0 if name == "embedding" else shape[0] ** -0.5
            drawn = chance.standard_normal(shape) * (scale if len(shape) == 2 else 0.0)
            one = torch.nn.Parameter(torch.from_numpy(drawn.astype(np.float32)))
            one.grad = torch.zeros_like(one)
            self.parameters[name] = one
        self._values: list[Array] = [one.detach().numpy() for one in self.parameters.values()]
        self._gradients: list[Array] = [one.grad.numpy() for one in self.parameters.values()]

    def flat(self) -> Array:
        """A copy of all parameters, side by side."""
        return np.concatenate([one.ravel() for one in self._values])

    def backward(self, table: Array) -> None:
        """Writes the gradients of the mean loss of a batch, as [pair, next symbol] in fp32."""
        _, weight, _, out, _ = self._values
        of_embedding, of_weight, of_bias, of_out, of_out_bias = self._gradients
        x, hidden, scores = _forward(self._values)
        error = np.exp(scores, out=scores)
        error *= table.sum(axis=1, keepdims=True) / error.sum(axis=1, keepdims=True)
        error -= table
        np.matmul(hidden.T, error, out=of_out)
        error.sum(axis=0, out=of_out_bias)
        back = error @ out.T
        back *= 1 - hidden * hidden
        np.matmul(x.T, back, out=of_weight)
        back.sum(axis=0, out=of_bias)
        pairs = (back @ weight.T).reshape(SYMBOLS, SYMBOLS, 2 * _EMBEDDING)
        first, second = pairs[..., :_EMBEDDING], pairs[..., _EMBEDDING:]
        np.add(first.sum(axis=1), second.sum(axis=0), out=of_embedding)


def loss_of(flat: Array, table: Array) -> float:
    """In nats and fp64: the loss of the network with these parameters, where pairs are followed by
    symbols as often as the table says; its sum is 1."""
    ends = np.cumsum([np.prod(shape) for shape in _SHAPES.values()])
    parts = np.split(flat.astype(np.float64), ends[:-1])
    _, _, scores = _forward(
        [part.reshape(shape) for part, shape in zip(parts, _SHAPES.values(), strict=True)]
    )
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return -float(np.sum(table * logs))


def _forward(values: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Of all pairs: what goes in, what is hidden, and scores, the largest of each pair 0."""
    embedding, weight, bias, out, out_bias = values
    x = np.concatenate([embedding[_FIRST], embedding[_SECOND]], axis=1)
    hidden = np.tanh(x @ weight + bias)
    scores = hidden @ out + out_bias
    scores -= scores.max(axis=1, keepdims=True)
    return x, hidden, scores
