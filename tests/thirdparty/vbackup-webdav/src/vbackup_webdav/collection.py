"""Resources below one collection, by name: requests, and what their answers mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from urllib3 import HTTPHeaderDict

from vbackup.api import NotFound, Unavailable, Unsupported, VBackupError
from vbackup_webdav.client import Answer, Client
from vbackup_webdav.failures import refused
from vbackup_webdav.multistatus import REQUEST, NotWhole, Resource, resources
from vbackup_webdav.options import WebDavOptions

_LARGEST_LIST = 256 << 20
"""Bytes of XML for one collection: half a million of names."""
_REDIRECTS = {301, 302, 303, 307, 308}
_OF_OTHERS = {403, 405, *_REDIRECTS}
"""What servers say when somebody wants to read a collection, or a file that is deleted meanwhile."""
_BELOW = {400, 403, 405, 409}
"""What servers say of a name below something that is no collection."""
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_ELSE = "something else than the WebDAV server seems to answer: check `url`, proxies and the network"


class Part(NamedTuple):
    """Bytes that were read, and what tells one version of a resource from another."""

    data: bytes
    is_cut: bool
    """Whether it ends where the resource does, and not where it was asked to."""
    version: str


class Collection:
    """What is below ``options.url``. Paths are "" or "/a/b"; each method is one request, or two where it says so."""

    def __init__(self, options: WebDavOptions) -> None:
        self.url = options.url
        self._client = Client(options)
        self._base = unquote(urlsplit(options.url).path)

    def put(self, path: str, data: memoryview) -> bool:
        """Store a resource; return whether it was: False if its collection is not there."""
        action = f"store {self.url}{path}"
        answer = self._client.ask("PUT", path, action, headers=_OCTETS, body=data)
        if answer.status in (404, 409):
            return False
        if answer.status not in (200, 201, 204):
            raise _refusal(answer, action)
        if answer.status == 200:  # some servers say that; so does a page that takes everything
            there = self.look(path)
            if there is None or there.size != data.nbytes:
                raise Unavailable(f"cannot {action}: the server says that it did, and it is not there", hint=_ELSE)
        return True

    def get(self, path: str, offset: int, length: int | None) -> Part | None:
        """Read bytes of a resource; None if none is there.

        ``length`` is not 0. A server that ignores ranges sends everything; then only what is needed is read.
        """
        action = f"read {self.url}{path}"
        last = "" if length is None else str(offset + length - 1)
        ranged = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        most = None if length is None else offset + length
        answer = self._client.ask("GET", path, action, headers=ranged, most=most)
        if answer.status == 200:
            return _cut(answer, offset, length)
        if answer.status == 206 and ranged:
            return _checked(answer, offset, length, action)
        if answer.status == 416 and ranged:
            return self._beyond(path, offset, action)
        if answer.status in (404, 410) or (answer.status in _OF_OTHERS and not self._is_object(path)):
            return None
        raise _refusal(answer, action)

    def version(self, path: str) -> str:
        """Return what tells one version of a resource from another. Raises: `NotFound`."""
        action = f"look at {self.url}{path}"
        answer = self._client.ask("HEAD", path, action)
        if answer.status in (404, 410) or (answer.status in _OF_OTHERS and not self._is_object(path)):
            raise NotFound(f"{self.url}{path} is not there")
        if answer.status != 200:
            raise _refusal(answer, action)
        return _version(answer.headers)

    def look(self, path: str) -> Resource | None:
        """Tell what is there; None if nothing is."""
        found = self._ask_for(path, depth=0, action=f"look at {self.url}{path}")
        return None if found is None else found[0]

    def members(self, path: str) -> Sequence[Resource] | None:
        """Tell what is in a collection, itself left out; None if it is not there. All of it, or an error."""
        action = f"list {self.url}{path}"
        found = self._ask_for(f"{path}/", depth=1, action=action)
        if found is None:
            return None
        itself = f"{self._base}{path}"
        members = {resource.path: resource for resource in found}
        if members.pop(itself, Resource("", 0)).size is not None:
            raise Unavailable(f"cannot {action}: the answer is not about that collection", hint=_ELSE)
        if any(member.rpartition("/")[0] != itself for member in members):
            raise Unavailable(f"cannot {action}: the answer has names of other collections", hint=_ELSE)
        return list(members.values())

    def name_of(self, resource: Resource) -> str:
        """Return the path of a resource below this collection, without the first slash."""
        return resource.path.removeprefix(f"{self._base}/")

    def make(self, path: str, action: str) -> bool:
        """Make a collection, or find it there; return whether it is: False if that around it is not."""
        there = self.look(path or "/")
        if there is None:
            answer = self._client.ask("MKCOL", f"{path}/", action)
            if answer.status in (200, 201):
                return True
            if answer.status == 409:
                return False
            there = self.look(path or "/")  # somebody may have made it meanwhile, for which there is no one status
            if there is None:
                raise _refusal(answer, action)
        if there.size is not None:
            raise Unsupported(f"cannot {action}: {self.url}{path} is no collection")
        return True

    def remove(self, path: str) -> None:
        """Remove a resource; one that is not there is no error.

        A server removes a collection with all that is in it, so somebody has to `look` before. Depth 0 makes those
        refuse that look at it.
        """
        action = f"delete {self.url}{path}"
        answer = self._client.ask("DELETE", path, action, headers={"Depth": "0"})
        if answer.status not in (200, 204, 404, 410):
            raise _refusal(answer, action)

    def classes(self) -> str:
        """Return the classes of WebDAV that the server says it has (RFC 4918, section 10.1); "" if none."""
        action = f"look at {self.url}"
        answer = self._client.ask("OPTIONS", "/", action)
        if answer.status not in (200, 204):
            raise _refusal(answer, action)
        return answer.headers.get("DAV", "")

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _ask_for(self, path: str, *, depth: int, action: str) -> list[Resource] | None:
        headers = {"Depth": str(depth), "Content-Type": "application/xml; charset=utf-8"}
        answer = self._client.ask("PROPFIND", path, action, headers=headers, body=REQUEST, most=_LARGEST_LIST)
        if answer.status in (404, 410) or (answer.status in _BELOW and not self._is_in_a_collection(path)):
            return None
        if answer.status in _REDIRECTS and depth == 0 and self._is_same_with_slash(answer, path):
            return [Resource(f"{self._base}{path}", None)]  # so do Apache and nginx with what names a collection
        if answer.status != 207:
            raise _refusal(answer, action)
        if len(answer.body) == _LARGEST_LIST:
            raise Unsupported(f"cannot {action}: the list has more than {_LARGEST_LIST >> 20} MiB")
        try:
            found = resources(answer.body)
        except NotWhole as error:
            raise Unavailable(f"cannot {action}: the answer cannot be relied on: {error}", hint=_ELSE) from error
        if depth == 0 and [each.path for each in found] != [f"{self._base}{path}".rstrip("/")]:
            raise Unavailable(f"cannot {action}: the answer is about something else", hint=_ELSE)
        return found

    def _beyond(self, path: str, offset: int, action: str) -> Part | None:
        """Return that a resource ends before a part, if so: the answer itself need not tell its size."""
        there = self.look(path)
        if there is not None and there.size is not None and there.size > offset:
            raise Unavailable(f"cannot {action}: a part of it was refused; was it replaced just now?")
        return None if there is None else Part(b"", is_cut=False, version="")

    def _is_object(self, path: str) -> bool:
        there = self.look(path)
        return there is not None and there.size is not None

    def _is_in_a_collection(self, path: str) -> bool:
        parent = path.rstrip("/").rpartition("/")[0]
        there = self.look(parent) if parent else Resource("", None)
        return there is not None and there.size is None

    def _is_same_with_slash(self, answer: Answer, path: str) -> bool:
        return unquote(urlsplit(answer.headers.get("Location", "")).path) == f"{self._base}{path}/"


_OCTETS = {"Content-Type": "application/octet-stream"}


def _cut(answer: Answer, offset: int, length: int | None) -> Part:
    """Return what is needed of a whole resource."""
    data = answer.body[offset:] if offset else answer.body
    return Part(data, length is None or len(data) < length, _version(answer.headers))


def _checked(answer: Answer, offset: int, length: int | None, action: str) -> Part:
    """Return a part of a resource if it is the one that was asked for. Raises: `Unavailable`."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None:
        raise Unavailable(f"cannot {action}: the answer does not say which part it is", hint=_ELSE)
    first, last, size = (int(number) for number in found.groups())
    end = size if length is None else min(offset + length, size)
    if first != offset or last + 1 != end or len(answer.body) != end - offset:
        raise Unavailable(f"cannot {action}: the answer is another part than was asked for", hint=_ELSE)
    return Part(answer.body, length is None or end - offset < length, _version(answer.headers, str(size)))


def _version(headers: HTTPHeaderDict, size: str | None = None) -> str:
    """Return the ETag, which may become strong with time (RFC 9110, section 8.8.3.2); without one the size."""
    return headers.get("ETag", "").removeprefix("W/") or size or headers.get("Content-Length", "0")


def _refusal(answer: Answer, action: str) -> VBackupError:
    return refused(answer.status, answer.headers, action)
