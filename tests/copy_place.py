"""A site with a job that copies from one repository to another, for tests of jobs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import guest, noise
from vbackup.api import hookimpl
from vbackup.config import load
from vbackup.jobs.copy import CopyReport, copy
from vbackup.jobs.init import init
from vbackup.jobs.run import RunReport, run
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE
from vbackup.repository.points import point_key
from vbackup.testing.hypervisors import FakeHypervisor

CHUNK = DEFAULT_CHUNK_SIZE


class Plugin:
    """Registers the hypervisor of the tests."""

    @hookimpl
    def vbackup_register_hypervisors(self, register: Any) -> None:
        register(FakeHypervisor)


class Place:
    """A site with a job that copies from one repository to another, and a third one."""

    def __init__(self, directory: Path, **job: Any) -> None:
        self.directory = directory
        self.site = self.open(**job)
        self.lab: Any = self.site.hypervisor("lab").inner

    def open(self, **job: Any) -> Site:
        config = {
            "hypervisors": {"lab": {"type": "fake"}},
            "transports": {name: {"type": "local", "path": str(self.store(name))} for name in (*NAMES, "files")},
            "targets": {
                name: {"type": "repository", "transport": name, "key": {"file": str(self.directory / f"{name}.key")}}
                for name in NAMES
            }
            | {"plain": {"type": "image", "transport": "files"}},
            "jobs": {
                "nightly": {"machines": ["lab:*"], "target": "main", "copies": ["offsite"], **job},
                "other": {"machines": ["lab:*"], "target": "main"},
            },
        }
        file = self.directory / "vbackup.yaml"
        file.write_text(json.dumps(config))
        registry = Registry.load()
        registry.register(Plugin(), "tests")
        state, cache = self.directory / "state", self.directory / "cache"
        return Site(load(file, registry), registry, state_dir=state, cache_dir=cache)

    def reopen(self) -> None:
        """Open the targets anew; the hypervisor keeps its guests."""
        self.site.close()
        self.site._hypervisors["lab"] = self.lab

    def store(self, name: str) -> Path:
        path = self.directory / "stores" / name
        path.parent.mkdir(exist_ok=True)
        return path

    def write(self, seed: int, name: str = "web") -> None:
        if name not in self.lab.guests:
            guest(self.lab, name, noise(4 * CHUNK, 1))
        self.lab.guests[name].disks["vda"].write(CHUNK, noise(CHUNK, seed))

    def run(self, *names: str) -> RunReport:
        return run(self.site, names or ("nightly",))

    def copy(self, *names: str, to: str = "offsite") -> CopyReport:
        return copy(self.site, names, to, lambda event: None)

    def ids(self, target: str) -> list[str]:
        return [point.id for point in self.site.target(target).points()]

    def damage(self, target: str, point: str) -> None:
        """Damage a point's object; as a host sees it that has no cache."""
        path = self.store(target) / point_key(point)
        path.chmod(0o600)
        path.write_bytes(b"rot" + path.read_bytes()[3:])
        self.reopen()
        shutil.rmtree(self.directory / "cache")


NAMES = ("main", "offsite", "shelf")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.site:
        init(made.site, None)
        yield made
