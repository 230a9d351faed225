"""A loop that peers may join and leave at any time, in any way, and that may be killed as a whole.

Start `pyccl coordinator`, then this in as many terminals as you like, at any moment. Kill some,
start others: all that live hold the same state after every step. With --snapshot FILE (one for each
peer) all of them may be killed: started again, they go on from the newest file.
"""

import argparse
import os
import time

import numpy as np

import pyccl

parser = argparse.ArgumentParser()
parser.add_argument("address", nargs="?", default="127.0.0.1:48148")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--pause", type=float, default=0.5, help="seconds of pretended work per step")
parser.add_argument("--snapshot", help="where to keep the state, every tenth step")
options = parser.parse_args()

weights = np.zeros(1000)
state = pyccl.SharedState({"weights": weights})
if options.snapshot and os.path.exists(options.snapshot):
    state.load(options.snapshot)

with pyccl.connect(options.address) as comm:
    print(f"{comm.peer} is rank {comm.rank} of {comm.world_size}", flush=True)
    random = np.random.default_rng()
    while True:
        # Admits who waits, and gives the state to who lacks it. The revision counts the steps.
        sync = comm.sync(state)
        if sync.revision >= options.steps:
            break
        time.sleep(options.pause)
        update = random.normal(size=weights.shape)
        info = comm.all_reduce(update, op="avg")
        weights += update
        state.revision += 1
        print(
            f"step {state.revision}: {info.world_size} peers in view {info.epoch}, "
            f"state {state.digest()[:8]}, {1000 * (sync.seconds + info.seconds):.1f} ms",
            flush=True,
        )
        if options.snapshot and state.revision % 10 == 0:
            state.save(options.snapshot)
