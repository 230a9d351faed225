"""The ranks of one backend of torch.distributed on this host."""

from __future__ import annotations

import os
from types import TracebackType

from crew import Crew
from torch import distributed as dist

_HOST = "127.0.0.1"


class Ranks(Crew):
    """A process group; no rank uses more than one thread to compute."""

    def __init__(self, backend: str, count: int, limit_seconds: float) -> None:
        """limit_seconds: how long one order may take."""
        self._backend = backend
        # A port of its own choice: one that was only found to be free may be taken by then.
        self._store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        super().__init__(backend, count, limit_seconds)

    def __enter__(self) -> Ranks:
        try:
            self.run(_join, self._backend, self._store.port)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.run(_leave)
        finally:
            super().__exit__(kind, error, traceback)


def _join(rank: int, count: int, backend: str, port: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if backend == "pyccl":
        import pyccl.torch  # noqa: F401 - with it torch knows the backend
    store = dist.TCPStore(_HOST, port, is_master=False)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)


def _leave(_: int, __: int) -> None:
    dist.barrier()
    dist.destroy_process_group()
