"""The base of transports around transports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from vbackup.api.doctor import Finding
from vbackup.api.hypervisor import Buffer
from vbackup.api.options import Options
from vbackup.api.transport import ObjectInfo, Transport

T = TypeVar("T")


class Wrapper:
    """Passes everything on to the transport ``inner``; a subclass is only its own difference.

    Each operation of the store goes through `around`: override it to do the same around all, or the method of one
    operation. A listing is complete before anything of it is yielded (names are few and small), so that what a reader
    does between two names is not in the middle of an operation.
    """

    name: ClassVar[str] = "wrapper"
    options: ClassVar[type[BaseModel]] = Options
    has_files: ClassVar[bool] = False

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Return what ``action`` returns: the ``operation`` (the method's name) on ``key`` of the inner transport."""
        del operation, key
        return action()

    @property
    def root(self) -> Path | None:
        """As the inner transport."""
        return self.inner.root

    @property
    def can_put_if_absent(self) -> bool:
        """As the inner transport."""
        return self.inner.can_put_if_absent

    @property
    def can_lock(self) -> bool:
        """As the inner transport."""
        return self.inner.can_lock

    def create(self, *, force: bool = False) -> None:
        """See `Transport.create`."""
        self.around("create", "", lambda: self.inner.create(force=force))

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        self.around("put", key, lambda: self.inner.put(key, data, if_absent=if_absent))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        return self.around("get", key, lambda: self.inner.get(key, offset, length))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        yield from self.around("list", prefix, lambda: list(self.inner.list(prefix)))

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        self.around("delete", key, lambda: self.inner.delete(key))

    def lock(self, key: str, until: datetime) -> None:
        """See `Transport.lock`."""
        self.around("lock", key, lambda: self.inner.lock(key, until))

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        return self.around("size", key, lambda: self.inner.size(key))

    def check(self) -> Sequence[Finding]:
        """Look at the inner transport as it is now; not an operation of the store."""
        return self.inner.check()

    def forget(self, key: str) -> bool:
        """Forget what is kept here of an object, for it was wrong; return whether what was read may be from here."""
        return isinstance(self.inner, Wrapper) and self.inner.forget(key)

    def close(self) -> None:
        """Close the inner transport."""
        self.inner.close()
