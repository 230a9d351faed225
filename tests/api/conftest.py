"""The C library as its own header describes it, loaded by cffi.

That the header parses, names what the library exports and gives the right numbers is tested by
using nothing else: no declaration is repeated here.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import cffi
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "csrc/include"
HEADER = INCLUDE / "pyccl.h"
# Far beyond what anything here takes, in seconds.
PATIENCE = 30.0


def header() -> str:
    """With what it includes of ours in its place."""

    def included(name: re.Match[str]) -> str:
        return (INCLUDE / name[1]).read_text()

    return re.sub(r'(?m)^#include "(\w+\.h)"$', included, HEADER.read_text())


def declarations() -> str:
    """The header without what the preprocessor would have dealt with."""
    text = re.sub(r"(?ms)^#ifdef __cplusplus$.*?^#endif$", "", header())
    return re.sub(r"(?m)^#.*$", "", text).replace("PYCCL_API ", "")


def constants() -> SimpleNamespace:
    """What the header defines as plain numbers."""
    found = re.findall(r"(?m)^#define PYCCL_(\w+) (\d+|\(-\d+\))$", header())
    return SimpleNamespace(**{name: int(number.strip("()")) for name, number in found})


def library_path() -> Path:
    folder = os.environ.get("PYCCL_BUILD", str(ROOT / "build"))
    path = Path(folder) / "csrc/api/libpyccl.so"
    if not path.exists():
        pytest.fail(f"{path} is not built: run `make core-tests`, or set PYCCL_BUILD", False)
    return path


@dataclass
class Library:
    """The library, its types, and a few comforts that keep tests short."""

    ffi: Any
    c: Any
    path: Path
    constants: SimpleNamespace
    kept_alive: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary)

    def error(self) -> str:
        return str(self.ffi.string(self.c.pyccl_error_text()).decode())

    def check(self, code: int) -> None:
        if code != self.c.PYCCL_OK:
            name = self.ffi.string(self.c.pyccl_code_name(code)).decode()
            raise AssertionError(f"{name}: {self.error()}")

    def options(self, kind: str, **changes: Any) -> Any:
        """Default options of a kind with some fields changed, as a pointer."""
        options = self.ffi.new(f"pyccl_{kind}_options *")
        options[0] = getattr(self.c, f"pyccl_{kind}_options_default")()
        texts = {
            name: self.ffi.new("char[]", value)
            for name, value in changes.items()
            if isinstance(value, bytes)
        }
        for name, value in (changes | texts).items():
            setattr(options, name, value)
        self.kept_alive[options] = texts  # a pointer in a struct does not own what it points to
        return options

    def dtype(self, x: np.ndarray) -> int:
        letter = {"f": "F", "i": "I", "u": "U"}[x.dtype.kind]
        return int(getattr(self.c, f"PYCCL_{letter}{x.dtype.itemsize * 8}"))

    def memory(self, x: np.ndarray | None) -> Any:
        return self.ffi.NULL if x is None else self.ffi.cast("void *", x.ctypes.data)

    def array(self, x: np.ndarray, out: np.ndarray | None = None) -> Any:
        """A pyccl_array over numpy memory; in place without `out`."""
        out = x if out is None else out
        array = self.ffi.new("pyccl_array *")
        array.input, array.input_count = self.memory(x), x.size
        array.output, array.output_count = self.memory(out), out.size
        array.dtype = self.dtype(x)
        return array

    def coordinator(self, **changes: Any) -> Any:
        handle = self.ffi.new("pyccl_coordinator **")
        options = self.options("coordinator", **{"bind": b"127.0.0.1:0"} | changes)
        self.check(self.c.pyccl_coordinator_start(options, handle))
        return handle[0]

    def connect(self, address: Any, **changes: Any) -> Any:
        handle = self.ffi.new("pyccl_communicator **")
        options = self.options("connect", timeout=PATIENCE, **changes)
        self.check(self.c.pyccl_connect(address, options, handle))
        return handle[0]

    def view(self, comm: Any) -> Any:
        view = self.ffi.new("pyccl_view *")
        self.check(self.c.pyccl_get_view(comm, view))
        return view

    def all_reduce(self, comm: Any, x: np.ndarray, **changes: Any) -> Any:
        """In place; gives the pyccl_operation_info."""
        info = self.ffi.new("pyccl_operation_info *")
        array = self.array(x)
        options = self.options("operation", timeout=PATIENCE, **changes)
        self.check(
            self.c.pyccl_all_reduce(
                comm, array.input, array.output, x.size, array.dtype, options, info
            )
        )
        return info


@pytest.fixture(scope="session")
def lib() -> Library:
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    path = library_path()
    return Library(ffi, ffi.dlopen(str(path)), path, constants())


@pytest.fixture
def coordinator(lib: Library) -> Iterator[Any]:
    handle = lib.coordinator()
    yield handle
    lib.c.pyccl_coordinator_free(handle)


RunPeers = Callable[[int, Callable[[int, Any], Any]], list[Any]]


@pytest.fixture
def run_peers(lib: Library, coordinator: Any) -> RunPeers:
    """Runs a function as each of `count` peers, in threads; gives the results by rank."""
    address = lib.c.pyccl_coordinator_address(coordinator)

    def peer(
        count: int, body: Callable[[int, Any], Any], all_there: threading.Barrier
    ) -> tuple[int, Any]:
        comm = lib.connect(address)
        try:
            while lib.view(comm).world_size < count:
                lib.check(lib.c.pyccl_update(comm, PATIENCE))
            rank = lib.view(comm).rank
            # Nobody begins, and maybe leaves, before all know their ranks.
            all_there.wait(PATIENCE)
            return rank, body(rank, comm)
        finally:
            lib.c.pyccl_leave(comm, PATIENCE)
            lib.c.pyccl_free(comm)

    def run(count: int, body: Callable[[int, Any], Any]) -> list[Any]:
        all_there = threading.Barrier(count)
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(peer, count, body, all_there) for _ in range(count)]
            results = dict(future.result(timeout=2 * PATIENCE) for future in futures)
        return [results[rank] for rank in range(count)]

    return run
