"""A machine being made, by whichever way its disks are written."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from vbackup.api import NoSpace, PluginError, Run, SinkDisk, VBackupError
from vbackup_vsphere import spec
from vbackup_vsphere.goal import Goal
from vbackup_vsphere.properties import moid

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


class Making(ABC):
    """Nothing is made before the first disk is written. Leaving the context without `complete` ends what goes on.

    ``begin`` is called before anything is made, ``made`` with the machine's managed object id once there is one.
    """

    def __init__(self, session: Session, goal: Goal, begin: Callable[[], None], made: Callable[[str], None]) -> None:
        self.session = session
        self.goal = goal
        self._begin = begin
        self._made = made
        self._lock = threading.Lock()
        self._is_begun = False
        self._unwritten = set(goal.disks)
        self._room = goal.placement.datastore.free
        self._total = sum(goal.sizes.values())
        self._moved = 0
        self._vm: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave()

    @abstractmethod
    def sink(self, key: str) -> SinkDisk:
        """Return where to write a disk."""

    @abstractmethod
    def _make(self, named: Callable[[Any], None]) -> Any:
        """Make the machine and return it; tell ``named`` of it as early as it is known."""

    @abstractmethod
    def _end(self) -> None:
        """All disks are written."""

    @abstractmethod
    def _told(self, percent: int) -> None:
        """So much was read of what is to be written."""

    @abstractmethod
    def _leave(self) -> None:
        """The context ends."""

    def start(self) -> Any:
        """Return the machine; it is made by who is the first to ask."""
        with self._lock:
            if self._vm is None:
                if self._is_begun:
                    raise VBackupError(f"{self.goal.identity.name} could not be made")  # the first has said why
                self._is_begun = True
                self._begin()
                self._vm = self._make(lambda vm: self._made(moid(vm)))
            return self._vm

    def complete(self) -> Any:
        """All disks are written: return the machine."""
        vm = self.start()
        if self._unwritten:
            unwritten = ", ".join(sorted(self._unwritten))
            raise PluginError(f"{self.goal.identity.name}: disk {unwritten} was not written")
        self._end()
        return vm

    def counted(self, key: str, runs: Iterable[Run]) -> Iterator[Run]:
        """Yield the runs of a disk, and zeros up to the size that it gets in vSphere.

        Raises: `NoSpace` before the datastore is full: that stops all its machines.
        """
        for run in runs:
            self._take(run)
            yield run
        size = self.goal.sizes[key]
        rest = spec.rounded(size) - size
        if rest:
            yield Run(size, rest, None)

    def wrote(self, key: str) -> None:
        """A disk is complete."""
        with self._lock:
            self._unwritten.discard(key)

    def _take(self, run: Run) -> None:
        with self._lock:
            self._moved += run.length
            self._told(self._moved * 100 // self._total)
            self._room -= run.length if run.data is not None else 0
            if self._room < 0:
                where = self.goal.placement.datastore.name
                raise NoSpace(
                    f"the disks of {self.goal.identity.name} hold more than the datastore {where} had free",
                    hint="make room, or choose another with `datastore:`",
                )
