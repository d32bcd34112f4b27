"""A store and a hypervisor to go wrong, and how to damage what is stored."""

from __future__ import annotations

import threading

import pytest

from vbackup.api import Quiesce
from vbackup.engine.backup import BackUp
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 64 << 10


@pytest.fixture
def store() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def lab() -> FakeHypervisor:
    return FakeHypervisor()


def disks(lab: FakeHypervisor, name: str = "web") -> dict[str, bytes]:
    return {key: bytes(disk.data) for key, disk in lab.guests[name].disks.items()}


def work(lab: FakeHypervisor, writer, owner: str) -> BackUp:
    return BackUp(lab, "lab", "nightly", owner, writer, Quiesce.TRY, threading.Event(), lambda progress: None)


def first_pack(store: MemoryTransport) -> str:
    return max((info for info in store.list("packs")), key=lambda info: info.size).key


def damage(store: MemoryTransport, key: str, start: int, end: int) -> None:
    data = bytearray(store.get(key))
    data[start:end] = bytes(end - start)
    store.put(key, data)
