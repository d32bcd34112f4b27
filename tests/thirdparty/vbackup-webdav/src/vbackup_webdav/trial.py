"""Whether a server does what we rely on: tried on resources whose names no object can have."""

from __future__ import annotations

import http.client
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from enum import Enum
from urllib.parse import urlsplit

from vbackup.api import Finding, Level, Unsupported, VBackupError
from vbackup_webdav.client import authorization, trust
from vbackup_webdav.collection import Collection
from vbackup_webdav.options import WebDavOptions

_SIZE = 1 << 20
_ASIDE = "use a server that writes aside and renames, as Apache httpd does"


class Puts(Enum):
    """What readers see of a PUT that is under way."""

    WHOLE = "whole"
    HALF = "half"
    UNKNOWN = "unknown"


class Trial:
    """Tries a server out."""

    def __init__(self, options: WebDavOptions, collection: Collection) -> None:
        self._options = options
        self._collection = collection

    def need_whole_puts(self) -> None:
        """Refuse a server that shows objects before they are whole. Raises: `Unsupported`."""
        if self._puts() is Puts.HALF:
            text = f"{self._options.url} cannot keep objects: the server shows half of what is being stored"
            raise Unsupported(text, hint=_ASIDE)

    def findings(self) -> Iterator[Finding]:
        """Yield what is found, up to the first error."""
        place = self._options.url
        if self._options.user is not None and place.startswith("http:"):
            detail = "the password goes over the network as it is"
            yield Finding(f"login at {place}", Level.WARNING, detail, "use https:// in `url`")
        if self._options.password is not None:
            yield from self._options.password.findings()
        try:
            classes = self._collection.classes()
            if "1" not in [each.strip() for each in classes.split(",")]:
                hint = "switch WebDAV on there, or correct `url`"
                yield Finding(place, Level.ERROR, "the server does not say that it speaks WebDAV", hint)
                return
            stored = self._there_and_back()
            yield stored
            if stored.level is Level.OK:
                yield self._whole()
        except VBackupError as error:
            hint = error.hint or "check the server, and its log"
            yield Finding(place, Level.ERROR, error.message, hint)

    def _there_and_back(self) -> Finding:
        """Store, read a part of, and remove."""
        path, data = self._name(), secrets.token_bytes(64)
        what = self._options.url
        try:
            if not self._collection.put(path, memoryview(data)):
                return Finding(what, Level.ERROR, "it is not there", "run `vbackup init`, or correct `url`")
            part = self._collection.get(path, 16, 8)
        finally:
            with suppress(VBackupError):  # what is left is no object; the first error is the one to tell
                self._collection.remove(path)
        if part is None or part.data != data[16:24]:
            return Finding(what, Level.ERROR, "what was stored is not what is read", "do not keep backups there")
        if self._collection.look(path) is not None:
            return Finding(what, Level.ERROR, "what was deleted is still there", "is there a cache on the way?")
        return Finding(what, Level.OK, "objects can be stored, read and deleted")

    def _whole(self) -> Finding:
        what = f"half-stored objects at {self._options.url}"
        puts = self._puts()
        if puts is Puts.HALF:
            return Finding(what, Level.ERROR, "are shown", _ASIDE)
        if puts is Puts.UNKNOWN:
            detail = "may be shown: the server does not say when it begins to read"
            return Finding(what, Level.WARNING, detail, "look up whether it writes aside and renames")
        return Finding(what, Level.OK, "are not shown")

    def _puts(self) -> Puts:
        """Begin a PUT, look what is there when the server reads it (RFC 9110, section 10.1.1), and break it off."""
        path = self._name()
        try:
            with closing(self._connection()) as line:
                line.putrequest("PUT", urlsplit(self._options.url).path + path)
                for name, value in authorization(self._options).items():
                    line.putheader(name, value)
                line.putheader("Content-Length", str(_SIZE))
                line.putheader("Expect", "100-continue")
                line.endheaders()
                if not _goes_on(line.sock):
                    return Puts.UNKNOWN
                line.send(bytes(_SIZE // 2))
                return Puts.WHOLE if self._collection.look(path) is None else Puts.HALF
        except (OSError, http.client.HTTPException):
            return Puts.UNKNOWN
        finally:
            with suppress(VBackupError):
                self._collection.remove(path)

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._options.url)
        host, timeout = parts.hostname or "", self._options.timeout
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout)
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=trust(self._options))

    def _name(self) -> str:
        return f"/.vbackup-trial-{secrets.token_hex(8)}"


def _goes_on(line: socket.socket) -> bool:
    """Whether the first line of an answer is that the server waits for the body."""
    return line.recv(64).startswith(b"HTTP/1.1 100")
