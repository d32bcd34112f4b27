"""An NFS export as a transport, by the kernel's client or by one in this process; the rest of it is in both the same.

The client is chosen, and the export mounted, when it is first used. Every error names the export by its URL.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    AccessDenied,
    Finding,
    Interrupted,
    Level,
    ObjectInfo,
    Transport,
    Unavailable,
    VBackupError,
    WithoutLocks,
)
from vbackup.api.hypervisor import Buffer
from vbackup_files import FileStore
from vbackup_nfs import kernel, userspace
from vbackup_nfs.choice import Choice, choose
from vbackup_nfs.kernel import KernelClient
from vbackup_nfs.options import NfsOptions

_CLIENTS = {"kernel": "the kernel's client", "userspace": "libnfs in this process"}
_DENIED = (
    "the directory must be there, exported to this host for writing, and user {uid} must be allowed to write to it: "
    "unless told otherwise (no_root_squash), servers take root for nobody"
)

_log = logging.getLogger(__name__)


class Nfs(WithoutLocks):
    """See the module."""

    name: ClassVar[str] = "nfs"
    options: ClassVar[type[BaseModel]] = NfsOptions
    has_files: ClassVar[bool] = False  # with libnfs there are none, and which client it will be depends on the host

    def __init__(self, options: NfsOptions) -> None:
        self._options = options
        self._place = options.export.url
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._choice: Choice | None = None
        self._client: KernelClient | FileStore | None = None
        self._failure: VBackupError | None = None
        self._closings = 0

    @property
    def root(self) -> Path | None:
        """None: there are files with the kernel's client only, and only while it is mounted."""
        return None

    @property
    def can_put_if_absent(self) -> bool:
        """Always: LINK fails where the name is taken."""
        return True

    def create(self, *, force: bool = False) -> None:  # noqa: ARG002
        """See `Transport.create`. Only the last directory of the path is made."""
        if self._uses_kernel():
            with self._told():
                kernel.make(self._options)
        else:
            with self._store() as store:
                store.create()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        with self._store() as store:
            store.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with self._store() as store:
            return store.get(key, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        with self._store() as store:
            yield from store.list(prefix)

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        with self._store() as store:
            store.delete(key)

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with self._store() as store:
            return store.size(key)

    def check(self) -> Sequence[Finding]:
        """Say which client is used and why, and try what a put does."""
        what = f"NFS client for {self._place}"
        try:
            with self._store() as store:
                client, reason = self._chosen()
                findings = [self._by_url(finding) for finding in store.check()]
        except VBackupError as error:
            return [Finding(what, Level.ERROR, error.message, error.hint or "check the server, and the network")]
        return [Finding(what, Level.OK, f"{_CLIENTS[client]}: {reason}"), *findings]

    def close(self) -> None:
        """Unmount, or let go of connections; whoever comes later mounts or connects again.

        A mount that is under way is not waited for: whoever makes it undoes it.
        """
        with self._lock:
            client, self._client = self._client, None
            self._closings += 1
        if client is not None:
            client.close()

    def _chosen(self) -> Choice:
        if self._choice is None:
            self._choice = choose(self._options)
            _log.info("%s is used by %s: %s", self._place, _CLIENTS[self._choice.client], self._choice.reason)
        return self._choice

    @contextmanager
    def _store(self) -> Iterator[Transport | FileStore]:
        """Give the transport over the export. What fails because its mount was lost is `Unavailable`, and transient."""
        with self._told():
            client = self._opened()
            if not isinstance(client, KernelClient):
                yield client
                return
            try:
                yield client.store
            except Unavailable as error:
                message = error.message.replace(str(client.point), self._place)
                if client.is_stale(error):
                    self._drop(client)
                if client is self._client:
                    raise
                raise Unavailable(message, hint="it is mounted anew by the next try") from error

    def _opened(self) -> KernelClient | FileStore:
        """Return the client; it is made, and the export mounted, if there is none."""
        failed = self._failure
        if (client := self._client) is not None:
            return client
        with self._opening:
            if (client := self._client) is not None:
                return client
            if (failure := self._failure) is not None and failure is not failed:
                # of the try that we have waited for: many threads must not wait in a row
                raise type(failure)(failure.message, hint=failure.hint, transient=failure.transient) from failure
            closings = self._closings
            try:
                client = KernelClient(self._options) if self._uses_kernel() else userspace.store(self._options)
            except VBackupError as error:
                self._failure = error
                raise
            with self._lock:
                if self._closings == closings:
                    self._client = client
                    return client
        client.close()
        raise Interrupted(f"{self._place} was closed while it was being mounted")

    def _uses_kernel(self) -> bool:
        return self._chosen().client == "kernel"

    def _drop(self, client: KernelClient) -> None:
        with self._lock:
            if self._client is not client:
                return
            self._client = None
        _log.warning("%s is another directory than before, or was unmounted: it will be mounted anew", self._place)
        client.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Name the export by its URL in errors, and say what a server that denies something wants."""
        try:
            yield
        except VBackupError as error:
            error.message = self._url_for_point(error.message)
            error.hint = self._hint if isinstance(error, AccessDenied) else self._url_for_point(error.hint)
            raise

    def _url_for_point(self, text: str) -> str:
        client = self._client
        return text.replace(str(client.point), self._place) if isinstance(client, KernelClient) else text

    def _by_url(self, finding: Finding) -> Finding:
        """Return what was found in the words of the user, who knows no mount point."""
        what, detail, hint = map(self._url_for_point, (finding.what, finding.detail, finding.hint))
        return Finding(what, finding.level, detail, hint)

    @property
    def _hint(self) -> str:
        uid = os.geteuid() if self._options.uid is None else self._options.uid
        return _DENIED.format(uid=uid)
