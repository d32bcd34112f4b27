"""Transports for tests: one in memory, and one that fails or dies where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from vbackup.api import (
    AlreadyExists,
    Finding,
    Level,
    Locked,
    NotFound,
    ObjectInfo,
    Options,
    Transport,
    Unsupported,
    checked_key,
    clock,
)
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")

Fault = Callable[[int, str, str], Exception | None]
"""Called with the number of the operation (from 1), its name and the key; the exception it returns is raised."""


class MemoryTransport:
    """Keeps objects in a dictionary. Everything but durable."""

    name: ClassVar[str] = "memory"
    options: ClassVar[type[BaseModel]] = Options
    has_files: ClassVar[bool] = False

    def __init__(self, options: Options | None = None, *, can_lock: bool = False) -> None:
        del options
        self._objects: dict[str, bytes] = {}
        self._can_lock = can_lock
        self.locks: dict[str, datetime] = {}
        """Until when objects are locked."""
        self._lock = threading.Lock()

    @property
    def root(self) -> Path | None:
        """None: there are no files."""
        return None

    @property
    def can_put_if_absent(self) -> bool:
        """Always: a lock sees to it."""
        return True

    @property
    def can_lock(self) -> bool:
        """As the test said."""
        return self._can_lock

    def create(self, *, force: bool = False) -> None:
        """Do nothing; the place is there."""

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        copy = bytes(data)
        with self._lock:
            if if_absent and key in self._objects:
                raise AlreadyExists(f"object {key} is already in memory")
            self._check_lock(key)
            self._objects[checked_key(key)] = copy

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        data = self._object(key)
        return data[offset:] if length is None else data[offset : offset + length]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`; what is put or deleted meanwhile is not seen."""
        under = f"{checked_key(prefix)}/" if prefix else ""
        with self._lock:
            objects = list(self._objects.items())
        return (ObjectInfo(key, len(data)) for key, data in objects if key == prefix or key.startswith(under))

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        with self._lock:
            self._check_lock(key)
            self._objects.pop(checked_key(key), None)

    def lock(self, key: str, until: datetime) -> None:
        """See `Transport.lock`."""
        if not self._can_lock:
            raise Unsupported(f"object {key} cannot be locked: this memory has no locks")
        self._object(key)
        with self._lock:
            self.locks[key] = max(until, self.locks.get(key, until))

    def _check_lock(self, key: str) -> None:
        until = self.locks.get(key)
        if until is not None and until > clock.now():
            raise Locked(f"object {key} is locked until {until.isoformat()}")

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        return len(self._object(key))

    def check(self) -> Sequence[Finding]:
        """Nothing is needed."""
        return [Finding("memory", Level.OK, "objects are gone when the process ends")]

    def close(self) -> None:
        """Keep everything; a test may look at it."""

    def _object(self, key: str) -> bytes:
        with self._lock:
            data = self._objects.get(checked_key(key))
        if data is None:
            raise NotFound(f"object {key} is not in memory")
        return data


class FaultyTransport(Wrapper):
    """Passes everything on, and fails before or after an operation took effect.

    ``fail`` is called before, ``fail_after`` after each of create, put, get, list, delete, lock and size. They may also
    do something else: kill the process, set an event, wait. A listing begins when its first object is asked for, and
    ends after its last: an error of ``fail_after`` meets a reader that has seen them all.
    """

    name: ClassVar[str] = "faulty"

    def __init__(self, inner: Transport, fail: Fault | None = None, fail_after: Fault | None = None) -> None:
        super().__init__(inner)
        self.operations = 0
        """How many operations were begun."""
        self._fail = fail
        self._fail_after = fail_after
        self._lock = threading.Lock()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        with self._operation("list", prefix):
            yield from self.inner.list(prefix)

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Fail, act, fail."""
        with self._operation(operation, key):
            return action()

    @contextmanager
    def _operation(self, operation: str, key: str) -> Iterator[None]:
        with self._lock:
            self.operations += 1
            number = self.operations
        self._raise(self._fail, number, operation, key)
        yield
        self._raise(self._fail_after, number, operation, key)

    @staticmethod
    def _raise(fault: Fault | None, number: int, operation: str, key: str) -> None:
        error = fault(number, operation, key) if fault else None
        if error is not None:
            raise error
