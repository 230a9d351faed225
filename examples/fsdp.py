"""Training with sharded parameters (FSDP2), on the CPU, with any backend:

    torchrun --nproc_per_node 4 examples/fsdp.py --backend pyccl

Of every parameter and of the optimizer's state a rank holds its share. A layer is gathered before
it is used, and its gradients are averaged and cut up behind it.
"""

import argparse
import hashlib

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import pyccl.torch  # noqa: F401 - with it torch knows the backend "pyccl"

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default="pyccl")
parser.add_argument("--steps", type=int, default=50)
options = parser.parse_args()

dist.init_process_group(options.backend)
rank, world_size = dist.get_rank(), dist.get_world_size()

# Synthetic data: what another net says of random points. Each rank draws points of its own.
torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
random = torch.Generator().manual_seed(1 + rank)

# The same seed on all ranks: fully_shard keeps of each parameter the own share as it is.
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
# On a machine with CUDA, fully_shard would choose that by itself.
mesh = init_device_mesh("cpu", (world_size,))
for layer in model:
    if isinstance(layer, nn.Linear):
        fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
# Made behind fully_shard, so that its state is sharded, too.
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

for step in range(1, options.steps + 1):
    x = torch.randn(64, 16, generator=random)
    with torch.no_grad():
        target = teacher(x).argmax(1)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), target)
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        shown = loss.detach()
        dist.all_reduce(shown)
        if rank == 0:
            print(f"step {step}: loss {shown.item() / world_size:.4f}", flush=True)

digest = hashlib.sha256()
for parameter in model.parameters():
    digest.update(parameter.full_tensor().detach().numpy().tobytes())  # gathered, on all ranks
if rank == 0:
    held = sum(parameter.to_local().numel() for parameter in model.parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(f"rank 0 holds {held} of {whole} parameters", flush=True)
    print(f"parameters {digest.hexdigest()[:16]}", flush=True)
dist.destroy_process_group()
