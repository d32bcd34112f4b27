"""Servers that fail, stop in the middle, or lie: what is not sure is an error, and never less than there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial

import pytest
from apache import Apache
from scripted import COLLECTION, OBJECT, XML, Request, Script, Store, answer, by_method, entry, listing, scripted
from vbackup_webdav.transport import WebDav

from vbackup.api import (
    AccessDenied,
    Level,
    NoSpace,
    NotFound,
    ObjectInfo,
    Unavailable,
    Unsupported,
    VBackupError,
)

Open = Callable[..., WebDav]
ROOT = entry("/dav/", COLLECTION)
THREE = OBJECT.format(3)


@pytest.fixture
def at() -> Iterator[Open]:
    """Open a transport of a server that answers by a script."""
    with ExitStack() as end:

        def open_at(script: Script, timeout: float = 5) -> WebDav:
            options = end.enter_context(scripted(script, timeout))
            return end.enter_context(closing(WebDav(options)))

        yield open_at


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (302, Unavailable, False),
        (307, Unavailable, False),
        (400, Unavailable, False),
        (401, AccessDenied, False),
        (403, AccessDenied, False),
        (408, Unavailable, True),
        (413, Unsupported, False),
        (423, Unavailable, True),
        (429, Unavailable, True),
        (500, Unavailable, True),
        (501, Unsupported, False),
        (502, Unavailable, True),
        (503, Unavailable, True),
        (504, Unavailable, True),
        (507, NoSpace, False),
        (599, Unavailable, True),
        (202, Unavailable, False),
        (207, Unavailable, False),
    ],
)
def test_a_put_that_is_refused(at: Open, status: int, kind: type[VBackupError], transient: bool) -> None:
    """Also 202: it is not done then. The object is named, and what the server wrote is not shown."""
    put = partial(answer, status=status, body=b"canary", Location="http://127.0.0.1:1/canary")
    with pytest.raises(kind, match="packs") as caught:
        at(by_method(PUT=put, PROPFIND=listing(ROOT))).put("packs", b"1")
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert "canary" not in str(caught.value)


def test_the_server_says_how_long_to_wait(at: Open) -> None:
    for told, wait in (("7", 7.0), ("99999999", 3600.0), ("soon", None)):
        script = partial(answer, status=503, Retry_After=told)
        with pytest.raises(Unavailable) as caught:
            at(script).size("a")
        assert caught.value.retry_after == wait


def test_a_page_that_takes_everything_is_no_store(at: Open) -> None:
    """200 to a PUT is not believed."""
    page = by_method(PUT=partial(answer, status=200, body=b"<html>Welcome"), PROPFIND=listing(ROOT))
    with pytest.raises(Unavailable, match="something else"):
        at(page).put("a", b"1")


def _cut(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b"x" * 60)
    request.close_connection = True


def _endless(request: Request) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"x" * 60)
    request.close_connection = True


def _half_a_chunk(request: Request) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"40\r\nxxx")
    request.close_connection = True


def _no_http(request: Request) -> None:
    request.wfile.write(b"220 smtp.example.org ESMTP\r\n")
    request.close_connection = True


def _hangs_up(request: Request) -> None:
    request.close_connection = True


@pytest.mark.parametrize("script", [_cut, _endless, _half_a_chunk, _no_http, _hangs_up])
def test_half_an_answer(at: Open, script: Script) -> None:
    """Whatever is missing of it; it may be tried again."""
    for read in (lambda transport: transport.get("packs"), lambda transport: transport.get("packs", 5, 90)):
        with pytest.raises(Unavailable, match="packs") as caught:
            read(at(script))
        assert caught.value.transient


def test_a_compressed_answer_is_refused(at: Open) -> None:
    with pytest.raises(Unavailable, match="compressed"):
        at(partial(answer, status=200, body=b"\x1f\x8b", Content_Encoding="gzip")).get("a")


@pytest.mark.parametrize(
    ("told", "body"),
    [
        ("", b"0123456789"),
        ("bytes 0-9/100", b"0123456789"),
        ("bytes 10-18/100", b"012345678"),
        ("bytes 10-19/100", b"012345678"),
        ("bytes 10-29/100", b"0123456789" * 2),
        ("bytes 10-19/*", b"0123456789"),
        ("bytes 10-14/100", b"01234"),
    ],
)
def test_another_part_than_was_asked_for(at: Open, told: str, body: bytes) -> None:
    with pytest.raises(Unavailable, match="packs"):
        at(partial(answer, status=206, body=body, Content_Range=told)).get("packs", 10, 10)


def test_a_server_that_ignores_ranges(at: Open) -> None:
    """It is read up to what is needed, and cut."""
    data = bytes(range(256)) * 8192
    transport = at(by_method(GET=partial(answer, status=200, body=data), HEAD=partial(answer, status=200, body=data)))
    for offset, length in ((0, 10), (1000, 1000), (len(data) - 5, 5), (len(data) - 5, 10), (len(data), 1), (7, None)):
        assert transport.get("a", offset, length) == data[offset : None if length is None else offset + length]
    assert transport.get("a") == data


def test_connections_are_used_again(at: Open) -> None:
    """After answers of every kind that were read to their end."""
    clients = set()

    def script(request: Request) -> None:
        clients.add(request.client_address)
        if request.command == "GET" and "Range" in request.headers:
            answer(request, 206, b"01", Content_Range="bytes 0-1/10")
        elif request.command == "PUT":
            answer(request, 500, b"a page that says so")
        else:
            answer(request, 404)

    transport = at(by_method(GET=script, PUT=script, PROPFIND=listing(ROOT), HEAD=script))
    for _ in range(3):
        assert transport.get("a", 0, 2) == b"01"
        with pytest.raises(NotFound):
            transport.get("a")
        with pytest.raises(Unavailable):
            transport.put("a", b"1")
    assert len(clients) == 1


def test_an_object_that_is_replaced_between_its_length_and_its_bytes(at: Open) -> None:
    """The server says the length of the old one, and sends the beginning of the new one: it is read again."""
    gets = itertools.count()

    def get(request: Request) -> None:
        if next(gets) == 0:
            answer(request, 200, b"ne", ETag='"old"')
        else:
            answer(request, 200, b"new", ETag='W/"new"')

    transport = at(by_method(GET=get, HEAD=partial(answer, status=200, body=b"new", ETag='"new"')))
    assert transport.get("a") == b"new"
    assert next(gets) == 2


def test_an_object_that_never_stays(at: Open) -> None:
    tags = itertools.count()

    def script(request: Request) -> None:
        answer(request, 200, b"1", ETag=f'"{next(tags)}"')

    with pytest.raises(Unavailable, match="replaced all the time") as caught:
        at(script).get("a")
    assert caught.value.transient


BAD_LISTS = {
    "cut short": XML.format(ROOT + entry("/dav/a", THREE))[:-20],
    "empty": "",
    "a page": "<html><body>Welcome</body></html>",
    "another document": '<D:error xmlns:D="DAV:"/>',
    "entities": '<!DOCTYPE a [<!ENTITY b "/dav/a">]>' + XML.format(ROOT + entry("&b;", THREE)),
    "a file from outside": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + XML.format(entry("&b;", THREE)),
    "without itself": XML.format(entry("/dav/a", THREE)),
    "itself no collection": XML.format(entry("/dav", THREE)),
    "of another collection": XML.format(ROOT + entry("/other/a", THREE)),
    "of what is deeper": XML.format(ROOT + entry("/dav/b/a", THREE)),
    "one that may not be seen": XML.format(ROOT + entry("/dav/a", THREE, "HTTP/1.1 403 Forbidden")),
    "one without a size": XML.format(ROOT + entry("/dav/a", "<D:resourcetype/>")),
    "one without a kind": XML.format(ROOT + entry("/dav/a", "<D:getcontentlength>3</D:getcontentlength>")),
    "a negative size": XML.format(ROOT + entry("/dav/a", THREE.replace("3", "-3"))),
    "more to come": XML.format(
        ROOT + "<D:response><D:href>/dav/</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status></D:response>"
    ),
    "no name": XML.format(ROOT + entry("", THREE)),
}


@pytest.mark.parametrize("document", BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_list_that_cannot_be_relied_on(at: Open, document: str) -> None:
    with pytest.raises(Unavailable) as caught:
        list(at(partial(answer, status=207, body=document.encode())).list())
    assert caught.value.hint


def test_a_list_whose_bytes_end_early(at: Open) -> None:
    """Even where what came would be a document."""

    def script(request: Request) -> None:
        body = XML.format(ROOT).encode()
        request.send_response(207)
        request.send_header("Content-Length", str(len(body) + 1))
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True

    with pytest.raises(Unavailable):
        list(at(script).list())


@pytest.mark.parametrize("prefix", ["D:", "lp1:", ""])
def test_names_as_servers_write_them(at: Open, prefix: str) -> None:
    """URLs or paths, with one or another prefix for DAV:, escaped or not; what is no object is left out."""
    names = ["%61b", "A", "%2e%2e", "x%20y", "x y", ".davfs.tmp1"]
    root = entry("http://elsewhere.example.org:8080/dav/", COLLECTION)
    others = [entry("/dav/.DAV", COLLECTION), entry("/dav/lost+found/", COLLECTION)]
    document = XML.format("".join([root, *others, *(entry(f"/dav/{name}", THREE) for name in names)]))
    document = document.replace("xmlns:D", f"xmlns:{prefix}".rstrip(":")).replace("<D:", f"<{prefix}")
    document = document.replace("</D:", f"</{prefix}")
    assert list(at(partial(answer, status=207, body=document.encode())).list()) == [ObjectInfo("ab", 3)]


def test_a_collection_is_never_deleted(at: Open) -> None:
    """Not even asked to be."""
    deleted = []
    script = by_method(PROPFIND=listing(entry("/dav/a/", COLLECTION)), DELETE=lambda request: deleted.append(request))
    at(script).delete("a")
    assert deleted == []


def test_a_server_that_shows_half_an_object_is_refused(at: Open) -> None:
    """`create` says so before anything is kept there, and `check` whenever it is asked."""
    transport = at(Store(shows_half=True))
    with pytest.raises(Unsupported, match="shows half") as caught:
        transport.create()
    assert caught.value.hint
    assert [finding.level for finding in transport.check()] == [Level.OK, Level.ERROR]


def test_a_server_that_stores_whole_objects_is_taken(at: Open) -> None:
    store = Store()
    transport = at(store)
    transport.create()
    assert [finding.level for finding in transport.check()] == [Level.OK, Level.OK]
    transport.put("a", b"123")
    assert transport.get("a", 1) == b"23"
    assert store.kept == {"/dav/a": b"123"}


def test_a_server_that_does_not_say_when_it_reads(at: Open) -> None:
    """It is not refused for that; `vbackup doctor` warns."""
    transport = at(Store(says_continue=False), timeout=0.5)
    transport.create()
    assert [finding.level for finding in transport.check()] == [Level.OK, Level.WARNING]


def test_a_server_that_is_no_webdav(at: Open) -> None:
    [finding] = at(partial(answer, status=200)).check()
    assert finding.level is Level.ERROR
    assert "WebDAV" in finding.detail


def test_a_password_in_the_clear_is_told(apache: Apache) -> None:
    """It works, and `vbackup doctor` says what is wrong with it."""
    with closing(WebDav(apache.options(apache.new_name()))) as transport:
        transport.create()
        levels = [finding.level for finding in transport.check()]
    assert levels == [Level.WARNING, Level.OK, Level.OK]


def test_a_server_that_drips(at: Open) -> None:
    """Bytes that come one by one end every wait for one, but not the patience with all of them."""

    def script(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        request.connection.settimeout(0.01)
        while True:
            request.wfile.write(b"x")
            with suppress(TimeoutError):
                if not request.connection.recv(1):
                    return

    with pytest.raises(Unavailable, match="slower than") as caught:
        at(script, timeout=0.5).get("packs")
    assert caught.value.transient
