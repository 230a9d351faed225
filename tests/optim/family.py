"""The modules of pyccl.optim, and copies of them in which one text is another: mutants.

A copy imports the copies of its siblings and leaves what was imported elsewhere alone, so that a
mutant of one module reaches the classes that are built on it, and no other test.
"""

from __future__ import annotations

import builtins
import importlib
import threading
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "pyccl.optim."
_COPIED = (
    "outer", "rounds", "parameters", "schedule", "wrapper", "diloco", "streaming",
    "delayed", "numpy", "gossip", "meetings", "noloco", "vectors", "staleness", "co2",
    "penalty", "edit", "comparison",
)  # fmt: skip


class Family:
    """Without arguments the modules themselves; else `old` is `new` in the source of `file`."""

    def __init__(self, file: str = "", old: str = "", new: str = "") -> None:
        self._file, self._text = file, ""
        if file:
            # Here, and not when it is copied: there the error might pass for that of a test.
            text = _source(file)
            assert text.count(old) == 1, f"{text.count(old)} times in {file}: {old}"
            self._text = text.replace(old, new)
        self._copies: dict[str, Any] = {}
        # Peers on several threads may ask first, and must get the same classes.
        self._lock = threading.RLock()

    @property
    def OuterState(self) -> Any:  # noqa: N802 - as it is called there
        return self.module("outer").OuterState

    @property
    def DiLoCo(self) -> Any:  # noqa: N802
        return self.module("diloco").DiLoCo

    @property
    def StreamingDiLoCo(self) -> Any:  # noqa: N802
        return self.module("streaming").StreamingDiLoCo

    @property
    def DelayedDiLoCo(self) -> Any:  # noqa: N802
        return self.module("delayed").DelayedDiLoCo

    @property
    def NoLoCo(self) -> Any:  # noqa: N802
        return self.module("noloco").NoLoCo

    @property
    def CO2(self) -> Any:  # noqa: N802
        return self.module("co2").CO2

    @property
    def EDiT(self) -> Any:  # noqa: N802
        return self.module("edit").EDiT

    @property
    def ArrayDiLoCo(self) -> Any:  # noqa: N802
        return self.module("numpy").DiLoCo

    @property
    def ArrayNoLoCo(self) -> Any:  # noqa: N802
        return self.module("numpy").NoLoCo

    def module(self, name: str) -> Any:
        if not self._file:
            return importlib.import_module(_PACKAGE + name)
        with self._lock:
            if name not in self._copies:
                self._copies[name] = self._copy(name)
            return self._copies[name]

    def _copy(self, name: str) -> types.ModuleType:
        text = self._text if name == self._file else _source(name)
        copy = types.ModuleType(_PACKAGE + name)
        copy.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        exec(compile(text, f"a copy of {name}", "exec", dont_inherit=True), copy.__dict__)
        return copy

    def _import(self, name: str, *arguments: Any) -> Any:
        short = name.removeprefix(_PACKAGE)
        if short != name and short in _COPIED:
            return self.module(short)
        return builtins.__import__(name, *arguments)


def _source(name: str) -> str:
    spec = find_spec(_PACKAGE + name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


REAL = Family()
