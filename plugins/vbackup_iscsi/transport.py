"""A LUN as a transport: attached for as long as it is used, with a file system on it, whose files are the objects."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    ConfigError,
    Finding,
    ObjectInfo,
    SecretRef,
    Unavailable,
    VBackupError,
    WithoutLocks,
    checked_key,
)
from vbackup.api.hypervisor import Buffer
from vbackup_iscsi.attachment import Attachment
from vbackup_iscsi.check import examine
from vbackup_iscsi.keeper import STORE
from vbackup_iscsi.options import RUNTIME, IscsiOptions, Timing
from vbackup_iscsi.order import Order
from vbackup_local.transport import Local, LocalOptions


class Iscsi(WithoutLocks):
    """See the module. The LUN is attached by the first operation, and after it was lost by the next one."""

    name: ClassVar[str] = "iscsi"
    options: ClassVar[type[BaseModel]] = IscsiOptions
    has_files: ClassVar[bool] = True

    def __init__(self, options: IscsiOptions, *, runtime: Path = RUNTIME, timing: Timing | None = None) -> None:
        """``runtime`` is where all processes of a host find each other."""
        self._options = options
        self._directory = runtime / options.digest
        self._timing = timing or Timing()
        self._lock = threading.Lock()
        self._current: tuple[Attachment, Local] | None = None
        self._failure: VBackupError | None = None
        self._store_id = ""

    @property
    def root(self) -> Path:
        """Where the files are while the LUN is attached."""
        return self._directory / STORE

    @property
    def can_put_if_absent(self) -> bool:
        """Always: there is one host at a time, and XFS has hard links."""
        return True

    def create(self, *, force: bool = False) -> None:
        """See `Transport.create`: make a file system on a LUN that is blank.

        With ``force`` also on one that holds something else; a store of ours is never made anew.
        Raises: `Unsupported` for a LUN that is too small or holds something else.
        """
        self._attached(format=True, force=force)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        with self._store(f"store {checked_key(key)}") as store:
            store.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with self._store(f"read {checked_key(key)}") as store:
            return store.get(key, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`."""
        with self._store(f"list {checked_key(prefix) if prefix else 'all objects'}") as store:
            yield from store.list(prefix)

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        with self._store(f"delete {checked_key(key)}") as store:
            store.delete(key)

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with self._store(f"look at {checked_key(key)}") as store:
            return store.size(key)

    def check(self) -> Sequence[Finding]:
        """Look at the programs, attach the LUN, and look at its file system."""
        return examine(self._options, self._check)

    def close(self) -> None:
        """Detach the LUN, if no other process of this host uses it. A later operation attaches it again."""
        with self._lock:
            self._leave()

    def _check(self) -> Sequence[Finding]:
        with self._store("look at it") as store:
            return store.check()

    @contextmanager
    def _store(self, action: str) -> Iterator[Local]:
        """Give the directory of the LUN. What fails because the LUN was lost is `Unavailable`, and transient."""
        try:
            attachment, store = self._attached()
        except VBackupError as error:
            message = f"cannot {action}: {error.message}"
            raise type(error)(message, hint=error.hint, transient=error.transient) from error
        try:
            yield store
        except VBackupError as error:
            if attachment.is_alive():
                raise
            raise self._lost(error.message) from error
        if not attachment.is_alive():  # what was said to be durable may not be
            raise self._lost(f"cannot {action}")

    def _lost(self, message: str) -> Unavailable:
        return Unavailable(f"{self._options.place} was lost: {message}", hint="is the target up and reachable?")

    def _attached(self, **how: bool) -> tuple[Attachment, Local]:
        """Return the attachment; make it if there is none, or if it is dead."""
        failed = self._failure
        with self._lock:
            if self._current is not None and self._current[0].is_alive():
                return self._current
            if self._failure is not None and self._failure is not failed:
                raise self._failure  # of the try that we have waited for: many threads must not wait in a row
            self._leave()
            try:
                attachment = Attachment(self._directory, self._order(**how))
                self._need_same(attachment)
            except VBackupError as error:
                self._failure = error
                raise
            self._current = attachment, Local(LocalOptions(path=attachment.root))
            return self._current

    def _need_same(self, attachment: Attachment) -> None:
        """What was stored before must not be parted from what is stored from now on."""
        self._store_id = self._store_id or attachment.store
        if attachment.store != self._store_id:
            attachment.close()
            raise Unavailable(
                f"{self._options.place} holds another store than before",
                hint="is this LUN still behind this target, portal and number?",
                transient=False,
            )

    def _leave(self) -> None:
        if self._current is not None:
            self._current[0].close()
            self._current = None

    def _order(self, **how: bool) -> Order:
        options = self._options
        return Order(
            portal=options.portal,
            target=options.target,
            lun=options.lun,
            initiator=options.initiator,
            client=options.client,
            place=options.place,
            user=options.chap.user if options.chap else "",
            password=_password(options.chap.password) if options.chap else "",
            timing=self._timing,
            **how,
        )


def _password(reference: SecretRef) -> str:
    try:
        return reference.resolve().decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"the CHAP secret from {reference} has characters that are not ASCII") from None
