"""A lease on the disks of a machine, exported or imported: the URLs, kept alive as long as they are needed.

vSphere ends a lease that it hears nothing of for `leaseTimeout` seconds (HttpNfcLeaseProgress), and keeps one that is
neither completed nor aborted until then, with the machine locked. Hence each way out of a `Lease` ends it, once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyVmomi import vim, vmodl

from vbackup.api import NotFound, Unavailable, VBackupError
from vbackup_vsphere import properties
from vbackup_vsphere.faults import translate
from vbackup_vsphere.session import Session

READY_SECONDS = 600.0
"""How long vSphere may take to prepare a lease."""
_LONGEST_SILENCE = 60.0
_WATCHING = 20  # seconds of one call that waits for a change
_TIMEOUT = 300  # vSphere's default, should a lease not tell

_log = logging.getLogger(__name__)
_State = vim.HttpNfcLease.State


@dataclass(frozen=True, slots=True)
class LeaseUrl:
    """Where one file of the lease is read from or written to."""

    key: str
    """Which device it is: ``/vm-57/ParaVirtualSCSIController0:1``."""
    import_key: str
    """When importing, the key that the import's specification gave it."""
    url: str
    """Its host may be ``*``: the session's, see `Session.open`."""
    is_disk: bool
    target: str
    """The file name that vSphere suggests."""
    thumbprint: str | None
    """That of the certificate of the URL's host, if it is another than the session's."""


class Lease:
    """A context manager: the lease is ready within; leaving completes it, or aborts it after an error.

    Progress is reported by a thread from the start to the end. ``what`` begins messages. Methods may be called from
    many threads.

    Raises: what the lease failed with; `Unavailable` when it does not become ready.
    """

    def __init__(self, session: Session, ref: Any, what: str) -> None:
        self._session = session
        self._ref = ref
        self._what = what
        self._lock = threading.Lock()
        self._is_open = True
        self._ended = threading.Event()
        self._gone = threading.Event()  # ended or lost
        self._lost: VBackupError | None = None
        self._percent = 0
        self._thread: threading.Thread | None = None
        self._timeout = float(_TIMEOUT)
        self.urls: Sequence[LeaseUrl] = ()

    def __enter__(self) -> Self:
        try:
            self._await_ready()
            info = self._session.get(self._ref, "info")["info"]
            self.urls = [_url(device) for device in info.deviceUrl]
            self._timeout = float(info.leaseTimeout or _TIMEOUT)
            self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
            self._thread.start()
        except BaseException:
            self.abort()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.complete()
        else:
            self.abort()

    @property
    def lost(self) -> VBackupError | None:
        """Why the lease is no longer ours; None while it is."""
        return self._lost

    def check(self) -> None:
        """Raise `Unavailable` (transient) when the lease was lost."""
        if self._lost is not None:
            raise Unavailable(f"{self._what}: the lease was lost: {self._lost.message}") from self._lost

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the lease is ours."""
        self._gone.wait(seconds)

    def progress(self, percent: int) -> None:
        """Tell how far the transfer is, for the task that people see."""
        self._percent = min(max(percent, 0), 100)

    def manifest(self) -> list[Any]:
        """Return `vim.HttpNfcLease.ManifestEntry` of what was downloaded. Raises what vSphere answers."""
        call = self._ref.HttpNfcLeaseGetManifest
        return list(self._session.call(f"{self._what}: asking for the manifest", call) or ())

    def complete(self) -> None:
        """End the lease: all was transferred. Does nothing if it has ended."""
        if not self._end():
            return
        try:
            self.check()
            self._session.call(f"{self._what}: completing the lease", self._ref.HttpNfcLeaseComplete)
        except BaseException:
            self._abort()
            raise

    def abort(self) -> None:
        """End the lease: nothing of it counts. Does nothing if it has ended, and never fails."""
        if self._end():
            self._abort()

    def _end(self) -> bool:
        with self._lock:
            was_open, self._is_open = self._is_open, False
        self._ended.set()
        self._gone.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        return was_open

    def _abort(self) -> None:
        try:
            self._session.call(f"{self._what}: aborting the lease", self._ref.HttpNfcLeaseAbort)
        except VBackupError as error:  # it is gone, or will be when vSphere has heard nothing for a while
            _log.info("%s", error)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            found = self._session.get(self._ref, "state", "error")
            state = found.get("state")
            if state == _State.ready:
                return
            if state != _State.initializing:
                raise self._failed(found.get("error"), state)
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._what}: the lease did not become ready in {READY_SECONDS:.0f} seconds")
            self._session.call(f"{self._what}: waiting for the lease", self._await_change, repeat=True)

    def _await_change(self) -> None:
        with properties.watching(self._session.content, self._ref, "state") as collector:
            seen = collector.WaitForUpdatesEx("", None)
            if seen is not None and _is_initializing(seen):
                options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=_WATCHING)
                collector.WaitForUpdatesEx(seen.version, options)

    def _failed(self, fault: Any, state: Any) -> VBackupError:
        if fault is None:
            return Unavailable(f"{self._what}: the lease is {state}")
        return translate(self._what, fault, self._session.name_of)

    def _keep(self) -> None:
        """Report progress until the lease ends or is lost."""
        heard = time.monotonic()
        pause = min(self._timeout / 4, _LONGEST_SILENCE)
        while not self._ended.wait(pause):
            try:
                self._report()
            except VBackupError as error:
                self._lost = self._reason(error, time.monotonic() - heard)
                if self._lost is not None:
                    self._gone.set()
                    _log.warning("%s: the lease was lost: %s", self._what, self._lost)
                    return
            else:
                heard = time.monotonic()

    def _report(self) -> None:
        percent = self._percent
        self._session.call(f"{self._what}: reporting progress", lambda: self._ref.HttpNfcLeaseProgress(percent))

    def _reason(self, error: VBackupError, silent: float) -> VBackupError | None:
        """Return why the lease is lost; None while a connection that was cut may yet be made anew."""
        try:
            found = self._session.get(self._ref, "state", "error")
        except NotFound as gone:
            return gone
        except VBackupError as other:
            return other if silent > self._timeout or not other.transient else None
        if found.get("state") != _State.ready:
            return self._failed(found.get("error"), found.get("state"))
        return error if silent > self._timeout or not error.transient else None


def _url(device: Any) -> LeaseUrl:
    return LeaseUrl(
        key=device.key or "",
        import_key=device.importKey or "",
        url=device.url,
        is_disk=bool(device.disk),
        target=device.targetId or "",
        thumbprint=device.sslThumbprint or None,
    )


def _is_initializing(update: Any) -> bool:
    changes = [c.val for s in update.filterSet or () for o in s.objectSet or () for c in o.changeSet or ()]
    return _State.initializing in changes
