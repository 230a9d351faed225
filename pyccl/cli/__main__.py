"""`python -m pyccl.cli` is the same as `pyccl`."""

from pyccl.cli import main

main(prog_name="pyccl")
