"""Connections to libvirt: opened when needed, opened again when lost, and libvirt's errors turned into ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from vbackup.api import AccessDenied, Busy, GuestError, NoSpace, NotFound, Unavailable, Unsupported, VBackupError

PATIENCE = 60.0
"""Seconds for which a libvirtd that went away in mid-work is waited for."""

OPENING = 30.0
"""Seconds that opening a connection may take."""

_KEEPALIVE = (5, 6)  # every 5 s; the link is dead after 6 of them without an answer
_start = threading.Lock()
_started = False

T = TypeVar("T")


def library() -> Any:
    """Return the libvirt module, its event loop running. Raises: `Unsupported` when it is not installed."""
    global _started  # noqa: PLW0603 - libvirt's event loop is one per process
    try:
        import libvirt
    except ImportError as error:
        hint = "pip install 'vbackup[libvirt]'; it needs libvirt-dev, pkg-config and gcc"
        raise Unsupported("libvirt-python is not installed", hint=hint) from error
    with _start:
        if not _started:
            libvirt.registerErrorHandler(_ignore, None)  # else libvirt prints what is raised anyway
            libvirt.virEventRegisterDefaultImpl()  # keepalive needs it, before the first connection
            threading.Thread(target=_run_events, args=(libvirt,), name="libvirt-events", daemon=True).start()
            _started = True
    return libvirt


def _ignore(_context: object, _error: object) -> None:
    pass


def _run_events(libvirt: Any) -> None:
    while True:
        with suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise libvirt's errors as ours; ``what`` says what was to be done, to what."""
    libvirt = library()
    try:
        yield
    except libvirt.libvirtError as error:
        raise _translate(libvirt, what, error) from error


def _translate(libvirt: Any, what: str, error: Any) -> VBackupError:
    message = f"{what}: {error.get_error_message() or error}"
    code = error.get_error_code()
    known = (meaning for name, meaning in _KINDS.items() if getattr(libvirt, f"VIR_ERR_{name}", None) == code)
    kind, hint = next(known, (VBackupError, ""))
    if "No space left on device" in message:
        return NoSpace(message)
    if "ermission denied" in message and kind in {VBackupError, Unavailable}:
        return AccessDenied(message, hint="run as root, or as a member of the group libvirt")
    if kind is VBackupError and error.get_error_domain() in {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}:
        kind, hint = Unavailable, _UNREACHABLE
    return kind(message, hint=hint)


_UNREACHABLE = "is libvirtd running? `virsh -c URI version` must work"


_AGENT = "is qemu-guest-agent running in the guest?"

_KINDS: dict[str, tuple[type[VBackupError], str]] = {
    "NO_DOMAIN": (NotFound, "`virsh list --all` lists the machines"),
    "NO_STORAGE_POOL": (NotFound, ""),
    "NO_STORAGE_VOL": (NotFound, ""),
    "AUTH_FAILED": (AccessDenied, ""),
    "AUTH_CANCELLED": (AccessDenied, ""),
    "AUTH_UNAVAILABLE": (AccessDenied, ""),
    "ACCESS_DENIED": (AccessDenied, ""),
    "OPERATION_DENIED": (AccessDenied, ""),
    "NO_CONNECT": (Unavailable, _UNREACHABLE),
    "INVALID_CONN": (Unavailable, _UNREACHABLE),
    "SYSTEM_ERROR": (Unavailable, _UNREACHABLE),
    "RPC": (Unavailable, _UNREACHABLE),
    "OPERATION_TIMEOUT": (Busy, "another operation holds the machine; `virsh domjobinfo` shows it"),
    "AGENT_UNRESPONSIVE": (GuestError, _AGENT),
    "AGENT_UNSYNCED": (GuestError, _AGENT),
    "AGENT_COMMAND_TIMEOUT": (GuestError, _AGENT),
    "AGENT_COMMAND_FAILED": (GuestError, ""),
    "NO_SUPPORT": (Unsupported, ""),
    "OPERATION_UNSUPPORTED": (Unsupported, ""),
    "CONFIG_UNSUPPORTED": (Unsupported, ""),
    "ARGUMENT_UNSUPPORTED": (Unsupported, ""),
}
"""libvirt's error codes (virErrorNumber) without VIR_ERR; an older library does not have all of them."""


class Connection:
    """One connection to a libvirtd, shared by threads. libvirt's objects die with it: never keep them, ask again."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._open: Any = None

    def get(self) -> Any:
        """Return a living `virConnect`. Raises: `Unavailable`, `AccessDenied`, `Unsupported`."""
        libvirt = library()
        with self._lock:
            if self._open is None or self._open.isAlive() != 1:
                self._drop()
                with translated(f"connecting to {self.uri}"):
                    self._open = _open(libvirt, self.uri)
                    self._open.setKeepAlive(*_KEEPALIVE)
            return self._open

    def domain(self, uuid: str) -> Any:
        """Return the `virDomain` of a UUID. Raises: `NotFound`, `Unavailable`."""
        connection = self.get()
        with translated(f"looking for the machine {uuid}"):
            return connection.lookupByUUIDString(uuid)

    def patiently(self, action: Callable[[], T]) -> T:
        """Call ``action`` until it is not `Unavailable` any more, or `PATIENCE` is over: libvirtd may be restarting."""
        deadline = time.monotonic() + PATIENCE
        pause = threading.Event()
        while True:
            try:
                return action()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            pause.wait(0.2)

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._open is not None:
            with suppress(library().libvirtError):
                self._open.close()
            self._open = None


def _open(libvirt: Any, uri: str) -> Any:
    """Open a connection. Raises: `Unavailable` when libvirtd takes too long: it hangs, and keepalive begins later."""
    result: Future[Any] = Future()

    def attempt() -> None:
        try:
            connection = libvirt.open(without_questions(uri))
        except libvirt.libvirtError as error:
            result.set_exception(error)
        else:
            result.set_result(connection)

    threading.Thread(target=attempt, name="libvirt-open", daemon=True).start()
    try:
        return result.result(OPENING)
    except TimeoutError as error:
        result.add_done_callback(_close)  # nobody wants it any more
        raise Unavailable(f"{uri} does not answer for {OPENING:.0f} s", hint=_UNREACHABLE) from error


def _close(result: Future[Any]) -> None:
    if result.exception() is None:
        result.result().close()


def without_questions(uri: str) -> str:
    """Keep ssh from asking for a password: nobody may be there to answer."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query))
    if "ssh" in parts.scheme:
        query.setdefault("no_tty", "1")
    return urlunsplit(parts._replace(query=urlencode(query, safe="/")))
