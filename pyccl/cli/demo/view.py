"""The demo on the screen: a table that grows while the run goes on, or plain lines."""

from __future__ import annotations

from types import TracebackType

import click

from pyccl.cli.demo.record import Event, Record, Round

_ROWS_SHOWN = 16


class PlainView:
    """One line for whatever happens, for files and dumb terminals."""

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def round_ended(self, one: Round) -> None:
        row = one.summary()
        click.echo(
            f"round {row['round']:3}  epoch {row['epoch']:5}  peers {row['peers']}  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  digest {row['digest']}  "
            f"{row['milliseconds']:7.2f} ms"
        )

    def event_changed(self, event: Event) -> None:
        click.echo(f"       {describe(event)}")


class TableView:
    """The last rounds and all events, drawn again in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._rounds: list[Round] = []
        self._events: list[Event] = []
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> TableView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def round_ended(self, one: Round) -> None:
        self._rounds.append(one)
        self._draw()

    def event_changed(self, event: Event) -> None:
        if event not in self._events:
            self._events.append(event)
        self._draw()

    def _draw(self) -> None:
        from rich.console import Group
        from rich.table import Table

        rounds = Table("round", "epoch", "peers", "loss", "accuracy", "digest", "ms")
        for one in self._rounds[-_ROWS_SHOWN:]:
            row = one.summary()
            struck = any(event.round == one.number for event in self._events)
            rounds.add_row(
                str(row["round"]),
                row["epoch"],
                str(row["peers"]),
                f"{row['loss']:.4f}",
                f"{row['accuracy']:.4f}",
                row["digest"],
                f"{row['milliseconds']:.2f}",
                style="bold yellow" if struck else None,
            )
        events = Table("round", "event", "ms lost")
        for event in self._events:
            lost = event.milliseconds_lost
            events.add_row(str(event.round), event.text, "..." if lost is None else f"{lost:.1f}")
        self._live.update(Group(rounds, events), refresh=True)


def describe(event: Event) -> str:
    """One line about an event."""
    if event.milliseconds_lost is None:
        return event.text
    return f"{event.text}: {event.milliseconds_lost:.1f} ms lost"


def verdict(record: Record, faults: list[str]) -> str:
    """The last words."""
    if faults:
        return "\n".join(["The run was NOT good:", *(f"  {fault}" for fault in faults)])
    return (
        f"Good: {len(record.rounds)} rounds in {record.seconds:.1f} s, all digests equal at every "
        f"round, accuracy {record.accuracy:.4f}, nobody hung."
    )
