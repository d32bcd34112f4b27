"""A plugin on the simulated vCenter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator

from .captures import MACHINE, Site, Sites, connect


@pytest.fixture
def make_site(vcsim: Simulator, tmp_path: Path) -> Iterator[Sites]:
    """Connect to the simulator with options of the test's choice; ``simulator=`` names another one.

    Its machine is a new one with a disk of 8 MiB, unless it is named.
    """
    made: set[str] = set()
    with ExitStack() as stack:

        def make(simulator: Simulator = vcsim, name: str = MACHINE, **options: Any) -> Site:
            if name == MACHINE and MACHINE not in made:
                made.add(MACHINE)
                simulator.add_vm(MACHINE)
            vsphere = connect(simulator, tmp_path / "state", **options)
            stack.callback(vsphere.close)
            return Site(simulator, vsphere, name)

        yield make


@pytest.fixture
def site(make_site: Sites) -> Site:
    """A machine whose changes are tracked, read by HTTPS ranges."""
    made = make_site(read=["datastore"])
    made.track()
    return made
