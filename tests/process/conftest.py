"""Options of the tests with real processes, and what they all check."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--churn-rounds",
        type=int,
        default=15,
        help="events of random churn (joins, kills, leaves); give the folder on the command line",
    )
