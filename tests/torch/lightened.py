"""A small training with Lightning. Run by test_frameworks.py; Lightning starts the other rank."""

from __future__ import annotations

import sys

import lightning
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyccl.torch  # noqa: F401 - with it torch knows the backend "pyccl"

backend = sys.argv[1]


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.seen: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs), targets)
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        assert dist.get_backend() == backend, dist.get_backend()
        self.seen.append(self.trainer.callback_metrics["loss"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)


lightning.seed_everything(0)
x = torch.randn(512, 16)
y = (x @ torch.randn(16, 4)).argmax(1)
model = Classifier()
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=2,
    # Else it looks for other launchers on this machine.
    plugins=[LightningEnvironment()],
    strategy=DDPStrategy(process_group_backend=backend),
    max_epochs=5,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True))
total = sum(p.detach().double().sum() for p in model.parameters()).reshape(1)
sums = trainer.strategy.all_gather(total).reshape(-1)
assert len(sums) == 2
assert (sums == sums[0]).all(), sums
if trainer.is_global_zero:
    print(f"loss from {model.seen[0]:.4f} to {model.seen[-1]:.4f}, sum {sums[0].item():.9f}")
