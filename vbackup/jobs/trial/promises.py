"""What vbackup relies on, tried on a store that may hold something else beside: small, and below one prefix."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Busy,
    Locked,
    NotFound,
    Transport,
    Unavailable,
    Unsupported,
    VBackupError,
    clock,
)
from vbackup.jobs.trial.answers import Answer, cannot, fails, ok
from vbackup.jobs.trial.ground import Ground

RACERS = 32
_START_SECONDS = 60
_MIB = 1 << 20
_LOCK = timedelta(seconds=15)
_READERS = 4
_VERSIONS = 16
_DISTRUST = "do not keep backups there: they would be lost or damaged"


def basics(ground: Ground) -> Answer:
    """Put, get, list and delete one small object. Where that fails nothing else is tried: it would stay for ever."""
    store, key = ground.store, ground.key("first")
    store.put(key, b"vbackup trial")
    seen = _held(store, key)
    listed = [info.key for info in ground.listed()]
    try:
        store.delete(key)
    except (AccessDenied, Locked) as error:
        hint = "`delete`, `prune` and this trial need credentials that may delete; to back up does not"
        return fails(f"delete is refused, so nothing else is tried: {error.message}", hint)
    if seen != b"vbackup trial":
        return fails(f"put returned, and {_instead(seen)}", _DISTRUST)
    if listed != [key]:
        return fails("put returned, and the object is not listed", _DISTRUST)
    if _held(store, key) is not None or ground.listed():
        return fails("delete returned, and the object is still there", "prune would give no space back")
    return ok("what was put is there at once, what was deleted is gone at once")


def sizes(ground: Ground) -> Answer:
    """Whole objects, from none to many bytes."""
    for size in (0, 1, 4097, 16 * _MIB):
        key, data = ground.key(f"size-{size}"), secrets.token_bytes(size)
        ground.store.put(key, data)
        told = {info.size for info in ground.listed() if info.key == key}
        if (seen := _held(ground.store, key)) != data:
            return fails(f"an object of {size} bytes was put, and {_instead(seen)}", _DISTRUST)
        if {ground.store.size(key)} | told != {size} or not told:
            return fails(f"an object of {size} bytes is said to have {sorted(told)} bytes", _DISTRUST)
    return ok("objects of 0 bytes to 16 MiB come back as they were")


def ranges(ground: Ground) -> Answer:
    """Parts of an object."""
    key, data = ground.key("ranges"), secrets.token_bytes(_MIB)
    ground.store.put(key, data)
    for begin, length in ((0, 1), (0, _MIB), (4095, 2), (_MIB - 1, 1), (_MIB - 1, 100), (_MIB, 1), (700_001, 65_536)):
        if ground.store.get(key, begin, length) != data[begin : begin + length]:
            return fails(f"{length} bytes from {begin} of an object of 1 MiB are other bytes", _DISTRUST)
    return ok("any part of an object can be read")


def names(ground: Ground) -> Answer:
    """Every character, long names, and names that begin alike."""
    keys = [ground.key(name) for name in ("abcdefghijklmnopqrstuvwxyz0123456789_-", "x" * 94, "alike", "alike-too")]
    for key in keys:
        ground.store.put(key, key.encode())
    for key in keys:
        if (seen := _held(ground.store, key)) != key.encode():
            return fails(f"object {key}: {_instead(seen)}", _DISTRUST)
    if [info.key for info in ground.store.list(keys[2])] != keys[2:3]:
        return fails(f"listing {keys[2]} does not give that object, or others beside it", _DISTRUST)
    return ok("every name that vbackup uses is kept as it is")


def all_or_nothing(ground: Ground) -> Answer:
    """Readers of an object that is put, replaced and deleted."""
    key, over = ground.key("replaced"), threading.Event()
    versions = [bytes([number]) * (number * 4096) for number in range(1, _VERSIONS + 1)]

    def read(_: int) -> set[bytes | None]:
        seen = {_held(ground.store, key)}
        while not over.is_set():
            seen.add(_held(ground.store, key))
        return seen

    with ThreadPoolExecutor(_READERS, "trial") as pool:
        readers = [pool.submit(read, number) for number in range(_READERS)]
        try:
            for version in versions:
                ground.store.put(ground.key("replaced"), version)
            ground.store.delete(key)
        finally:
            over.set()
        seen = set[bytes | None]().union(*(reader.result() for reader in readers))
    if seen - {None, *versions}:
        return fails("a reader of an object that was being replaced saw a part, or a mixture, of two", _DISTRUST)
    return ok(f"{_READERS} readers saw whole objects only, while one was replaced {_VERSIONS} times and deleted")


def create_only(ground: Ground) -> Answer:
    """A name is given once, however many ask for it."""
    without = "`vbackup init` notices, and does without: of two that run it at once one is refused"
    if not ground.store.can_put_if_absent:
        return _refuses_create(ground) or cannot("not there", without)
    key = ground.key("created")
    ground.store.put(key, b"first", if_absent=True)
    try:
        ground.store.put(key, b"second", if_absent=True)
    except AlreadyExists:
        pass
    else:
        return fails("a second put of the same name was accepted: the condition is ignored", without)
    if _held(ground.store, key) != b"first":
        return fails("a second put of the same name was refused, and replaced the object", _DISTRUST)
    return _race(ground)


def _refuses_create(ground: Ground) -> Answer | None:
    key = ground.key("created")
    try:
        ground.store.put(key, b"first", if_absent=True)
    except Unsupported:
        return None
    return fails("the transport says that it has no create-only put, and took one", "report this to its author")


def _race(ground: Ground) -> Answer:
    unanswered = 0
    for name in ("race-1", "race-2", "race-3"):
        key, start = ground.key(name), threading.Barrier(RACERS)

        def race(racer: int, key: str = key, start: threading.Barrier = start) -> int | None:
            try:
                start.wait(_START_SECONDS)
            except threading.BrokenBarrierError:
                raise Unavailable(f"this machine did not run {RACERS} threads at once") from None
            try:
                ground.store.put(key, bytes([racer]) * 4096, if_absent=True)
            except AlreadyExists:
                return None
            except VBackupError as error:
                if not error.transient:
                    raise
                return -1
            return racer

        with ThreadPoolExecutor(RACERS, "trial") as pool:
            said = list(pool.map(race, range(RACERS)))
        winners = [racer for racer in said if racer is not None and racer >= 0]
        unanswered += said.count(-1)
        if len(winners) > 1:
            hint = "do not let several hosts write there: `vbackup init` believes this store, and cannot see it"
            return fails(f"{RACERS} at once, {len(winners)} won: not enforced", hint)
        if winners and _held(ground.store, key) != bytes(winners) * 4096:
            return fails(f"{RACERS} at once, and what is there is not of the one that won", _DISTRUST)
    doubt = f", {unanswered} got no answer" if unanswered else ""
    return ok(f"{RACERS} at once, 1 won{doubt}: enforced")


def seen_elsewhere(ground: Ground) -> Answer:
    """Another connection, as another host has."""
    key = ground.key("elsewhere")
    try:
        with ground.another() as another:
            ground.listed(another)
            for data in (b"first", b"the second"):
                ground.store.put(key, data)
                if (seen := _held(another, key)) != data:
                    return fails(f"put returned, and for another connection {_instead(seen)}", _DISTRUST)
                if key not in [info.key for info in ground.listed(another)]:
                    return fails("put returned, and another connection does not list it", _DISTRUST)
            ground.store.delete(key)
            if _held(another, key) is not None:
                return fails("delete returned, and the object is still there for another connection")
    except Busy as error:
        return cannot(f"one host at a time: {error.message}")
    return ok("another connection sees at once what was put, replaced and deleted")


def durable(ground: Ground) -> Answer:
    """Nobody can see from here what a power failure leaves."""
    del ground
    return cannot("taken on trust: what survives a power failure cannot be seen from here")


def locks(ground: Ground) -> Answer:
    """A lock of some seconds."""
    if not ground.store.can_lock:
        return cannot("not there: `lock_days` of a target will not work")
    key = ground.key("locked")
    ground.store.put(key, b"locked")
    ground.lock(key, clock.now() + _LOCK)
    ground.lock(key, clock.now())
    try:
        ground.store.delete(key)
    except Locked:
        pass
    else:
        return fails("a locked object was deleted", "`lock_days` would protect nothing; are the clocks right?")
    if _held(ground.store, key) != b"locked":
        return fails("deleting a locked object was refused, and it is gone all the same", _DISTRUST)
    return ok(
        f"an object that is locked for {_LOCK.total_seconds():.0f} s cannot be deleted, nor the time be shortened"
    )


PROMISES: dict[str, Callable[[Ground], Answer]] = {
    "object lock": locks,
    "sizes": sizes,
    "ranges": ranges,
    "names": names,
    "all or nothing": all_or_nothing,
    "create-only put": create_only,
    "seen elsewhere": seen_elsewhere,
    "durable on return": durable,
}


def _held(transport: Transport, key: str) -> bytes | None:
    """Return what an object holds, or None if it is not there."""
    try:
        return transport.get(key)
    except NotFound:
        return None


def _instead(seen: bytes | None) -> str:
    return "it is not there" if seen is None else f"{len(seen)} bytes that differ are read back"
