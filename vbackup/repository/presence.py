"""Sessions seen from outside: each says that it lives, and one that does not any more can be ended.

See PRUNE.md for what rests on it. ``sessions/SID/N`` is put at the start (N = 0), again with the condemnations that
the session has seen, and then each beat; but for the first, an old one is removed after its successor is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pydantic import AwareDatetime, Field

from vbackup.api import AccessDenied, Corrupt, Interrupted, Locked, NotFound, Transport, VBackupError, clock
from vbackup.repository.documents import Document, get_document, put_document
from vbackup.repository.layout import ENDED, SESSIONS
from vbackup.repository.sealing import Keys

log = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
_DOOR = "0"
_AT_ONCE = 8
_BEAT = re.compile(r"sessions/([0-9a-f]{32})/([0-9]{8})")
_ENDED = re.compile(r"ended/([0-9a-f]{32})/(0|[0-9a-f]{32})")


class Beat(Document):
    """A sign of life of a session."""

    host: str = Field(max_length=256)
    process: int
    time: AwareDatetime
    """By the session's own clock."""
    seen: tuple[str, ...] | None = None
    """Condemnations whose packs it does not build on; None: it may build on anything."""
    is_prune: bool = False
    is_last: bool = False
    """The session has ended, and may not delete its signs of life."""


class Honoured(Document):
    """The points of an ended session that count."""

    points: tuple[str, ...]


class Presence:
    """A session's own signs of life. A context manager around the beats."""

    def __init__(self, transport: Transport, keys: Keys, session: bytes, *, is_prune: bool = False) -> None:
        self._transport = transport
        self._keys = keys
        self._id = session.hex()
        self._is_prune = is_prune
        self._count = 0
        self._left: set[str] = set()
        """Keys of signs of life that may be in the store, and that nobody has tried to remove: three at the most, but
        for those that a store that was away did not remove."""
        self._seen: tuple[str, ...] | None = None
        self._over = threading.Event()
        self._lingers = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._go_on, name="beat", daemon=True)

    def announce(self) -> None:
        """Put the first sign of life: from here on nothing that is listed later is deleted without asking."""
        self._beat()

    def declare(self, seen: Collection[str]) -> None:
        """Say which condemnations were seen at the start, and go on with the beats."""
        with self._lock:
            self._seen = tuple(sorted(seen))
        self._beat()
        if not self._thread.is_alive():
            self._thread.start()

    def check(self) -> None:
        """Raise `Interrupted` when the session was ended from outside: nothing of it counts any more."""
        try:
            self._transport.get(f"{ENDED}/{self._id}/{_DOOR}", 0, 1)
        except NotFound:
            return
        raise Interrupted(
            "a prune took this run for dead, since it showed no sign of life",
            hint="run it again: what it stored is found and used",
        )

    def linger(self) -> None:
        """Leave the signs of life at the end: a point whose put failed may arrive yet.

        A prune finds the session silent, ends it, and so says whether that point counts.
        """
        self._lingers = True

    def end(self) -> None:
        """Stop the beats and take back all signs of life. What cannot be removed is ended by a later prune."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._lingers:
            return
        try:
            try:
                _remove(self._transport, self._left)
            except (AccessDenied, Locked):  # a credential that may only add
                self._beat()
        except VBackupError as error:
            log.info("the signs of life of this run stay until the next prune: %s", error)

    def _go_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._beat()
            except VBackupError as error:
                log.warning("this run cannot show that it is alive: %s", error)

    def _beat(self) -> None:
        with self._lock:
            beat = Beat(
                host=platform.node()[:256], process=os.getpid(), time=clock.now(), seen=self._seen,
                is_prune=self._is_prune, is_last=self._over.is_set(),
            )  # fmt: skip
            key = _beat_key(self._id, self._count)
            self._left.add(key)  # also when it fails: it may be there all the same
            put_document(self._transport, self._keys, key, beat)
            self._count += 1
            if self._count > 2:  # the first one stays: a listing that goes on meanwhile may miss both, old and new
                old = _beat_key(self._id, self._count - 2)
                with contextlib.suppress(AccessDenied, Locked):
                    self._transport.delete(old)
                self._left.discard(old)


def _beat_key(session: str, count: int) -> str:
    return f"{SESSIONS}/{session}/{count:08d}"


def list_sessions(transport: Transport) -> dict[str, int]:
    """Return the sessions that have not ended, by id (hex), with the number of their latest beat."""
    latest: dict[str, int] = {}
    for info in transport.list(SESSIONS):
        if match := _BEAT.fullmatch(info.key):
            latest[match[1]] = max(int(match[2]), latest.get(match[1], 0))
    return latest


def latest_beats(transport: Transport, keys: Keys) -> dict[str, tuple[int, Beat]]:
    """Return the latest beats of all sessions that have not ended. Raises `Corrupt` for one that cannot be read."""
    found: dict[str, tuple[int, Beat]] = {}
    for session, count in list_sessions(transport).items():
        beat = _latest(transport, keys, session, count)
        if beat is not None and not beat[1].is_last:
            found[session] = beat
    return found


def _latest(transport: Transport, keys: Keys, session: str, count: int) -> tuple[int, Beat] | None:
    """The beat that was listed last may have been followed by others, or the session have ended, meanwhile."""
    while True:
        try:
            return count, get_document(transport, keys, _beat_key(session, count), Beat)
        except NotFound:
            again = list_sessions(transport).get(session)
            if again is None:
                return None
            if again == count:
                raise
            count = again


def end_session(transport: Transport, keys: Keys, session: str, list_points: Callable[[], Mapping[str, str]]) -> None:
    """End a session from outside: points that it puts from now on do not count. Several may do so at once.

    ``list_points`` lists the points that are in the store, with their sessions.
    """
    transport.put(f"{ENDED}/{session}/{_DOOR}", b"ended")
    honoured = tuple(point for point, owner in list_points().items() if owner == session)
    put_document(transport, keys, f"{ENDED}/{session}/{os.urandom(16).hex()}", Honoured(points=honoured))
    remove_beats(transport, session)


def remove_beats(transport: Transport, session: str) -> None:
    """Remove all signs of life of a session that has ended."""
    _remove(transport, [info.key for info in transport.list(f"{SESSIONS}/{session}")])


def _remove(transport: Transport, keys: Collection[str]) -> None:
    """In no order: a session is there until all of them are gone, and who lists it meanwhile looks again."""
    with ThreadPoolExecutor(_AT_ONCE, "ends") as pool:
        for _ in pool.map(transport.delete, keys):
            pass


def list_ended(transport: Transport) -> dict[str, list[str]]:
    """Return the object keys of what was said of ended sessions, by session; none while one is being ended."""
    ended: dict[str, list[str]] = {}
    for info in transport.list(ENDED):
        if match := _ENDED.fullmatch(info.key):
            said = ended.setdefault(match[1], [])
            if match[2] != _DOOR:
                said.append(info.key)
    return ended


def list_verdicts(transport: Transport) -> dict[str, list[str]]:
    """Return the object keys of what was said of sessions that have been ended, by session."""
    return {session: said for session, said in list_ended(transport).items() if said}


class Verdict(NamedTuple):
    """What the ends of sessions mean for points, by their ids."""

    late: dict[str, str]
    """Put after their session was ended: they do not count, as the record of that key says."""
    doubtful: dict[str, str]
    """Whether they count cannot be told, and why."""
    open: set[str]
    """Their session is being ended: they count for now."""


def judge(transport: Transport, keys: Keys, sessions: Mapping[str, str], known: dict[str, Honoured]) -> Verdict:
    """Say which points do not count; ``sessions`` has point ids with their sessions'.

    List points before, and call this after: PRUNE.md says why. ``known`` keeps what was read for the next call.
    """
    ended = list_ended(transport)
    verdict = Verdict({}, {}, {point for point, session in sessions.items() if ended.get(session) == []})
    for point, session in sessions.items():
        for key in ended.get(session, ()):
            try:
                if key not in known:
                    known[key] = get_document(transport, keys, key, Honoured)
            except (Corrupt, NotFound) as error:  # a verdict stays for ever: one that is listed must be there
                verdict.doubtful[point] = f"whether it counts cannot be told: {error.message}"
                continue
            if point not in known[key].points:
                verdict.late[point] = key
    for point in verdict.late.keys() & verdict.doubtful.keys():
        del verdict.doubtful[point]
    return verdict


def blocking(beats: Iterable[tuple[int, Beat]], condemnation: str) -> bool:
    """Whether any session may still build on packs of a condemnation."""
    return any(not beat.is_prune and (beat.seen is None or condemnation not in beat.seen) for _, beat in beats)
