"""An NFS export as a transport, by the kernel's client or by one in this process; the rest of it is in both the same.

The client is chosen, and the export mounted, when it is first used. Every error names the export by its URL.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import AccessDenied, Finding, Level, ObjectInfo, Transport, Unsupported, VBackupError
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


class Nfs:
    """See the module."""

    name: ClassVar[str] = "nfs"
    options: ClassVar[type[BaseModel]] = NfsOptions
    has_files: ClassVar[bool] = False  # with libnfs there are none, and which client it will be depends on the host

    def __init__(self, options: NfsOptions) -> None:
        self._options = options
        self._place = options.export.url
        self._lock = threading.Lock()
        self._choice: Choice | None = None
        self._client: KernelClient | FileStore | None = None

    @property
    def root(self) -> Path | None:
        """None: there are files with the kernel's client only, and only while it is mounted."""
        return None

    @property
    def can_put_if_absent(self) -> bool:
        """Always: LINK fails where the name is taken."""
        return True

    @property
    def can_lock(self) -> bool:
        """Never: whoever may write to an export may delete."""
        return False

    def lock(self, key: str, until: datetime) -> None:  # noqa: ARG002
        """There are no locks."""
        raise Unsupported(f"{self._place} cannot keep object {key} from being deleted", hint="use a store with locks")

    def create(self, *, force: bool = False) -> None:  # noqa: ARG002
        """See `Transport.create`. Only the last directory of the path is made."""
        with self._told():
            if self._chosen().client == "kernel":
                kernel.make(self._options)
            else:
                self._store().create()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        with self._told():
            self._store().put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with self._told():
            return self._store().get(key, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        with self._told():
            yield from self._store().list(prefix)

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        with self._told():
            self._store().delete(key)

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with self._told():
            return self._store().size(key)

    def check(self) -> Sequence[Finding]:
        """Say which client is used and why, and try what a put does."""
        what = f"NFS client for {self._place}"
        try:
            with self._told():
                client, reason = self._chosen()
                findings = self._store().check()
        except VBackupError as error:
            return [Finding(what, Level.ERROR, error.message, error.hint or "check the server, and the network")]
        return [Finding(what, Level.OK, f"{_CLIENTS[client]}: {reason}"), *map(self._by_url, findings)]

    def close(self) -> None:
        """Unmount, or let go of connections; whoever comes later mounts or connects again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _chosen(self) -> Choice:
        if self._choice is None:
            self._choice = choose(self._options)
            _log.info("%s is used by %s: %s", self._place, _CLIENTS[self._choice.client], self._choice.reason)
        return self._choice

    def _store(self) -> Transport | FileStore:
        """Return the transport over the export, mounted now if it was not."""
        with self._lock:
            if self._client is None:
                kernels = self._chosen().client == "kernel"
                self._client = KernelClient(self._options) if kernels else userspace.store(self._options)
            return self._client.store if isinstance(self._client, KernelClient) else self._client

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
