"""The pytest plugin (entry-point group ``pytest11``): fixtures for the tests of plugins.

Nothing of the kit is imported before a test asks for it, so that it costs nothing where it is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from vbackup.testing.hypervisors import FakeHypervisor
    from vbackup.testing.site import Site
    from vbackup.testing.transports import MemoryTransport

pytest_plugins = ("vbackup.testing.lab.fixtures",)
pytest.register_assert_rewrite(
    "vbackup.testing.transport_contract",
    "vbackup.testing.codec_contract",
    "vbackup.testing.hypervisor_contract",
    "vbackup.testing.target_contract",
    "vbackup.testing.executor_contract",
    "vbackup.testing.events_contract",
)


@pytest.fixture
def memory_transport() -> MemoryTransport:
    """Return a new, empty transport that keeps its objects in memory."""
    from vbackup.testing.transports import MemoryTransport

    return MemoryTransport()


@pytest.fixture
def fake_hypervisor() -> FakeHypervisor:
    """Return a new hypervisor in memory, without machines; see `vbackup.testing.hypervisors`."""
    from vbackup.testing.hypervisors import FakeHypervisor

    return FakeHypervisor()


class MakeSite(Protocol):
    """Makes a `Site`; see `vbackup_site`."""

    def __call__(
        self, config: Mapping[str, Any], *, name: str = "site", env: Mapping[str, str] | None = None
    ) -> Site: ...


@pytest.fixture
def vbackup_site(tmp_path: Path) -> MakeSite:
    """Return what makes a site: the real command on ``config``, in a directory ``name`` of this test's own.

    ``site = vbackup_site({...}); site("init"); site("run", "nightly")``; see `vbackup.testing.site`.
    """

    def make(config: Mapping[str, Any], *, name: str = "site", env: Mapping[str, str] | None = None) -> Site:
        from vbackup.testing.site import Site

        return Site(tmp_path / name, config, env=env)

    return make
