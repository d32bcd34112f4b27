"""The small sealed objects of a repository, checked and set right.

None of them holds data, and what each says can be said again, or be done without: how is at each repair. Whoever
reads a damaged one refuses to go on, so that one rotten record can stop everybody.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from vbackup.api import AccessDenied, Corrupt, Locked, NotFound, Transport
from vbackup.repository.condemned import Condemnation
from vbackup.repository.documents import Document, get_document, put_document
from vbackup.repository.keys import read_slots
from vbackup.repository.layout import CONDEMNED, DELETIONS, ENDED, PROTECTED, REMOVED, SESSIONS
from vbackup.repository.presence import Beat, Honoured, end_session, latest_beats, list_sessions, list_verdicts
from vbackup.repository.removals import Removal
from vbackup.repository.sealing import Keys

_AT_ONCE = 8
_DOOR = re.compile(rf"{ENDED}/[0-9a-f]{{32}}/0")


class Protection(Document):
    """Why a point is kept whatever the rules say."""

    reason: str = Field(max_length=1024)


class Deletion(Document):
    """Points that were deleted on purpose."""

    points: tuple[str, ...]


def count_and_check(transport: Transport, keys: Keys) -> tuple[int, list[str]]:
    """Read all records; return how many there are, and the object keys of those that are damaged."""
    listed = [info.key for prefix in _REPAIRS for info in transport.list(prefix) if not _DOOR.fullmatch(info.key)]
    with ThreadPoolExecutor(_AT_ONCE, "records") as pool:
        verdicts = list(pool.map(lambda key: is_damaged(transport, keys, key), listed))
    return len(listed), [key for key, damaged in zip(listed, verdicts, strict=True) if damaged]


def is_damaged(transport: Transport, keys: Keys, key: str) -> bool:
    """Whether a record is there and cannot be opened; one that fails is read twice."""
    for _ in range(2):
        try:
            get_document(transport, keys, key, _TYPES[key.partition("/")[0]])
        except NotFound:
            return False
        except Corrupt:
            continue
        return False
    return True


def wrong_slots(transport: Transport, keys: Keys) -> tuple[int, list[str]]:
    """Return how many key slots there are, and what is wrong with some, as sentences."""
    found = dict(read_slots(transport))
    broken = {key for key, slot in found.items() if slot is None}
    if broken:
        again = dict(read_slots(transport))
        broken = {key for key in broken if key in again and again[key] is None}
    made_up = [key for key, slot in found.items() if slot is not None and slot.is_genuine(keys) is False]
    wrong = [f"key slot {key} cannot be read: restore it from a copy, or remove it" for key in sorted(broken)]
    return len(found), wrong + [f"key slot {key} was not made by who may: remove it from the store" for key in made_up]


class Records:
    """Repairs. ``owners`` returns the points that are in the store, with the sessions that wrote them."""

    def __init__(self, transport: Transport, keys: Keys, owners: Callable[[], Mapping[str, str]]) -> None:
        self._transport = transport
        self._keys = keys
        self._owners = owners

    def repair(self, damaged: list[str]) -> Iterator[str]:
        """Set damaged records right, as far as that can be; yield what was done."""
        for prefix, repair in _REPAIRS.items():
            for key in damaged:
                if key.startswith(f"{prefix}/") and is_damaged(self._transport, self._keys, key):
                    done = None
                    with contextlib.suppress(AccessDenied, Locked):  # a credential that may only add
                        done = repair(self, key)
                    if done:
                        yield f"object {key} was damaged: {done}"

    def _session(self, key: str) -> str:
        """Nobody knows what the session builds on: its points count if they are there now."""
        session = key.split("/")[1]
        if list_sessions(self._transport).get(session) == int(key.rpartition("/")[2]):
            end_session(self._transport, self._keys, session, self._owners)
            return "its session was ended"
        self._transport.delete(key)
        return "there is a later one"

    def _ended(self, key: str) -> str:
        """Those points count that are there and that all other verdicts name."""
        session = key.split("/")[1]
        points = {point for point, owner in self._owners().items() if owner == session}
        for other in list_verdicts(self._transport).get(session, []):
            if not is_damaged(self._transport, self._keys, other):
                points &= set(get_document(self._transport, self._keys, other, Honoured).points)
        fresh = f"{ENDED}/{session}/{os.urandom(16).hex()}"
        put_document(self._transport, self._keys, fresh, Honoured(points=tuple(sorted(points))))
        self._transport.delete(key)
        return f"the points of that session that are there now count ({len(points)})"

    def _condemned(self, key: str) -> str | None:
        """What it condemns is in the memory of prunes that run, at the most; when none runs it may be forgotten."""
        if any(beat.is_prune for _, beat in latest_beats(self._transport, self._keys).values()):
            return None
        self._transport.delete(key)
        return "it was removed; what it condemned stays until a prune condemns it again"

    def _protected(self, key: str) -> str:
        put_document(self._transport, self._keys, key, Protection(reason="the reason was damaged"))
        return "the point stays protected, its reason is lost"

    def _deletion(self, key: str) -> str:
        self._transport.delete(key)
        return "it was removed; hosts that knew the points that it named report them as gone"

    def _removed(self, _: str) -> None:
        """It stays, and counts all the same when keys are rotated: without it, the slot could come back."""


_TYPES: Mapping[str, type[Document]] = {
    SESSIONS: Beat,
    ENDED: Honoured,
    CONDEMNED: Condemnation,
    PROTECTED: Protection,
    DELETIONS: Deletion,
    REMOVED: Removal,
}


_REPAIRS: Mapping[str, Callable[[Records, str], str | None]] = {
    SESSIONS: Records._session,  # noqa: SLF001 - before what asks for sessions
    ENDED: Records._ended,  # noqa: SLF001
    CONDEMNED: Records._condemned,  # noqa: SLF001
    PROTECTED: Records._protected,  # noqa: SLF001
    DELETIONS: Records._deletion,  # noqa: SLF001
    REMOVED: Records._removed,  # noqa: SLF001
}
