"""The simulated vCenter as pytest fixtures, for the tests of this tree and of ``plugins/*/tests``; see README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator


@pytest.fixture
def vcsim() -> Iterator[Simulator]:
    """A vCenter with the default inventory, new for each test."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def make_vcsim() -> Iterator[Callable[..., Simulator]]:
    """Start simulators with flags of the test's choice, such as ``make_vcsim(esx=True)``."""
    with ExitStack() as stack:

        def make(**options: Any) -> Simulator:
            return stack.enter_context(Simulator(**options))

        yield make
