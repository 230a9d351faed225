"""A loop that peers may join and leave at any time, in any way.

Start `pyccl coordinator`, then this in as many terminals as you like, at any moment. Kill some,
start others: all that live hold the same state after every step.
"""

import argparse
import time
import zlib

import numpy as np

import pyccl

parser = argparse.ArgumentParser()
parser.add_argument("address", nargs="?", default="127.0.0.1:48148")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--pause", type=float, default=0.5, help="seconds of pretended work per step")
options = parser.parse_args()

with pyccl.connect(options.address) as comm:
    print(f"{comm.peer} is rank {comm.rank} of {comm.world_size}", flush=True)
    random = np.random.default_rng()
    state, step = np.zeros(1000), np.zeros(1)
    # Whoever finds others here learns the state from them: its first contribution has weight 0.
    weight = 1.0 if comm.world_size == 1 else 0.0
    while step[0] < options.steps:
        time.sleep(options.pause)
        if weight:
            state += random.normal(size=state.shape)
            step += 1
        try:
            info = comm.all_reduce([state, step], op="avg", weight=weight)
        except pyccl.InvalidArgumentError:  # nobody has a weight above 0
            raise SystemExit("all who knew the state are gone") from None
        weight = 1.0
        print(
            f"step {step[0]:.0f}: {info.world_size} of {info.members} peers in view {info.epoch}, "
            f"state {zlib.crc32(state.tobytes()):08x}, {1000 * info.seconds:.1f} ms",
            flush=True,
        )
        # The same on all members, so all come to this boundary together.
        if comm.peers_pending:
            comm.update()
