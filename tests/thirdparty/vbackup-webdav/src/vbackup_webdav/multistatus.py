"""What PROPFIND says (RFC 4918, section 14): resources, with what we want to know of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

REQUEST = memoryview(
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
)
_STATUS = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})(?: |\Z)")


class Resource(NamedTuple):
    """A resource: its path, decoded and without a slash at its end, and its size in bytes; None for a collection."""

    path: str
    size: int | None


class NotWhole(Exception):  # noqa: N818 - named for what happened
    """An answer that does not tell all that was asked for, or is none of WebDAV; the text says why."""


def resources(document: bytes) -> list[Resource]:
    """Read a multistatus document. Entities, and all else of a DTD, are refused.

    Raises: `NotWhole`, also when the server says of one resource that it cannot tell.
    """
    try:
        root = fromstring(document, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # the last two: of its encoding
        raise NotWhole("it is not XML, or has a DTD") from error
    if root.tag != "{DAV:}multistatus":
        raise NotWhole(f"it is {root.tag[:40]!r}")
    return [_resource(response) for response in root.iterfind("{DAV:}response")]


def _resource(response: Element) -> Resource:
    [path, *more] = list(_texts(response, "{DAV:}href")) or [""]
    path = unquote(urlsplit(path).path)
    if not path or more:
        raise NotWhole("a response is not of one resource")
    if (status := _status(response)) not in (None, 200):
        raise NotWhole(f"{path[-200:]} has the status {status}")
    for propstat in response.iterfind("{DAV:}propstat"):
        kind = propstat.find("{DAV:}prop/{DAV:}resourcetype")
        if _status(propstat) == 200 and kind is not None:
            if kind.find("{DAV:}collection") is not None:
                return Resource(path.rstrip("/"), None)
            return Resource(path, _size(response, path))
    raise NotWhole(f"{path[-200:]} has no resource type")


def _size(response: Element, path: str) -> int:
    for propstat in response.iterfind("{DAV:}propstat"):
        size = next(_texts(propstat, "{DAV:}prop/{DAV:}getcontentlength"), "")
        if _status(propstat) == 200 and size.isascii() and size.isdigit():
            return int(size)
    raise NotWhole(f"{path[-200:]} has no size")


def _status(element: Element) -> int | None:
    status = next(_texts(element, "{DAV:}status"), None)
    if status is None:
        return None
    found = _STATUS.match(status)
    return int(found[1]) if found else 0


def _texts(element: Element, name: str) -> Iterator[str]:
    return ((found.text or "").strip() for found in element.iterfind(name))
