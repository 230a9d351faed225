"""Data-parallel training with torch, an ordinary script but for the name of the backend:

    torchrun --nproc_per_node 2 examples/torch_ddp.py --backend pyccl

A lost rank makes every other raise DistBackendError within seconds, and torchrun starts all again.
"""

import argparse
import hashlib

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pyccl.torch  # noqa: F401 - with it torch knows the backend "pyccl"

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default="pyccl")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()

dist.init_process_group(options.backend)
rank, world_size = dist.get_rank(), dist.get_world_size()

# Synthetic data: what another net says of random points. Each rank draws points of its own.
torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
random = torch.Generator().manual_seed(1 + rank)

# The seed differs by rank, but DDP begins with the parameters of rank 0 everywhere.
torch.manual_seed(100 + rank)
net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

for step in range(1, options.steps + 1):
    x = torch.randn(64, 16, generator=random)
    with torch.no_grad():
        target = teacher(x).argmax(1)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), target)
    loss.backward()  # in which DDP averages the gradients
    optimizer.step()
    if step % 20 == 0:
        shown = loss.detach()
        dist.all_reduce(shown)
        if rank == 0:
            print(f"step {step}: loss {shown.item() / world_size:.4f}", flush=True)

digest = hashlib.sha256()
for parameter in net.parameters():
    digest.update(parameter.detach().numpy().tobytes())
digests = [""] * world_size
dist.all_gather_object(digests, digest.hexdigest()[:16])
if rank == 0:
    alike = "the same" if len(set(digests)) == 1 else "NOT the same"
    print(f"parameters {digests[0]}, {alike} on {world_size} ranks", flush=True)
dist.destroy_process_group()
