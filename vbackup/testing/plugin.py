"""The pytest plugin (entry-point group ``pytest11``): fixtures for the tests of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vbackup.testing.transports import MemoryTransport

pytest_plugins = ("vbackup.testing.lab.fixtures",)
pytest.register_assert_rewrite("vbackup.testing.transport_contract", "vbackup.testing.codec_contract")


@pytest.fixture
def memory_transport() -> MemoryTransport:
    """Return a new, empty transport that keeps its objects in memory."""
    from vbackup.testing.transports import MemoryTransport

    return MemoryTransport()
