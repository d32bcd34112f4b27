"""Where a trial takes place: objects that are nobody's, and are removed."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from vbackup.api import Interrupted, Locked, ObjectInfo, Transport, VBackupError, clock

T = TypeVar("T")
R = TypeVar("R")

PREFIX = "trial"
_STAMP = "%Y%m%dt%H%M%S"
_OURS = re.compile(rf"{PREFIX}/(\d{{8}}t\d{{6}})-[0-9a-f]{{16}}-[a-z0-9_-]+")
_ABANDONED = timedelta(days=1)
_AT_ONCE = 8
_PATIENCE, _STOPPED = 60.0, 5.0
_AGAIN = 0.5


class Speed(NamedTuple):
    """Something that was measured."""

    name: str
    value: float
    unit: str


class Ground:
    """The objects ``trial/<time>-<random>-<name>`` of one trial. One segment: file systems keep empty directories.

    `store` is the transport without retries, which would hide what it does, `patient` the same one as jobs use it.
    ``another`` opens the place once more, as another host would.
    """

    def __init__(
        self, store: Transport, patient: Transport, another: Callable[[], Transport], stop: threading.Event
    ) -> None:
        self.store = store
        self.patient = patient
        self.speeds: list[Speed] = []
        self._another = another
        self._stop = stop
        self._begin = f"{PREFIX}/{clock.now().strftime(_STAMP)}-{secrets.token_hex(8)}-"
        self._keys: set[str] = set()
        self._locked_until: datetime | None = None
        self._away = ""

    def key(self, name: str) -> str:
        """Return the key of an object that is about to be put; it is removed in the end. Raises: `Interrupted`."""
        if self._stop.is_set():
            raise Interrupted("the trial was stopped")
        key = self._begin + name
        self._keys.add(key)
        return key

    def lock(self, key: str, until: datetime) -> None:
        """Lock an object; removing waits for the end of that."""
        self._locked_until = max(until, self._locked_until or until)
        self.store.lock(key, until)

    def listed(self, transport: Transport | None = None) -> list[ObjectInfo]:
        """Return the objects of this trial that the store lists."""
        return [info for info in (transport or self.store).list(PREFIX) if info.key.startswith(self._begin)]

    @contextmanager
    def another(self) -> Iterator[Transport]:
        """Open the place once more."""
        with closing(self._another()) as transport:
            yield transport

    def each(self, work: Callable[[T], R], items: Iterable[T], at_once: int = _AT_ONCE) -> list[R]:
        """Do the work for all items, in so many threads, and return what came of them, in order."""

        def go(item: T) -> R:
            if self._stop.is_set():
                raise Interrupted("the trial was stopped")
            return work(item)

        with ThreadPoolExecutor(at_once, "trial") as pool:
            return list(pool.map(go, items))

    def remove_abandoned(self) -> None:
        """Remove what trials left that were killed more than a day ago; also the first look at the store."""
        oldest = clock.now() - _ABANDONED
        for info in list(self.store.list(PREFIX)):
            ours = _OURS.fullmatch(info.key)
            if ours is None:
                continue
            with suppress(VBackupError, ValueError):  # what cannot be removed now, a later trial may
                if datetime.strptime(ours[1], _STAMP).replace(tzinfo=UTC) < oldest:
                    self.store.delete(info.key)

    def remove(self) -> list[str]:
        """Remove all that was put; return what is left, with the reasons.

        What fails for now is tried again for a minute, and what is locked until that has ended; when we are stopped,
        for some seconds, and not at all.
        """
        left = {}
        try:
            self._keys.update(info.key for info in self.listed())
        except VBackupError as error:
            left[PREFIX] = error.message
        locked = (self._locked_until - clock.now()).total_seconds() if self._locked_until else 0
        deadline = time.monotonic() + (_STOPPED if self._stop.is_set() else _PATIENCE + max(0, locked))
        with ThreadPoolExecutor(_AT_ONCE, "trial") as pool:
            gone = pool.map(lambda key: (key, self._delete(key, deadline)), sorted(self._keys))
            left |= {key: why for key, why in gone if why}
        return [f"{key}: {why}" for key, why in left.items()]

    def _delete(self, key: str, deadline: float) -> str:
        """Delete an object, and return why it could not be. A store that stays away is not asked for each."""
        hurries = False
        while not self._away:
            try:
                self.store.delete(key)
            except VBackupError as error:
                locked = isinstance(error, Locked) and self._locked_until is not None and not self._stop.is_set()
                if not (locked or error.transient):
                    return error.message
                if time.monotonic() > deadline:
                    self._away = error.message if error.transient else ""
                    return error.message
            else:
                return ""
            if hurries:
                time.sleep(_AGAIN)
            elif self._stop.wait(_AGAIN):
                hurries, deadline = True, min(deadline, time.monotonic() + _STOPPED)
        return self._away
