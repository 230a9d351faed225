"""torch's own tests of its backends, run for pyccl.

They are a part of torch (torch.testing._internal.distributed.distributed_test), and name the
backends that they are for. Where they name Gloo, or MPI for what Gloo has not, this file has them
take pyccl, too, before the text is compiled; nothing else of it is changed. Run as a program like
any file of unittest, with BACKEND=gloo for comparison:

    BACKEND=pyccl WORLD_SIZE=3 python tests/torch/suite.py -v [-k NAME]
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types

# With it torch writes reports, by a package that need not be here.
os.environ.pop("CI", None)

import torch
from torch.testing._internal import common_distributed

NAME = "torch.testing._internal.distributed.distributed_test"
# What these tests ask of a backend by its name.
CONDITIONS = {
    'BACKEND != "gloo"': 'BACKEND not in ("gloo", "pyccl")',
    'BACKEND != "mpi"': 'BACKEND not in ("mpi", "pyccl")',
    'BACKEND == "gloo"': 'BACKEND in ("gloo", "pyccl")',
    'require_backend_is_available({"gloo"})': 'require_backend_is_available({"gloo", "pyccl"})',
}

os.environ.setdefault("BACKEND", "pyccl")
os.environ.setdefault("WORLD_SIZE", "3")
os.environ.setdefault("TEMP_DIR", tempfile.mkdtemp(prefix="pyccl-torch-suite-"))
# One core for each rank; more threads only get into each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyccl.torch  # noqa: E402, F401 - with it torch knows the backend

for _features in common_distributed.DistTestCases.backend_feature.values():
    if "gloo" in _features:
        _features.add("pyccl")
common_distributed.DistTestCases.backend_feature["plugin"].add("pyccl")


def load() -> types.ModuleType:
    """The module, with those conditions."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        text = file.read()
    for old, new in CONDITIONS.items():
        assert old in text, f"this torch ({torch.__version__}) has another suite: no {old}"
        text = text.replace(old, new)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    exec(compile(text, spec.origin, "exec", dont_inherit=True), module.__dict__)
    return module


_suite = load()


_Base = _suite.DistributedTest._DistTestBase


class TestBackend(_suite.TestDistBackend, _Base):  # type: ignore[misc, name-defined]
    def setUp(self) -> None:
        super().setUp()
        # Forked, they need not load torch again.
        self._start_processes(torch.multiprocessing.get_context("fork").Process)


if __name__ == "__main__":
    from torch.testing._internal.common_utils import run_tests

    run_tests()
