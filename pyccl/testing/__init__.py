"""Real processes under your tests: a coordinator, peers to kill and stop, and a faulty proxy.

    from pyccl.testing import LocalCluster

    def work(comm, index):
        x = np.ones(1000, np.float32)
        return comm.all_reduce(x).world_size

    with LocalCluster(4, work) as cluster:
        assert cluster.results() == {0: 4, 1: 4, 2: 4, 3: 4}

Nothing here waits without a bound, and no process outlives the block or the test process.
"""

from pyccl.testing.child import next_order, report
from pyccl.testing.cluster import LocalCluster
from pyccl.testing.process import PeerProcess, PeerProcessError
from pyccl.testing.proxy import FaultProxy

__all__ = ["FaultProxy", "LocalCluster", "PeerProcess", "PeerProcessError", "next_order", "report"]
