"""Ranks in processes that can be killed, and what they report.

The test process itself does not load torch: forge.py does, once for all tests, and forks the ranks.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Event = dict[str, Any]


class Forge:
    """The program that forks ranks."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, str(HERE / "forge.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert self._program.stdout is not None
        self._poll = selectors.DefaultSelector()
        self._poll.register(self._program.stdout, selectors.EVENT_READ)
        self._rest = b""
        self._crews: list[Crew] = []

    def crew(
        self, job: str, world: int, folder: Path, *, stores: int = 1, **arguments: Any
    ) -> Crew:
        """So many ranks that run module:function of this folder."""
        made = Crew(self, world, folder)
        order = {
            "crew": len(self._crews), "job": job, "world": world, "folder": str(folder),
            "stores": stores, "arguments": arguments,
        }  # fmt: skip
        self._crews.append(made)
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(order).encode() + b"\n")
        self._program.stdin.flush()
        # It may still be loading torch.
        made.until(lambda: bool(made.pids), 60.0)
        return made

    def take(self, seconds: float) -> None:
        """Gives the crews what has been reported, if anything is within that time."""
        if not self._poll.select(max(0.0, seconds)):
            return
        assert self._program.stdout is not None
        read = os.read(self._program.stdout.fileno(), 65536)
        assert read, "the program that forks ranks has ended"
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self._crews[event["crew"]].hear(event)

    def close(self) -> None:
        # With it all of its ranks are killed: they have asked for that.
        self._program.kill()
        self._program.wait(10.0)
        for pipe in (self._program.stdin, self._program.stdout):
            assert pipe is not None
            pipe.close()
        self._poll.close()


class Crew:
    """Ranks that were started together."""

    def __init__(self, forge: Forge, world: int, folder: Path) -> None:
        self.pids: list[int] = []
        self.events: list[Event] = []
        self.ended: dict[int, int] = {}
        """By rank: the exit status, or minus the signal."""
        self._forge = forge
        self._world = world
        self._folder = folder

    def hear(self, event: Event) -> None:
        if "pids" in event:
            self.pids = event["pids"]
        elif "ended" in event:
            self.ended[event["rank"]] = event["ended"]
        else:
            self.events.append(event)

    def until(self, reached: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            left = deadline - time.monotonic()
            assert left > 0, f"what was waited for did not happen in {seconds} s\n{self._story()}"
            self._forge.take(left)

    def told(self, what: str) -> dict[int, Event]:
        """The first report by rank that has this key."""
        found: dict[int, Event] = {}
        for event in self.events:
            if what in event:
                found.setdefault(event["rank"], event)
        return found

    def until_told(self, what: str, ranks: list[int], seconds: float) -> list[Event]:
        """Reports with this key, of these ranks; an error at once if one of them has failed."""

        def reached() -> bool:
            told = self.told(what)
            missing = [rank for rank in ranks if rank not in told]
            failed = {rank: self.ended[rank] for rank in missing if rank in self.ended}
            assert not failed, f"ended without a word of {what!r}: {failed}\n{self._story()}"
            return not missing

        self.until(reached, seconds)
        return [self.told(what)[rank] for rank in ranks]

    def until_ended(self, ranks: list[int], seconds: float) -> None:
        """In good order."""
        self.until(lambda: all(rank in self.ended for rank in ranks), seconds)
        assert all(self.ended[rank] == 0 for rank in ranks), self._story()

    def signal(self, rank: int, number: signal.Signals) -> float:
        """Returns the time at which it was sent, on the clock that all processes share."""
        assert rank not in self.ended, self._story()
        sent = time.monotonic()
        os.kill(self.pids[rank], number)
        return sent

    def close(self) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in self.ended:
                with contextlib.suppress(ProcessLookupError):  # its end may not be read yet
                    os.kill(pid, signal.SIGKILL)
        self.until(lambda: len(self.ended) == self._world, 20.0)

    def _story(self) -> str:
        said = [f"ended: {self.ended}", f"events: {self.events[-20:]}"]
        for rank in range(self._world):
            log = self._folder / f"rank{rank}.log"
            if log.exists():
                text = log.read_text(encoding="utf-8", errors="replace")
                said.append(f"---- rank {rank}\n{text[-4000:]}")
        return "\n".join(said)
