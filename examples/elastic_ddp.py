"""DistributedDataParallel whose ranks may be killed and started at any time.

Start `pyccl coordinator`, then this in as many terminals as you like, at any moment:

    python examples/elastic_ddp.py

Kill some, start others: the loss goes on falling, and all that live hold the same parameters. With
--quantization int8 gradients travel in a quarter of their bytes.
"""

import argparse
import time

import torch
from torch import nn

import pyccl.torch

parser = argparse.ArgumentParser()
parser.add_argument("address", nargs="?", default="127.0.0.1:48148")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--pause", type=float, default=0.2, help="seconds of pretended work per step")
parser.add_argument("--ranks", type=int, default=1, help="begin when so many are there")
parser.add_argument("--quantization", help="codec of the gradients")
options = parser.parse_args()

torch.set_num_threads(1)
net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.5)

group = pyccl.torch.ElasticGroup.connect(options.address, world_size_min=options.ranks)
model = pyccl.torch.ElasticDDP(
    net,
    group,
    quantization=options.quantization,
    error_feedback=options.quantization is not None,
)
state = pyccl.torch.shared_state(net, optimizer, scheduler=scheduler)
print(f"{group.communicator.peer} is rank {group.rank()} of {group.size()}", flush=True)
while True:
    # Admits who waits, and gives the state to who lacks it. The revision counts the steps.
    group.sync(state)
    if state.revision >= options.steps:
        break
    time.sleep(options.pause)
    x = torch.randn(32, 64)
    loss = nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    state.revision += 1
    print(
        f"step {state.revision}: {group.size()} ranks, loss {loss.item():.3f}, "
        f"state {state.digest()[:8]}",
        flush=True,
    )
group.shutdown()
