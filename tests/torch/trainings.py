"""Small trainings in torch for the tests of their state."""

from __future__ import annotations

from typing import Any

import torch

from pyccl.torch import shared_state


class Gpt(torch.nn.Module):
    """As small as it can be with what matters here: weights that are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(7, 4)
        self.block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        self.lm_head = torch.nn.Linear(4, 7, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Any) -> Any:
        return self.lm_head(self.block(self.wte(tokens)))


class Training:
    """A model, its optimizer and its scheduler, made from a seed."""

    def __init__(self, seed: int, *, device: str = "cpu", **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Gpt().to(device)
        self.device = device
        self.optimizer = torch.optim.Adam(self.model.parameters(), **{"lr": 0.125, **options})
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
        self.state = shared_state(self.model, self.optimizer, scheduler=self.scheduler)

    def step(self) -> None:
        tokens = torch.arange(6, device=self.device) % 7
        loss = torch.nn.functional.cross_entropy(self.model(tokens), (tokens + 1) % 7)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.state.revision += 1

    def weights(self) -> list[bytes]:
        return [one.detach().cpu().numpy().tobytes() for one in self.model.parameters()]


class Kept:
    """Something with a state_dict()."""

    def __init__(self, held: Any) -> None:
        self.held = held
        self.loads = self.reads = 0

    def state_dict(self) -> Any:
        self.reads += 1
        return self.held

    def load_state_dict(self, held: Any) -> None:
        self.held = held
        self.loads += 1
