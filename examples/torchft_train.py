"""torchft's Manager and lighthouse over process groups of pyccl.

    pip install torchft
    torchft_lighthouse --bind [::]:29510 --min_replicas 1 --join_timeout_ms 1000
    TORCHFT_LIGHTHOUSE=http://localhost:29510 python examples/torchft_train.py --replica 0
    TORCHFT_LIGHTHOUSE=http://localhost:29510 python examples/torchft_train.py --replica 1

Kill replicas and start them again: a step that loses one is not committed, and the next one is made
by those that are left. (examples/elastic_ddp.py does it without torchft, and loses no step.)
"""

import argparse
import time
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import nn
from torchft import Manager

from pyccl.torch.torchft import ProcessGroupPyccl

parser = argparse.ArgumentParser()
parser.add_argument("--replica", type=int, default=0)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--pause", type=float, default=0.1, help="seconds of pretended work per step")
options = parser.parse_args()

torch.set_num_threads(1)
net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
manager = Manager(
    pg=ProcessGroupPyccl(timeout=timedelta(seconds=30)),
    load_state_dict=net.load_state_dict,
    state_dict=net.state_dict,
    min_replica_size=1,
    rank=0,
    world_size=1,
    store_addr="localhost",
    store_port=store.port,
    replica_id=f"replica_{options.replica}",
)
while manager.current_step() < options.steps:
    manager.start_quorum()
    time.sleep(options.pause)
    x = torch.randn(32, 64)
    loss = nn.functional.mse_loss(net(x), x.sin().sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    works = [manager.allreduce(one.grad) for one in net.parameters() if one.grad is not None]
    for work in works:
        work.wait()
    if manager.should_commit():
        optimizer.step()
        total = sum(one.sum().item() for one in net.parameters())
        print(
            f"step {manager.current_step()}: {manager.num_participants()} replicas, "
            f"loss {loss.item():.3f}, state {total:.6f}",
            flush=True,
        )
manager.shutdown()
