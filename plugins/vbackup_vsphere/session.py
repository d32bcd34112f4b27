"""The one session with a vCenter or an ESXi host, shared by all threads; nobody else talks to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from pyVmomi import vim, vmodl

from vbackup.api import NotFound, Unavailable, Unsupported, VBackupError
from vbackup_vsphere import properties, tasks
from vbackup_vsphere.faults import TRANSPORT, translate
from vbackup_vsphere.login import Login, Refused, Unauthorized, has_ended, log_out
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.properties import Row, moid
from vbackup_vsphere.stub import Stub
from vbackup_vsphere.trust import Trust, thumbprint
from vbackup_vsphere.web import Answer, Body, Web, peer_of, refusal

KEEPALIVE = 300.0
"""Seconds between signs of life: an idle session ends after 30 minutes."""

PATIENCE = 60.0
"""Seconds for which a host that went away is waited for while a task of ours runs on it."""

_CLOSING = 5.0  # seconds for which a sign of life under way is waited for

T = TypeVar("T")


class Session:
    """Connects at first use. Thread-safe.

    A session that the host has ended is made anew, once for all threads that notice.
    """

    def __init__(self, options: VsphereOptions, alias: str) -> None:
        self.options = options
        self.alias = alias
        self.host = options.host
        self.port = options.port
        self._trust = Trust(options)
        self._web = Web(self._trust)
        self._login = Login(options, alias, self._trust, self._web)
        self.rest_refused = Refused()
        self._lock = threading.RLock()
        self._stub: Stub | None = None
        self._content: Any = None
        self._generation = 0
        self._attempts = 0
        self._failure: VBackupError | None = None
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()
        self._closed.set()

    @property
    def content(self) -> Any:
        """The `vim.ServiceInstanceContent`. Raises: `Unavailable`, `AccessDenied`."""
        if self._content is None:
            self._renew(self._generation)
        return self._content

    @property
    def is_vcenter(self) -> bool:
        """Whether it is a vCenter and no stand-alone ESXi host."""
        return str(self.content.about.apiType) == "VirtualCenter"

    def object(self, kind: Callable[..., T], moid: str) -> T:
        """Return the managed object of an id, bound to this session."""
        _ = self.content
        return kind(moid, self._stub)

    def call(self, what: str, work: Callable[[], T], *, repeat: bool = False) -> T:
        """Call pyvmomi; ``what`` says what for and begins the message of errors.

        A session that has ended is made anew and ``work`` called once more; with ``repeat`` so it is after a
        connection that was cut, when nobody knows whether the call was carried out.
        """
        for attempt in (1, 2):
            _ = self.content
            generation = self._generation
            try:
                return work()
            except vim.fault.NotAuthenticated as error:
                if attempt == 2:
                    raise translate(what, error, self.name_of) from error
                self._renew(generation)
            except vmodl.MethodFault as error:
                raise translate(what, error, self.name_of) from error
            except TRANSPORT as error:
                if attempt == 2 or not repeat:
                    raise translate(what, error, self.name_of) from error
        raise Unsupported(what)  # the loop has returned or raised; this is for the type checker

    def get(self, ref: Any, *paths: str, whole: bool = False) -> dict[str, Any]:
        """Return leaf properties of one object; those that are unset are absent. Raises: `NotFound`, ...

        So are those that the user may not read, unless it is to be the ``whole``.
        """
        what = f"{self.alias}: reading {moid(ref)}"
        return self.call(what, lambda: properties.read_one(self.content, ref, paths, whole=whole), repeat=True)

    def list(self, kind: type, *paths: str) -> list[Row]:
        """Return all objects of a kind in the inventory, with leaf properties."""
        what = f"{self.alias}: listing {kind.__name__.rpartition('.')[2]}"
        return self.call(what, lambda: properties.read_all(self.content, kind, paths), repeat=True)

    def now(self) -> datetime:
        """Return the time by the host's clock, which it stamps what is made with."""
        service = self.object(vim.ServiceInstance, "ServiceInstance")
        time: datetime | None = self.call(f"{self.alias}: asking for the time", service.CurrentTime, repeat=True)
        return properties.given(time, "the time")  # type: ignore[no-any-return]

    def wait(self, task: Any, what: str) -> Any:
        """Wait for a task, however long it takes, and return its result. Raises its error, as `call` does."""
        deadline: float | None = None
        properties.given(task, f"a task ({what})")
        while True:
            try:
                info = self.get(task, "info.state", "info.error", "info.result")
                if info.get("info.state") not in tasks.ENDED:
                    self._watch(task)
                    deadline = None
                    continue
            except Unavailable:  # the task goes on without us
                deadline = deadline or time.monotonic() + PATIENCE
                if time.monotonic() > deadline:
                    raise
                self._closed.wait(1.0)
                continue
            if "info.error" in info:
                raise translate(what, info["info.error"], self.name_of)
            return info.get("info.result")

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        thumbprint: str | None = None,
    ) -> Iterator[Answer]:
        """Give the answer to an HTTPS request.

        ``url`` is a path, or absolute; the host ``*`` means this session's. ``thumbprint`` is what vCenter says of
        another host's certificate. The session's cookie goes to its own host only.

        Raises: `AccessDenied`, `NotFound`, `NoSpace`, `Unsupported`, `Unavailable` (transient).
        """
        peer, path = peer_of(url, self.host, self.port, thumbprint)
        what = f"{self.alias}: {method} {path.partition('?')[0]}"
        ours = peer[:2] == (self.host, self.port)
        generation, attempts = 0, 2 if ours and (body is None or isinstance(body, bytes)) else 1
        for left in reversed(range(attempts)):
            _ = self.content
            generation = self._generation
            sent = dict(headers or {})
            if ours and self._stub is not None:
                sent["Cookie"] = self._stub.cookie
            connection, response = self._web.send(peer, method, path, sent, body)
            if response.status != 401 or not left or self._is_good(sent.get("Cookie")):  # it is the user who may not
                break
            self._web.give_back(peer, connection, response)
            self._renew(generation)
        try:
            error = refusal(response.status, what, response.reason)
            if error is not None:
                raise Unauthorized(error.message) if response.status == 401 else error
            yield Answer(response, what)
        finally:
            self._web.give_back(peer, connection, response)

    def _is_good(self, cookie: str | None) -> bool:
        """Whether a session goes on; in this order, for another thread may log in meanwhile, and its own goes on."""
        return not has_ended(self._content) and self._stub is not None and self._stub.cookie == cookie

    def vddk_credentials(self) -> tuple[str, bytes, str]:
        """Return the user, the password and the SHA-1 thumbprint of the host's certificate, for VDDK."""
        _ = self.content
        return self.options.user, self.options.password.resolve(), thumbprint(self._login.certificate, "sha1")

    def name_of(self, ref: Any) -> str:
        """Return the name of an inventory object for messages; its id where it may not be read."""
        with suppress(VBackupError, vmodl.MethodFault, *TRANSPORT):
            return str(properties.read_one(self._content, ref, ["name"]).get("name") or moid(ref))
        return moid(ref)

    def close(self) -> None:
        """Log out and close all connections. The next use connects again."""
        with self._lock:
            stub, content, keeper = self._stub, self._content, self._keeper
            self._stub = self._content = None
            self._closed.set()
        if keeper is not None:
            keeper.join(_CLOSING)
        if stub is not None:
            log_out(content.sessionManager)
            stub.drop()
        self._web.close()

    def _watch(self, task: Any) -> None:
        with suppress(NotFound):  # the collector ended with a session that was made anew
            self.call(f"{self.alias}: waiting for a task", lambda: tasks.await_change(self.content, task), repeat=True)

    def _renew(self, generation: int, unless: threading.Event | None = None) -> None:
        """Log in, ``unless`` that is set or another thread has done so since ``generation``.

        Who waited while another thread failed to fails likewise: a host that does not answer is not asked by all.
        """
        seen = self._attempts
        with self._lock:
            if (unless is not None and unless.is_set()) or (
                self._content is not None and self._generation != generation
            ):
                return
            if self._failure is not None and self._attempts != seen:
                raise type(self._failure)(
                    self._failure.message, hint=self._failure.hint, transient=self._failure.transient
                )
            try:
                stub = self._stub or self._login.stub()
                content = self._login.log_in(stub)
            except VBackupError as error:
                self._failure = error
                raise
            finally:
                self._attempts += 1
            self._stub, self._content, self._failure = stub, content, None
            self._generation += 1
            self._keep_alive()

    def _keep_alive(self) -> None:
        if self._closed.is_set():
            self._closed = threading.Event()
            name = f"keepalive-{self.alias}"
            self._keeper = threading.Thread(target=self._beat, args=(self._closed,), name=name, daemon=True)
            self._keeper.start()

    def _beat(self, closed: threading.Event) -> None:
        service = vim.ServiceInstance("ServiceInstance", self._stub)
        while not closed.wait(KEEPALIVE):
            generation = self._generation
            with suppress(VBackupError, vmodl.MethodFault, *TRANSPORT):  # whoever needs the session next is told
                try:
                    service.CurrentTime()
                except vim.fault.NotAuthenticated:
                    self._renew(generation, unless=closed)
