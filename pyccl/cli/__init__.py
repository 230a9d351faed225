"""The command line: one file per command, loaded only when it is called."""

from __future__ import annotations

import importlib

import click

import pyccl

_COMMANDS = {
    "bench": "measure collectives between peers",
    "coordinator": "run the coordinator that peers connect to",
    "demo": "train over peers that come, go and crash",
}


class _Commands(click.Group):
    """Names the commands without importing them: a coordinator need not wait for the demo's."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = importlib.import_module(f"pyccl.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands)
@click.version_option(pyccl.__version__, prog_name="pyccl")
def main() -> None:
    """Collective communication for groups whose membership changes."""
