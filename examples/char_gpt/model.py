"""A small GPT over characters, and the text that it learns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

_HELD_OUT = 0.1
_WINDOWS = 64


class Text:
    """A text as numbers of its characters, and what of it is held out.

    file: None: the reference of the language that comes with Python, half a million characters.
    context: characters that a model sees at once.
    """

    def __init__(self, file: str | None, context: int, device: str) -> None:
        text = _documentation() if file is None else Path(file).read_text(encoding="utf-8")
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        characters, numbers, counts = np.unique(codes, return_inverse=True, return_counts=True)
        held_out = max(context + 1, round(_HELD_OUT * len(numbers)))
        if len(numbers) < 10 * held_out // 2:
            raise ValueError(f"{len(numbers)} characters are no text for a context of {context}")
        shares = counts / counts.sum()
        self.alphabet = len(characters)
        self.entropy = float(-(shares * np.log(shares)).sum())
        """The loss of who knows nothing but how frequent each character is."""
        data = torch.from_numpy(numbers).to(device)
        self._context = context
        self._train, rest = data[:-held_out], data[-held_out:]
        stride = max(1, (held_out - context - 1) // _WINDOWS)
        self._windows = rest.unfold(0, context + 1, stride)[:_WINDOWS]

    def batches(self, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Without end: pieces from anywhere, and what follows each of their characters."""
        random = torch.Generator().manual_seed(seed)
        places = torch.arange(self._context + 1, device=self._train.device)
        while True:
            starts = torch.randint(len(self._train) - self._context, (size, 1), generator=random)
            pieces = self._train[starts.to(places.device) + places]
            yield pieces[:, :-1], pieces[:, 1:]

    @torch.no_grad()
    def held_out_loss(self, model: GPT) -> float:
        """Of one sample, the same for all."""
        return model(self._windows[:, :-1], self._windows[:, 1:]).item()


class GPT(nn.Module):
    """layers of attention and feed-forward, each `width` wide; gives the mean loss."""

    def __init__(self, alphabet: int, context: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.places = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, alphabet, bias=False)
        self.head.weight = self.characters.weight
        nn.init.normal_(self.characters.weight, std=0.02)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.characters(x) + self.places
        for block in self.blocks:
            h = block(h)
        scores = self.head(self.norm(h))
        return nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())


class Block(nn.Module):
    """One layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        batch, length, width = h.shape
        qkv = self.attention_in(self.norms[0](h)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.attention_out(seen.transpose(1, 2).reshape(batch, length, width))
        return h + self.feed_forward(self.norms[1](h))


def _documentation() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("this Python has come without its documentation: give a text") from error
    return "\n\n".join(topics[name] for name in sorted(topics))
