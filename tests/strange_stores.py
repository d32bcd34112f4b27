"""Stores that each misbehave in one way, and trials of them with ``vbackup transport test``."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel

from tests.commandline import Outcome, Vbackup
from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Busy,
    NotFound,
    ObjectInfo,
    Options,
    Transport,
    Unavailable,
    Unsupported,
    hookimpl,
)
from vbackup.api.hypervisor import Buffer
from vbackup.registry import Registry
from vbackup.testing.transports import FaultyTransport, MemoryTransport

MIB = 1 << 20
TRIALS = [
    "put, get and delete",
    "object lock",
    "sizes",
    "ranges",
    "names",
    "all or nothing",
    "create-only put",
    "seen elsewhere",
    "durable on return",
    "small objects and listing",
    "large objects",
]


class Strange(FaultyTransport):
    """A store, the same for all connections, behind something that misbehaves; ``type: strange``."""

    name: ClassVar[str] = "strange"
    options: ClassVar[type[BaseModel]] = Options
    store: ClassVar[MemoryTransport]

    def __init__(self, options: Options) -> None:
        super().__init__(self.store)


class IgnoresTheCondition(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key, data)


class LosesRaces(Strange):
    """Looks whether the name is taken, and then puts: right for one, wrong for many."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._all_have_looked = threading.Barrier(32)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent and any(self.inner.list(key)):
            raise AlreadyExists(f"{key} is there")
        if "race" in key:
            self._all_have_looked.wait(60)
        self.inner.put(key, data)


class TakesWhatItCannot(Strange):
    can_put_if_absent = False


class HasNoCondition(Strange):
    can_put_if_absent = False

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent:
            raise Unsupported(f"{key}: there is no create-only put")
        self.inner.put(key, data)


class LosesPuts(Strange):
    """One in a thousand."""

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if not key.endswith("small-777"):
            self.inner.put(key, data, if_absent=if_absent)


class LosesAllPuts(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        pass


class Truncates(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key, memoryview(data)[: 8 * MIB], if_absent=if_absent)


class ListsOnePage(Strange):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return itertools.islice(self.inner.list(prefix), 1000)


class ListsTwice(Strange):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in self.inner.list(prefix):
            yield from [info] * (1 + info.key.endswith("small-5"))


class IgnoresRanges(Strange):
    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key)[: length if length is None else max(length, 1)]


class FoldsNames(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key.replace("_", "-"), data, if_absent=if_absent)


class Tears(Strange):
    """Replaces in two steps, with a reader between them."""

    seen = threading.Event()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if key.endswith("replaced"):
            self.inner.put(key, bytes(data)[:100])
            assert self.seen.wait(60)
        self.inner.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.inner.get(key, offset, length)
        if len(data) == 100:
            self.seen.set()
        return data


class KeepsTheDeleted(Strange):
    def delete(self, key: str) -> None:
        if key.endswith("first"):
            return
        self.inner.delete(key)


class DeniesDelete(Strange):
    def delete(self, key: str) -> None:
        raise AccessDenied(f"object {key} may not be deleted")


class IsForOneHost(Strange):
    opened = 0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        type(self).opened += 1
        if self.opened > 1:
            raise Busy("another host has it")


class HidesFromOthers(Strange):
    """Shows to each connection only what was put through it."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mine: set[str] = set()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self._mine.add(key)
        self.inner.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key not in self._mine:
            raise NotFound(f"{key} is not there")
        return self.inner.get(key, offset, length)


class ForgetsLocks(Strange):
    def lock(self, key: str, until: datetime) -> None:
        pass


class Falters(Strange):
    """Fails the first put and delete of some objects, as a store does that is asked too much."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._refused: set[tuple[str, str]] = set()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self._slow_down("put", key)
        self.inner.put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._slow_down("delete", key)
        self.inner.delete(key)

    def _slow_down(self, operation: str, key: str) -> None:
        if ("race" in key or key.endswith("-11")) and (operation, key) not in self._refused:
            self._refused.add((operation, key))
            raise Unavailable(f"{operation} {key}: slow down")


Trial = Callable[..., Outcome]


class Plugin:
    def __init__(self, cls: type[Transport]) -> None:
        self._cls = cls

    @hookimpl
    def vbackup_register_transports(self, register):
        register(self._cls)


@pytest.fixture
def strange(place: Path, vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Runs a trial of a store of that class."""
    load = Registry.load
    (place / "vbackup.yaml").write_text('{"transports": {"odd": {"type": "strange"}}}')

    def trial(cls: type[Strange], *args: str, can_lock: bool = False) -> Outcome:
        def with_strange() -> Registry:
            registry = load()
            registry.register(Plugin(cls), "strange")
            return registry

        monkeypatch.setattr(Registry, "load", with_strange)
        monkeypatch.setattr(Strange, "store", MemoryTransport(can_lock=can_lock), raising=False)
        return vbackup("transport", "test", "odd", "--size", "32", *args)

    return trial


def left() -> list[str]:
    """What is in the strange store."""
    return [info.key for info in Strange.store.list()]


def names(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdicts by trial."""
    found = re.findall(r"^(ok|fails|cannot) +([a-z, -]+): ", outcome.out, re.MULTILINE)
    return {name: verdict for verdict, name in found}
