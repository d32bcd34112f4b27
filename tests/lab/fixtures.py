"""Options and settings of all tests of this tree and of ``plugins/*/tests``."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_configure() -> None:
    """Let no test fail for the time that it takes on a busy machine."""
    settings.register_profile("vbackup", deadline=None)
    settings.load_profile("vbackup")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/test_bit_exact.py and tests/chaos."""
    parser.addoption("--steps", type=int, default=600, help="steps of random histories; 0: without end")
    parser.addoption("--seed", type=int, default=0, help="seed of random histories; 0: a new one each time")
    parser.addoption("--chaos-seconds", type=float, default=30, help="how long the chaos goes on")
