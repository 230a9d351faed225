"""What the command lines of the benches have in common: lists, the file for figures, a console."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

Callback = Callable[[click.Context, click.Parameter, str], Any]

FILE = click.Path(dir_okay=False, path_type=Path)


def parsed(kind: Callable[[str], Any]) -> Callback:
    """For an option whose text `kind` understands, or refuses with a ValueError."""

    def parse(_: click.Context, __: click.Parameter, text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return parse


def list_of(kind: Callable[[str], Any]) -> Callback:
    """What stands between commas."""
    return parsed(lambda text: [kind(part) for part in text.split(",")])


def peers_of(text: str) -> int:
    if (peers := int(text)) < 2:
        raise ValueError("there is nothing to send with less than 2 peers")
    return peers


def console_of(width: int) -> Console:
    """For tables. A file has no width to fit into: there it is `width` columns."""
    return Console() if sys.stdout.isatty() else Console(width=width)


def write(file: Path | None, content: dict[str, Any]) -> None:
    """As JSON, if there is a file to write to."""
    if file is not None:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
