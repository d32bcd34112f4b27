"""The transport role: a small byte store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel

from vbackup.api.doctor import Finding
from vbackup.api.errors import Corrupt
from vbackup.api.hypervisor import Buffer

_SEGMENT = r"[a-z0-9][a-z0-9_-]{0,127}"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}")


class ObjectInfo(NamedTuple):
    """An object as it is listed: its key and its size in bytes."""

    key: str
    size: int


def checked_key(key: str) -> str:
    """Return ``key``, or raise `Corrupt` if no object may have that name.

    A key is one to eight segments of lower-case letters, digits, ``-`` and ``_``, joined by ``/``: safe as a path on
    any file system and as an object name on any store. Names that come from a store pass through here before use.
    """
    if len(key) > 512 or not _KEY.fullmatch(key):
        raise Corrupt(f"the store gave or was asked for an object name that cannot be ours: {key[:80]!r}")
    return key


class Transport(Protocol):
    """Where objects are kept. All methods may be called from many threads at once.

    Everything clever (retry, limits, caches, encryption) is above it: keep it small. Objects are immutable for the
    framework: a key is put once, read many times, and deleted at most once. Errors name the object.

    Without its server an operation fails within a limit of its own (a minute or so) by an `Unavailable` that is
    transient; the same transport works again when the server does. What cannot succeed by being repeated is not
    transient: wrong credentials are `AccessDenied`, a place that is missing is `Unavailable` all the same.
    """

    name: ClassVar[str]
    """The ``type:`` in YAML."""
    options: ClassVar[type[BaseModel]]
    """The other keys of that entry."""
    has_files: ClassVar[bool]
    """Whether objects are files that programs can open, seek, lock and rename: then `root` is not None."""

    def __init__(self, options: Any) -> None: ...

    @property
    def root(self) -> Path | None:
        """The directory below which each object is the file of its name; None where objects are no files.

        Whether it is there now is another question: see `create`.
        """

    @property
    def can_put_if_absent(self) -> bool:
        """Whether ``put(if_absent=True)`` is enforced by the store even when many race, from different hosts too.

        If False, such a put raises `Unsupported` and stores nothing: it never becomes a put without a condition. If
        True, the framework still tries it before it relies on it, as some stores take the condition and ignore it.
        """

    @property
    def can_lock(self) -> bool:
        """Whether `lock` works: the store itself keeps objects from everybody (S3 Object Lock in compliance mode).

        If False, `lock` raises `Unsupported` and objects stay as free as they were.
        """

    def create(self, *, force: bool = False) -> None:
        """Make the place itself (a directory, a file system on a LUN) if it is not there; for ``vbackup init`` only.

        What is there of a store stays. A place that holds something else (a LUN with a file system that is not ours) is
        refused, unless ``force``, which the user has to say: then that is lost.

        Every other method raises `Unavailable` where the place is missing: a disk that is not mounted must not be
        mistaken for an empty one. Raises: `AccessDenied`, `Unavailable`, `Unsupported`.
        """

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """Store a whole object. Readers see all of it or nothing; on return it survives a power failure, and everybody
        who looks from anywhere gets, and lists, what was stored.

        With ``if_absent`` raise `AlreadyExists` if the key is taken; without it the object is replaced. What fails for
        want of space leaves the old object, and nothing that takes space.

        Raises: `AlreadyExists`, `AccessDenied`, `Locked`, `NoSpace`, `Unavailable`; `Unsupported` with ``if_absent``
        where `can_put_if_absent` is False.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object, or ``length`` bytes of it from ``offset``; less only where the object ends.

        All of it is of one put, also if the object is replaced or deleted meanwhile.

        Raises: `NotFound`, `AccessDenied`, `Unavailable`.
        """

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix`` (whole segments, or empty), in any order.

        A store that cannot be listed completely raises; it never yields less, and nothing twice. What is put or deleted
        meanwhile may be listed or not. A prefix without objects, and a store without anything, yield nothing.
        """

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error. Raises: `AccessDenied`, `Locked`, `Unavailable`."""

    def lock(self, key: str, until: datetime) -> None:
        """Let nobody delete or replace an object before ``until``. A lock is never shortened; doing so is no error.

        Until then `delete` and `put` raise `Locked`, for which nobody tries again.

        Raises: `NotFound`, `AccessDenied`, `Unavailable`; `Unsupported` where `can_lock` is False.
        """

    def size(self, key: str) -> int:
        """Return the size in bytes. Raises: `NotFound`."""

    def check(self) -> Sequence[Finding]:
        """Look at what this transport needs, for ``vbackup doctor``."""

    def close(self) -> None:
        """Let go of connections."""
