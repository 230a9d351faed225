"""Sites in network namespaces, and between all of them links with a rate and a delay.

Needs root, `ip`, TUN devices and a C compiler; the machine's own network stays as it is.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from namespaces import NoNamespacesError, name_of, run, spaces

DEVICE = "wan"
_NET = "10.214.0."
_SOURCE = Path(__file__).with_name("wire.c")
_WIRE = "wire"


class Link(NamedTuple):
    """What each site has to all others, in either direction."""

    mbit: float = 0.0
    """0: as much as the machine carries."""
    delay_ms: float = 0.0
    """One way."""
    queue_ms: float = 100.0
    """What would wait for longer is dropped."""

    @property
    def mtu(self) -> int:
        # Without a limit large packets, or they would be one.
        return 1500 if self.mbit else 65000


class Passed(NamedTuple):
    """What the links have carried."""

    packets: int
    dropped: int
    late_us: int
    """By how much the latest packet was later than it should have been."""


def address_of(site: int) -> str:
    return f"{_NET}{site + 1}"


@contextlib.contextmanager
def sites(count: int, link: Link) -> Iterator[list[Passed]]:
    """Namespaces 0 to count - 1. What they were given to carry is in the list behind that. Raises
    NoNamespacesError where there are none."""
    passed: list[Passed] = []
    wire = name_of(_WIRE)
    # Of this name and at once removed: whether there are any.
    first = [f"ip -n {wire} tuntap {verb} dev probe mode tun" for verb in ("add", "del")]
    with tempfile.TemporaryDirectory() as folder, spaces((*range(count), _WIRE), first):
        program = str(Path(folder) / _WIRE)
        try:
            compile_it = ["cc", "-O2", str(_SOURCE), "-o", program]
            subprocess.run(compile_it, check=True, capture_output=True)
        except OSError as error:
            raise NoNamespacesError(f"needs a C compiler: {error}") from error
        numbers = [str(one) for one in (count, link.mbit, link.delay_ms, link.queue_ms)]
        process = subprocess.Popen(
            ["ip", "netns", "exec", wire, program, *numbers],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the links did not come up")
            for site in range(count):
                _connect(site, link)
            yield passed
            process.stdin.close()
            passed.append(Passed(*map(int, process.stdout.read().split())))
        finally:
            process.kill()
            process.wait()


def _connect(site: int, link: Link) -> None:
    space, wire = name_of(site), name_of(_WIRE)
    run(f"ip -n {wire} link set wan{site} netns {space} name {DEVICE}")
    run(f"ip -n {space} addr add {address_of(site)}/24 dev {DEVICE}")
    run(f"ip -n {space} link set lo up")
    run(f"ip -n {space} link set {DEVICE} mtu {link.mtu} up")


class Counter:
    """Bytes that this process's site has sent, as the device counts them: headers, repetitions and
    all."""

    def __init__(self) -> None:
        self._file = open("/proc/self/net/dev", "rb", buffering=0)  # noqa: SIM115

    def sent(self) -> int:
        self._file.seek(0)
        for line in self._file.read().decode().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == DEVICE:
                return int(numbers.split()[8])
        raise RuntimeError(f"there is no device {DEVICE} here")
