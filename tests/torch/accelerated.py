"""A small training with Hugging Face Accelerate. Run by test_frameworks.py, under torchrun."""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyccl.torch  # noqa: F401 - with it torch knows the backend "pyccl"

backend = sys.argv[1]
# Accelerate itself has a list of backends to choose from, but it takes a group that is there.
dist.init_process_group(backend)
accelerator = Accelerator(cpu=True)
assert dist.get_backend() == backend, dist.get_backend()

torch.manual_seed(0)
x = torch.randn(512, 16)
y = (x @ torch.randn(16, 4)).argmax(1)
net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
model, optimizer, batches = accelerator.prepare(
    net,
    torch.optim.SGD(net.parameters(), lr=0.3),
    DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True),
)
assert isinstance(model, nn.parallel.DistributedDataParallel)
losses = []
for _ in range(5):
    total = torch.zeros(())
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        total += accelerator.reduce(loss.detach(), "mean")
    losses.append(total.item() / len(batches))
sums = accelerator.gather(sum(p.detach().double().sum() for p in model.parameters()).reshape(1))
assert len(sums) == accelerator.num_processes == 2
assert (sums == sums[0]).all(), sums
accelerator.print(f"loss from {losses[0]:.4f} to {losses[-1]:.4f}, sum {sums[0].item():.9f}")
accelerator.end_training()  # and with it the group
