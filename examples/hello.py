"""Start `pyccl coordinator`, then this in two terminals."""

import sys

import numpy as np

import pyccl

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:48148"
with pyccl.connect(address, world_size_min=2) as comm:
    rank = comm.rank
    x = np.full(4, rank + 1.0, np.float32)
    info = comm.all_reduce(x, op="avg")
print(f"rank {rank}: the average over {info.world_size} peers is {x}")
