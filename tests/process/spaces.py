"""Network namespaces of bench/namespaces.py for tests, which are skipped where there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import namespaces
import pytest
from namespaces import in_space, name_of, run

__all__ = ["in_space", "name_of", "run", "spaces"]


@contextlib.contextmanager
def spaces(names: Iterable[int | str], first: Iterable[str]) -> Iterator[None]:
    """As there."""
    with contextlib.ExitStack() as made:
        try:
            made.enter_context(namespaces.spaces(names, first))
        except namespaces.NoNamespacesError as error:
            pytest.skip(str(error))
        yield
