"""`pyccl coordinator`: runs until it is told to end, and logs what it decides and why."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from pyccl.coordinator import Coordinator
from pyccl.errors import PycclError

_log = logging.getLogger("pyccl.coordinator")


@click.command()
@click.option(
    "--bind", default="127.0.0.1:48148", show_default=True, metavar="HOST:PORT",
    help="Where to listen; port 0 picks one.",
)  # fmt: skip
@click.option(
    "--state", metavar="PATH|none",
    help="File from which a restarted coordinator goes on. By default one per port in the user's "
    "state directory; none with port 0.",
)  # fmt: skip
@click.option(
    "--heartbeat-limit", type=click.FloatRange(min=0, min_open=True), metavar="S",
    help="Seconds of silence after which a peer counts as dead; 4 by default.",
)  # fmt: skip
@click.option(
    "--recovery-limit", type=click.FloatRange(min=0, min_open=True), metavar="S",
    help="Seconds that a restarted coordinator waits for the members of its last view; 10 by "
    "default.",
)  # fmt: skip
@click.option("--verbose", is_flag=True, help="Log details, too.")
@click.option("--plain", is_flag=True, help="Plain log lines, also on a terminal.")
def command(
    bind: str,
    state: str | None,
    heartbeat_limit: float | None,
    recovery_limit: float | None,
    verbose: bool,
    plain: bool,
) -> None:
    """Run the coordinator that peers connect to.

    Prints its address as the first line, and logs joins, deaths and views to standard error.
    SIGTERM and Ctrl-C end it; the members go on without it.
    """
    _set_up_log(verbose, plain)
    signals = _catch_signals()
    path = _state_path(bind, state)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        coordinator = Coordinator(
            bind, state=path, heartbeat_limit=heartbeat_limit, recovery_limit=recovery_limit
        )
    except (PycclError, OSError) as error:
        raise click.ClickException(str(error)) from error
    with coordinator:
        print(coordinator.address, flush=True)
        _log.info(
            "listening on %s, incarnation %d, %s", coordinator.address, coordinator.incarnation,
            f"state in {path}" if path else "without a state file: a restart begins a new run",
        )  # fmt: skip
        number = os.read(signals, 1)[0]
    _log.info("ended by %s; the members go on without it", signal.Signals(number).name)


def _catch_signals() -> int:
    """A descriptor from which the number of a signal that came can be read. (Blocking them and
    waiting would leave them to threads that libraries had started before.)"""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return read


def _state_path(bind: str, state: str | None) -> Path | None:
    if state == "none":
        return None
    if state:
        return Path(state)
    port = bind.rpartition(":")[2]
    if port == "0":
        return None
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "pyccl" / f"{port}.state"


def _set_up_log(verbose: bool, plain: bool) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    if plain or not sys.stderr.isatty():
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
        return
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
