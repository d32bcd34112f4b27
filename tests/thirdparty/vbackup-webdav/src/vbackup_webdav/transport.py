"""A collection of a WebDAV server as a transport: an object is the resource of its name.

A put is one PUT on the object's own name. Servers worth using write aside and rename, so readers see all or nothing;
`Trial` finds out those that do not. It is no PUT aside and MOVE: that removes what it replaces first (RFC 4918, section
9.9.3), and a reader would find nothing for a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import Buffer, Corrupt, Finding, NotFound, ObjectInfo, Unavailable, Unsupported, checked_key
from vbackup_webdav.collection import Collection
from vbackup_webdav.options import WebDavOptions
from vbackup_webdav.trial import Trial

_READS = 100
"""How often an object is read that is replaced meanwhile, before we give up."""


class WebDav:
    """See the module and `vbackup.api.Transport`.

    Collections are made and never removed: whoever found one may rely on it. So each is made once only.
    """

    name: ClassVar[str] = "webdav"
    options: ClassVar[type[BaseModel]] = WebDavOptions
    has_files: ClassVar[bool] = False

    def __init__(self, options: WebDavOptions) -> None:
        self._collection = Collection(options)
        self._trial = Trial(options, self._collection)
        self._lock = threading.Lock()
        self._made: set[str] = set()

    @property
    def root(self) -> None:
        """None: objects are no files."""
        return

    @property
    def can_put_if_absent(self) -> bool:
        """Never: servers look at ``If-None-Match`` first and write then, so two that race may both win."""
        return False

    @property
    def can_lock(self) -> bool:
        """Never: the locks of WebDAV are advice among clients, and can be taken off by any of them."""
        return False

    def lock(self, key: str, until: datetime) -> None:
        """There are no locks."""
        raise Unsupported(f"cannot lock {self._named(checked_key(key))}: WebDAV has no locks that hold")

    def create(self, *, force: bool = False) -> None:
        """Make the collection, the last one of `url` only, and refuse a server that shows half of what is put.

        Raises: `Unsupported`.
        """
        if not self._collection.make("", f"make {self._collection.url}"):
            hint = "make the collection around it on the server: only the last one is made here"
            raise Unavailable(f"cannot make {self._collection.url}: nothing is there", hint=hint, transient=False)
        self._trial.need_whole_puts()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`. What durable means is for the server to say: see the manual."""
        view = memoryview(data).cast("B")
        path = f"/{checked_key(key)}"
        if if_absent:
            hint = "WebDAV cannot create without a race"
            raise Unsupported(f"cannot create {self._named(key)}: another may do so at once", hint=hint)
        parent = path.rpartition("/")[0]
        action = f"store {self._named(key)}"
        self._make(parent, action)
        if not self._collection.put(path, view):
            with self._lock:
                self._made.clear()  # somebody has removed what we relied on
            self._need_root()
            self._make(parent, action)
            if not self._collection.put(path, view):
                raise Unsupported(f"cannot store {self._named(key)}: another object is in its way")

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`. Where the object ended is looked at again.

        A server may look how long a file is, and open it after it was replaced: then it gives the beginning of it only.
        """
        if length == 0:
            self.size(key)
            return b""
        path = f"/{checked_key(key)}"
        for _ in range(_READS):
            part = self._collection.get(path, offset, length)
            if part is None:
                raise self._missing(key)
            if not part.is_cut or self._collection.version(path) == part.version:
                return part.data
        raise Unavailable(f"cannot read {self._named(key)}: it is replaced all the time")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`. What cannot be an object is left out."""
        if prefix:
            found = self._collection.look(f"/{checked_key(prefix)}")
            if found is None:
                self._need_root()
                return
            if found.size is not None:
                yield ObjectInfo(prefix, found.size)
                return
        yield from self._walk(prefix)

    def delete(self, key: str) -> None:
        """See `Transport.delete`. It looks first: a server deletes a collection with all that is in it."""
        path = f"/{checked_key(key)}"
        found = self._collection.look(path)
        if found is None:
            self._need_root()
        elif found.size is not None:
            self._collection.remove(path)

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        found = self._collection.look(f"/{checked_key(key)}")
        if found is None or found.size is None:
            raise self._missing(key)
        return found.size

    def check(self) -> Sequence[Finding]:
        """Try what the framework does, on a resource that it does not see."""
        return list(self._trial.findings())

    def close(self) -> None:
        """Let go of connections."""
        self._collection.close()

    def _named(self, key: str) -> str:
        return f"{self._collection.url}/{key}"

    def _make(self, path: str, action: str) -> None:
        """Make a collection and those around it, below the root, where they are not known to be there."""
        with self._lock:
            if not path or path in self._made:
                return
        self._make(path.rpartition("/")[0], action)
        if not self._collection.make(path, action):
            self._need_root()
            raise Unavailable(f"cannot {action}: the collection around it was taken away")
        with self._lock:
            self._made.add(path)

    def _missing(self, key: str) -> NotFound:
        self._need_root()
        return NotFound(f"{self._named(key)} is not there")

    def _need_root(self) -> None:
        """Raise `Unavailable` if the root is not there: a place that is missing must not look like an empty one."""
        found = self._collection.look("/")
        if found is None or found.size is not None:
            hint = "`vbackup init` makes the collection of a new target; else correct `url`"
            raise Unavailable(f"{self._collection.url} is not there", hint=hint, transient=False)

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what is in a collection when all of it is known: deleting while listing hides nothing."""
        members = self._collection.members(f"/{prefix}" if prefix else "")
        if members is None:
            self._need_root()
            return
        below = []
        for member in members:
            name = self._collection.name_of(member)
            if not _is_key(name):
                continue
            if member.size is None:
                below.append(name)
            else:
                yield ObjectInfo(name, member.size)
        for name in below:
            yield from self._walk(name)


def _is_key(name: str) -> bool:
    try:
        checked_key(name)
    except Corrupt:
        return False
    return True
