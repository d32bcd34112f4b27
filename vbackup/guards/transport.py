"""The guard around each transport: the innermost wrapper, so that each attempt is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from vbackup.api import Buffer, Finding, ObjectInfo, Transport
from vbackup.api.wrapper import Wrapper
from vbackup.guards.answers import findings, kind_of
from vbackup.guards.blame import Blame

T = TypeVar("T")


class GuardedTransport(Wrapper):
    """Holds a transport to its promises, as far as they can be seen from one operation.

    It gets no memory that it could write to. Whether bytes are those that were put is told by their hashes and seals,
    elsewhere.
    """

    name: ClassVar[str] = "guard"

    def __init__(self, inner: Transport, blame: Blame) -> None:
        super().__init__(inner)
        self._blame = blame

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act; whatever is raised is one of vbackup's errors."""
        with self._blame.calling(operation, key):
            return action()

    @property
    def root(self) -> Path | None:
        """As the inner transport."""
        with self._blame.calling("root"):
            root = self.inner.root
        if root is not None and not isinstance(root, Path):
            raise self._blame.error(f"root is {kind_of(root)}, not a path or None")
        return root

    @property
    def can_put_if_absent(self) -> bool:
        """As the inner transport."""
        return self._flag("can_put_if_absent")

    @property
    def can_lock(self) -> bool:
        """As the inner transport."""
        return self._flag("can_lock")

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        with self._blame.calling("put", key):
            self.inner.put(key, data if type(data) is bytes else memoryview(data).toreadonly(), if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with self._blame.calling("get", key):
            data = self.inner.get(key, offset, length)
        if type(data) is not bytes:
            raise self._blame.error(f"get {key} gave {kind_of(data)}, not bytes")
        if length is not None and len(data) > length:
            raise self._blame.error(f"get {key} gave {len(data)} bytes where {length} were asked for")
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        with self._blame.calling("list", prefix):
            found = self._listed(prefix)
        yield from found.values()

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with self._blame.calling("size", key):
            size = self.inner.size(key)
        if type(size) is not int or size < 0:
            raise self._blame.error(f"size {key} gave {size!r:.40}, which is no number of bytes")
        return size

    def check(self) -> Sequence[Finding]:
        """See `Transport.check`."""
        with self._blame.calling("check"):
            return findings(self.inner.check(), "check", self._blame)

    def _flag(self, name: str) -> bool:
        with self._blame.calling(name):
            value: object = getattr(self.inner, name)
        if not isinstance(value, bool):
            raise self._blame.error(f"{name} is {kind_of(value)}, not True or False")
        return value

    def _listed(self, prefix: str) -> dict[str, ObjectInfo]:
        found: dict[str, ObjectInfo] = {}
        under = f"{prefix}/" if prefix else ""
        for info in self.inner.list(prefix):
            if type(info) is not ObjectInfo or type(info.key) is not str:
                raise self._blame.error(f"list gave {kind_of(info)}, not an ObjectInfo with a key")
            if type(info.size) is not int or info.size < 0:
                raise self._blame.error(f"list gave {info.key} a size of {info.size!r:.40}")
            if info.key != prefix and not info.key.startswith(under):
                raise self._blame.error(f"list gave {info.key!r:.80} where all below {prefix!r} was asked for")
            if info.key in found:
                raise self._blame.error(f"list gave {info.key} twice")
            found[info.key] = info
        return found
