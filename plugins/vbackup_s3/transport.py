"""A bucket of a store that speaks S3 as a transport: an object is an object of the same name.

Whoever is above tries again. Objects go over in one request each, which S3 makes atomic, durable and, if asked,
conditional.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    Finding,
    Locked,
    ObjectInfo,
    Unavailable,
    Unsupported,
    VBackupError,
    checked_key,
)
from vbackup.api.hypervisor import Buffer
from vbackup_s3.bucket import WHOLE, Bucket
from vbackup_s3.credentials import Credentials
from vbackup_s3.options import S3Options
from vbackup_s3.service import Service
from vbackup_s3.versions import Versions

_PACKS = "packs/"


class S3:
    """See the module."""

    name: ClassVar[str] = "s3"
    options: ClassVar[type[BaseModel]] = S3Options
    has_files: ClassVar[bool] = False

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._at = f"{options.prefix}/" if options.prefix else ""
        self._credentials = Credentials(options)
        self._service = Service(options, self._credentials)
        self._bucket = Bucket(options, self._credentials, self._service)
        self._versions = Versions(options, self._service, self._bucket.place)
        self._lock = threading.Lock()
        self._swept = False

    @property
    def root(self) -> None:
        """None: objects are no files."""
        return

    @property
    def can_put_if_absent(self) -> bool:
        """As configured: stores do not say, and some ignore the condition, which ``vbackup init`` finds out."""
        return self._options.conditional_put

    @property
    def can_lock(self) -> bool:
        """As configured; ``vbackup doctor`` looks whether the bucket agrees."""
        return self._options.object_lock

    def lock(self, key: str, until: datetime) -> None:
        """See `Transport.lock`."""
        if not self._options.object_lock:
            hint = "set `object_lock: true` if the bucket was made with Object Lock"
            raise Unsupported(f"cannot lock {key}: {self._bucket.place} is not said to have locks", hint=hint)
        self._versions.lock(self._at + checked_key(key), until)

    def create(self, *, force: bool = False) -> None:  # noqa: ARG002
        """Look whether the bucket is there. It is never made: who owns, pays for and may read it is not ours to say."""
        next(self._bucket.list(limit=1), None)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`. With object locks it asks first: a store would put a new version before a locked one."""
        view = memoryview(data).cast("B")
        storage_class = self._options.storage_class if checked_key(key).startswith(_PACKS) else None
        if len(view) > WHOLE and key.startswith(_PACKS):
            self._sweep_once()
        if if_absent:
            self._create(key, view, storage_class)
            return
        if self._options.object_lock:
            self._versions.need_unlocked(self._at + key)
        self._bucket.put(key, view, create=False, storage_class=storage_class)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        if length == 0:
            self.size(key)
            return b""
        data = self._bucket.get(checked_key(key), offset, length)
        if data is None and self.size(key) > offset:
            raise Unavailable(f"{key} in {self._bucket.place} was replaced while it was read")
        return data or b""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`. Whatever cannot be an object is left out."""
        found = self._bucket.below(checked_key(prefix)) if prefix else self._bucket.list()
        yield from (info for info in found if _is_key(info.key))

    def delete(self, key: str) -> None:
        """See `Transport.delete`. With object locks all versions go: a marker alone would free no space."""
        if self._options.object_lock:
            self._versions.delete(self._at + checked_key(key))
        else:
            self._bucket.delete(checked_key(key))

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        checked_key(key)
        try:
            if (size := self._bucket.size(key)) is not None:
                return size
        except VBackupError as error:
            if not error.transient:
                self._bucket.get(key, 0, 1)
            raise
        self._bucket.get(key, 0, 1)  # an answer to HEAD has no room to say what is wrong, this one has
        raise Unavailable(f"{key} in {self._bucket.place} was stored while it was looked for")

    def check(self) -> Sequence[Finding]:
        """Try what the framework does, on an object that it does not see."""
        from vbackup_s3.check import examine

        return examine(self._options, self._bucket, self._versions)

    def close(self) -> None:
        """Let go of connections."""
        self._bucket.close()
        self._service.close()

    def _create(self, key: str, data: memoryview, storage_class: str | None) -> None:
        if not self._options.conditional_put:
            raise Unsupported(f"cannot create {key}: {self._bucket.place} is configured with `conditional_put: false`")
        try:
            if self._options.object_lock:  # some stores ignore the condition in buckets with versions
                self._versions.need_unlocked(self._at + key)
            self._bucket.put(key, data, create=True, storage_class=storage_class)
        except (AlreadyExists, Locked) as error:
            raise AlreadyExists(f"{key} is in {self._bucket.place} already") from error
        except Unsupported as error:
            raise Unsupported(error.message, hint="set `conditional_put: false` for this store") from error

    def _sweep_once(self) -> None:
        with self._lock:
            if self._swept:
                return
            self._swept = True
        with suppress(AccessDenied, Unsupported):  # a credential that may only add, a store that cannot list them
            self._versions.sweep(self._at + _PACKS)


def _is_key(key: str) -> bool:
    try:
        checked_key(key)
    except Corrupt:
        return False
    return True
