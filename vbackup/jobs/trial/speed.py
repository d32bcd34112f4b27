"""How fast a store is, with the same operations and sizes as a backup; everything that is read back is compared."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vbackup.api import NotFound
from vbackup.jobs.trial.answers import Answer, fails, ok
from vbackup.jobs.trial.ground import Ground, Speed

T = TypeVar("T")
MIB = 1 << 20
_LARGE = 16 * MIB
_SMALL = 4 << 10
_COUNT = 1_100
"""Small objects: more than stores give in one page of a listing."""
_ALONE = 20
_MANY = 8
_LOST = "do not keep backups there: they would be lost or damaged"
_UNLISTED = "do not keep backups there: `prune` and `check` go by the listing"


class Source:
    """Objects of one size whose bytes differ in every block, for stores that look for blocks that they have already.

    They are parts of one piece of memory, put and compared without a copy: that would be measured, too.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._twice = secrets.token_bytes(size) * 2

    def view(self, number: int) -> memoryview:
        """Return the bytes of an object."""
        cut = self._cut(number)
        return memoryview(self._twice)[cut : cut + self._size]

    def gave(self, number: int, data: bytes) -> bool:
        """Whether these are the bytes of that object."""
        return len(data) == self._size and self._twice.startswith(data, self._cut(number))

    def _cut(self, number: int) -> int:
        return (number * 65_537 + 1) % self._size


def small_objects(ground: Ground) -> Answer:
    """Many small objects: the time of one, how many in a second, and whether the listing has them all."""
    numbers = range(_COUNT)
    source = Source(_SMALL)
    put, get = partial(_put, ground, "small", source), partial(_is_there, ground, "small", source)
    ground.speeds += [
        Speed("put of 4 KiB", _median(put, numbers[:_ALONE]), "ms"),
        Speed("get of 4 KiB", _median(get, numbers[:_ALONE]), "ms"),
    ]
    _timed(ground, f"put of 4 KiB, {_MANY} at once", lambda: ground.each(put, numbers[_ALONE:], _MANY))
    right = _timed(ground, f"get of 4 KiB, {_MANY} at once", lambda: ground.each(get, numbers, _MANY))
    listed = _timed(ground, "list", ground.listed, "names/s")
    if lost := right.count(False):
        return fails(f"{lost} of {_COUNT} objects are not there, or hold other bytes", _LOST)
    seen = [info for info in listed if "-small-" in info.key]
    if missing := _COUNT - len({info.key for info in seen}):
        return fails(f"the listing lacks {missing} of {_COUNT} objects", _UNLISTED)
    if len(seen) != _COUNT or {info.size for info in seen} != {_SMALL}:
        return fails("the listing has objects twice, or with wrong sizes", _UNLISTED)
    delete = partial(_delete, ground, "small")
    _timed(ground, f"delete, {_MANY} at once", lambda: ground.each(delete, numbers, _MANY))
    return ok(f"{_COUNT} objects are there, and listed once each")


def large_objects(ground: Ground, size: int) -> Answer:
    """``size`` MiB in objects like packs, a fourth of it one after the other."""
    count = size * MIB // _LARGE
    alone = max(1, count // 4)
    source = Source(_LARGE)
    put, get = partial(_put, ground, "large", source), partial(_is_there, ground, "large", source)
    wrong = 0
    for at_once, numbers in ((1, range(alone)), (_MANY, range(alone, count))):
        for name, work in (("put", put), ("get", get)):
            what = f"{name} of 16 MiB, {at_once} at once"
            done = _timed(ground, what, partial(ground.each, work, numbers, at_once), "MiB/s", _LARGE / MIB)
            wrong += done.count(False)
    if wrong:
        return fails(f"{wrong} of {count} objects of 16 MiB are not there, or hold other bytes", _LOST)
    return ok(f"{count} objects of 16 MiB come back as they were")


def _put(ground: Ground, kind: str, source: Source, number: int) -> bool:
    ground.patient.put(ground.key(f"{kind}-{number}"), source.view(number))
    return True


def _is_there(ground: Ground, kind: str, source: Source, number: int) -> bool:
    """Whether an object holds what was put."""
    try:
        return source.gave(number, ground.patient.get(ground.key(f"{kind}-{number}")))
    except NotFound:
        return False


def _delete(ground: Ground, kind: str, number: int) -> None:
    ground.patient.delete(ground.key(f"{kind}-{number}"))


def _timed(
    ground: Ground, name: str, action: Callable[[], list[T]], unit: str = "objects/s", weight: float = 1
) -> list[T]:
    """Do it, and note how many of what it returns, each of that weight, came in a second."""
    begin = time.perf_counter()
    done = action()
    ground.speeds.append(Speed(name, len(done) * weight / (time.perf_counter() - begin), unit))
    return done


def _median(work: Callable[[int], object], numbers: range) -> float:
    """Return the median time in milliseconds."""
    times = []
    for number in numbers:
        begin = time.perf_counter()
        work(number)
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)
