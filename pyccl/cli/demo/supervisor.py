"""Runs the script of the demo: starts the processes, hurts them at the right moment, takes notes.

    a fifth of the rounds    one peer is killed in mid operation
    two fifths               a new one joins
    three fifths             the coordinator is killed; some rounds later it is started again
    four fifths              one peer leaves in good order

To be sure that the operation is under way when its victim dies, another peer is held back until the
victim is dead: then nobody can have finished it.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Protocol

from pyccl.cli.demo.record import Event, Record, Round
from pyccl.cli.demo.training import Row, Settings, run
from pyccl.testing import LocalCluster, PeerProcess, PeerProcessError

_ROUNDS_WITHOUT_COORDINATOR = 3
_HELD, _VICTIM = 0, 1


class View(Protocol):
    """Whoever shows what happens."""

    def round_ended(self, one: Round) -> None: ...
    def event_changed(self, event: Event) -> None: ...


class Supervisor:
    """One run of the demo."""

    def __init__(
        self, settings: list[Settings], rounds: int, view: View, seconds_max: float
    ) -> None:
        # The last one is the newcomer's.
        self._settings = settings
        self._rounds = rounds
        self._view = view
        self._record = Record(peers=len(settings) - 1)
        self._deadline = time.monotonic() + seconds_max
        self._reports: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._said: set[tuple[int, str]] = set()
        self._events: dict[str, Event] = {}
        self._shown = 0
        self._told_to_end = False

    def run(self) -> Record:
        """The whole script. Whatever goes wrong stands in the record's faults."""
        began = time.monotonic()
        peers = self._record.peers
        self._settings[_HELD].held_at = self._settings[_VICTIM].doomed_at = self._rounds // 5
        with LocalCluster(0, run, timeout=30.0) as self._cluster:
            for settings in self._settings[:-1]:
                self._add(settings, connect={"world_size_min": peers})
            self._newcomer = self._add(self._settings[-1], wait_for_order=True)
            try:
                while any(peer.alive() for peer in self._cluster.peers):
                    self._take(self._next_report())
                while not self._reports.empty():
                    self._take(self._reports.get())
                self._check_ends()
            except (TimeoutError, PeerProcessError) as error:
                self._record.faults.append(str(error))
        self._record.seconds = time.monotonic() - began
        return self._record

    def _add(self, settings: Settings, **options: Any) -> PeerProcess:
        peer = self._cluster.add(arguments=(settings,), **options)

        def forward() -> None:
            try:
                while True:
                    self._reports.put((peer.index, peer.next_report(120.0)))
            except (PeerProcessError, TimeoutError):
                pass  # its end is noticed and judged elsewhere

        threading.Thread(target=forward, daemon=True).start()
        return peer

    def _next_report(self) -> tuple[int, Any] | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            alive = [str(peer.index) for peer in self._cluster.peers if peer.alive()]
            raise TimeoutError(f"peer process {', '.join(alive)} hung: the time is over")
        try:
            return self._reports.get(timeout=min(left, 0.1))
        except queue.Empty:
            return None

    def _take(self, report: tuple[int, Any] | None) -> None:
        if report is None:
            return
        index, said = report
        if not isinstance(said, Row):
            self._said.add((index, said))
            if {(_HELD, "held"), (_VICTIM, "inside")} <= self._said and "kill" not in self._events:
                self._kill()
            return
        self._record.add(said)
        while self._shown < len(self._record.rounds):
            one = self._record.rounds[self._shown]
            if not one.complete:
                break
            self._shown += 1
            self._account(one)
            self._view.round_ended(one)
            self._act(one)

    def _act(self, one: Round) -> None:
        """What the script wants after this round."""
        fifth = self._rounds // 5
        if self._due("join", one, 2 * fifth, "kill"):
            self._note("join", one.number, "a new peer asks to join")
            self._newcomer.send("join")
        if self._due("coordinator", one, 3 * fifth, "join"):
            self._cluster.coordinator.kill()
            self._note("coordinator", one.number, "the coordinator is killed")
        away = self._open("coordinator")
        if (
            away is not None
            and not self._cluster.coordinator.alive()
            and one.number >= away.round + _ROUNDS_WITHOUT_COORDINATOR
        ):
            self._cluster.coordinator.start()
            away.text += f"; started again after round {one.number}"
            self._view.event_changed(away)
        if self._due("leave", one, 4 * fifth, "coordinator"):
            leaver = self._record.peers - 1
            self._note("leave", one.number, f"peer {leaver} leaves in good order")
            self._cluster.peers[leaver].send("leave")
        if self._ended("leave") and one.number >= self._rounds - 2 and not self._told_to_end:
            self._told_to_end = True
            self._cluster.peers[_HELD].send("end")

    def _due(self, name: str, one: Round, number: int, former: str) -> bool:
        return one.number >= number and self._ended(former) and name not in self._events

    def _account(self, one: Round) -> None:
        """What an event cost is known some rounds later."""
        members_before = self._record.rounds[one.number - 1].rows[0].members if one.number else 0
        members = one.rows[0].members
        if (event := self._open("kill")) and one.number == event.round:
            # Against the clock: from the signal until the last survivor had its result.
            usual = self._record.undisturbed_seconds()
            self._close(event, 1000 * (one.ended_at - event.began - usual))
            # The victim was inside it in the view before this one.
            if one.rows[0].epoch == self._record.rounds[one.number - 1].rows[0].epoch:
                self._record.faults.append("the peer was not killed in mid operation")
        if (event := self._open("join")) and self._newcomer.index in {r.index for r in one.rows}:
            self._close(event, self._record.lost_between(event.round + 1, one.number))
        if (event := self._open("coordinator")) and "recovered" in self._cluster.coordinator.log():
            self._close(event, self._record.lost_between(event.round + 1, one.number))
        if (event := self._open("leave")) and members < members_before:
            self._close(event, self._record.lost_between(event.round + 1, one.number))

    def _kill(self) -> None:
        number = self._settings[_VICTIM].doomed_at
        began = time.monotonic()
        self._cluster.kill(_VICTIM)
        self._note("kill", number, f"peer {_VICTIM} is killed in mid operation", began)
        self._cluster.peers[_HELD].send("go")

    def _note(self, name: str, number: int, text: str, began: float | None = None) -> None:
        event = Event(name, number, text, time.monotonic() if began is None else began)
        self._events[name] = event
        self._record.events.append(event)
        self._view.event_changed(event)

    def _open(self, name: str) -> Event | None:
        event = self._events.get(name)
        return event if event is not None and event.milliseconds_lost is None else None

    def _ended(self, name: str) -> bool:
        return name in self._events and self._open(name) is None

    def _close(self, event: Event, milliseconds: float) -> None:
        event.milliseconds_lost = max(0.0, milliseconds)
        self._view.event_changed(event)

    def _check_ends(self) -> None:
        missing = {"kill", "join", "coordinator", "leave"} - set(self._events)
        self._record.faults += [f"{name} never happened" for name in sorted(missing)]
        for peer in self._cluster.peers:
            if not peer.killed:
                leaver = peer.index == self._record.peers - 1
                ended = peer.result()
                if ended != ("left" if leaver else "ended"):
                    self._record.faults.append(f"peer {peer.index} {ended} at the wrong time")
        if not self._cluster.coordinator.alive():
            self._record.faults.append("the coordinator died")
