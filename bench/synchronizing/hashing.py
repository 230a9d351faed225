"""How fast a state's digest is: beside the program of the hash's authors, and mere reading."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import pyccl
from synchronizing.tables import Row, Sample, spread

DIGEST, XXHSUM, READ = "state.digest()", "xxhsum -H2", "reading, 2 threads"
_SOURCE = Path(__file__).with_name("read_memory.c")
_FOLDER = Path("/dev/shm")

Call = Callable[[], object]


def measure(size: int, turns: int) -> list[Row]:
    """All of them in turn, over the same bytes."""
    x = np.random.default_rng(0).integers(0, 2**63, size // 8, np.int64)
    state = pyccl.SharedState({"x": x})
    calls: dict[str, Call] = {DIGEST: state.digest}
    with contextlib.ExitStack() as made:
        for more in (_xxhsum, _reading):
            calls |= made.enter_context(more(x))
        rows = [Row(name, x.nbytes) for name in calls]
        for turn in range(turns + 1):
            for row in rows:
                began = time.perf_counter()
                calls[row.name]()
                if turn:  # the first one warms up
                    row.samples.append(Sample(time.perf_counter() - began))
    return rows


@contextlib.contextmanager
def _xxhsum(x: np.ndarray[Any, Any]) -> Iterator[dict[str, Call]]:
    """From a file that is in memory."""
    if shutil.which("xxhsum") is None:
        print("without xxhsum: not installed (the Debian package xxhash)", file=sys.stderr)
        yield {}
        return
    with tempfile.NamedTemporaryFile(dir=_FOLDER if _FOLDER.is_dir() else None) as file:
        x.tofile(file)
        command = ["xxhsum", "-H2", file.name]
        yield {XXHSUM: lambda: subprocess.run(command, check=True, capture_output=True)}


@contextlib.contextmanager
def _reading(x: np.ndarray[Any, Any]) -> Iterator[dict[str, Call]]:
    """By 2 threads as the digest, and by one as xxhsum."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "read_memory.so"
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(_SOURCE)]
        try:
            subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"without the machine's own speed: {error}", file=sys.stderr)
            yield {}
            return
        read = ctypes.CDLL(str(library)).read_memory
        read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        read.restype = ctypes.c_uint64
        if read(x.ctypes.data, x.nbytes, 2) != int(x.view(np.uint64).sum(dtype=np.uint64)):
            raise RuntimeError("read_memory.c does not read all of it")
        yield {
            READ: lambda: read(x.ctypes.data, x.nbytes, 2),
            "reading, 1 thread": lambda: read(x.ctypes.data, x.nbytes, 1),
        }


def table_of(rows: list[Row]) -> Table:
    """In GB/s, and as multiples of what stands beside."""
    table = Table("", title=f"{rows[0].bytes >> 20} MiB")
    units = [row for row in rows if row.name in (XXHSUM, READ)]
    for header in ("GB/s: median (min-max)", *(f"x {unit.name}" for unit in units), "n"):
        table.add_column(header, justify="right")
    for row in rows:
        speeds = spread(row.bytes / one.seconds / 1e9 for one in row.samples)
        ratios = (f"{unit.median / row.median:.2f}" for unit in units)
        table.add_row(row.name, speeds, *ratios, str(len(row.samples)))
    return table
