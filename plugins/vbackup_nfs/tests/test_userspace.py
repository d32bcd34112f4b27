"""libnfs against a real server, where NFS has ways of its own to go wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from pydantic import ValidationError

from tests.servers.daemon import free_port
from tests.servers.ganesha import Ganesha
from vbackup.api import AccessDenied, AlreadyExists, Level, NotFound, Unavailable, Unsupported
from vbackup.wrappers.retry import RetryingTransport
from vbackup_nfs import library
from vbackup_nfs.client import Connection
from vbackup_nfs.options import NfsOptions
from vbackup_nfs.transport import Nfs
from vbackup_nfs.userspace import NfsFiles

MIB = 1 << 20


def options(url: str, **more: Any) -> NfsOptions:
    return NfsOptions(**{"url": url, "client": "userspace", "timeout": 20} | more)


@pytest.fixture
def path(ganesha: Ganesha) -> str:
    """An empty directory of the server."""
    return ganesha.new("rw")


@pytest.fixture
def nfs(ganesha: Ganesha, path: str) -> Iterator[Callable[..., Nfs]]:
    """Make transports on that directory, or another one, with other options if need be; all are closed in the end."""
    made: list[Nfs] = []

    def make(where: str = path, **more: Any) -> Nfs:
        made.append(Nfs(options(ganesha.url(where), **more)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def connection(ganesha: Ganesha, path: str) -> Iterator[Connection]:
    asked = options(ganesha.url(path))
    with closing(Connection(asked.export, asked)) as connection:
        yield connection


def keys(transport: Nfs) -> list[str]:
    return sorted(info.key for info in transport.list())


def test_a_server_that_is_killed_while_packs_are_put(ganesha, nfs):
    """With retries around it, the job sees nothing of it."""
    transport = RetryingTransport(nfs(), 60)
    begun = threading.Semaphore(0)

    def put_all() -> None:
        for number in range(8):
            begun.release()
            transport.put(f"packs/{number}", bytes([number]) * 16 * MIB, if_absent=True)

    writer = threading.Thread(target=put_all)
    writer.start()
    for _ in range(3):
        begun.acquire()
    ganesha.kill()
    ganesha.start()
    writer.join()
    assert sorted(info.key for info in transport.list()) == [f"packs/{number}" for number in range(8)]
    for number in range(8):
        assert transport.get(f"packs/{number}") == bytes([number]) * 16 * MIB


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_connection_that_goes_silent(ganesha, nfs, how):
    """The plug is pulled, or the server hangs: neither end closes the connection."""
    transport = nfs(timeout=1)
    transport.put("a", b"1")
    getattr(ganesha, how)()
    try:
        for action in (lambda: transport.put("b", bytes(9 * MIB)), lambda: transport.get("a"), lambda: keys(transport)):
            with pytest.raises(Unavailable, match=ganesha.address) as caught:
                action()
            assert caught.value.transient
    finally:
        (ganesha.mend if how == "cut" else ganesha.thaw)()
    RetryingTransport(transport, 60).put("b", b"2")  # a network that is mended may need a moment to notice
    assert keys(transport) == ["a", "b"]


def test_nobody_listens(ganesha, nfs):
    transport = nfs(mount_port=1)
    with pytest.raises(Unavailable, match="refused") as caught:
        transport.get("a")
    assert caught.value.transient
    assert Level.ERROR in {finding.level for finding in transport.check()}


@pytest.mark.parametrize("name", ["a..b", "no-such-host.invalid"])
def test_a_server_without_an_address(name):
    with closing(Nfs(options(f"nfs://{name}/export"))) as transport, pytest.raises(Unavailable, match=name):
        transport.get("a")


def test_an_export_that_is_not_there(nfs):
    """The server says the same of one that we may not mount."""
    transport = nfs("elsewhere")
    for action in (lambda: transport.put("a", b"1"), lambda: transport.get("a"), transport.create):
        with pytest.raises(AccessDenied, match="/elsewhere") as caught:
            action()
        assert "exported to this host" in caught.value.hint
        assert not caught.value.transient


def test_root_squash_is_explained(ganesha, nfs):
    path = ganesha.new("squashed")
    with pytest.raises(AccessDenied, match="packs/a") as caught:
        nfs(path).put("packs/a", b"1")
    assert "no_root_squash" in caught.value.hint
    assert "user 0" in caught.value.hint


def test_as_another_user(ganesha, nfs, path):
    directory = ganesha.directory(path)
    directory.chmod(0o777)
    nfs(uid=1234, gid=2345).put("points/a", b"1")
    for name in ("points", "points/a"):
        found = (directory / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o077) == (1234, 2345, 0)


def test_a_read_only_export_says_so(nfs):
    with pytest.raises(AccessDenied, match="Read-only"):
        nfs("ro").put("new", b"1")


def test_create_makes_the_last_directory_only(ganesha, nfs, path):
    new = nfs(f"{path}/new")
    new.create()
    new.create()
    new.put("a", b"1")
    assert (ganesha.directory(path) / "new/a").read_bytes() == b"1"
    assert (ganesha.directory(path) / "new").stat().st_mode & 0o777 == 0o700
    with pytest.raises((AccessDenied, Unavailable)):
        nfs(f"{path}/not/there").create()
    assert not (ganesha.directory(path) / "not").exists()


def test_doctor_is_told_which_client_and_why(nfs):
    first, *others = nfs(client="auto", uid=0).check()
    assert first.level is Level.OK
    assert "libnfs" in first.detail
    assert "uid" in first.detail
    assert others


def test_given_ports_are_used_and_rpcbind_is_not(ganesha, nfs):
    nfs(port=ganesha.nfs_port, mount_port=ganesha.mount_port).put("a", b"1")
    with pytest.raises(Unavailable) as caught:
        nfs(port=free_port(), mount_port=ganesha.mount_port, timeout=2).get("a")
    assert caught.value.transient


def test_what_is_in_the_way(nfs):
    transport = nfs()
    transport.put("points/a", b"1")
    for key in ("points", "points/a/b"):
        with pytest.raises(Unsupported, match=key):
            transport.put(key, b"2")
    with pytest.raises(AlreadyExists):
        transport.put("points", b"2", if_absent=True)
    assert keys(transport) == ["points/a"]


def test_links_and_pipes_are_no_objects(ganesha, nfs, path):
    directory = ganesha.directory(path)
    (directory / "outside").symlink_to("/etc/passwd")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "inside").symlink_to("a")
    os.mkfifo(directory / "pipe")
    transport = nfs()
    transport.put("a", b"1")
    assert keys(transport) == ["a"]
    for key in ("outside", "dangling", "inside", "pipe"):
        for length in (None, 3):
            with pytest.raises(NotFound):
                transport.get(key, 0, length)
        with pytest.raises(NotFound):
            transport.size(key)


def test_a_restart_of_the_server_is_noticed_by_who_writes(ganesha, connection):
    """What it had taken and not committed may be lost, though it answers as ever and libnfs has connected again."""
    connection.create(b"/a", 0o600, memoryview(b"1"))
    connection.create(b"/b", 0o600, memoryview(b"2"))
    ganesha.kill()
    ganesha.start()
    with pytest.raises(OSError, match="restarted") as caught:
        connection.create(b"/c", 0o600, memoryview(b"3"))
    assert caught.value.errno == errno.EIO


def test_a_link_whose_answer_was_lost_is_ours(ganesha, connection, path):
    """The server made it, died, and refuses the repetition: the name is not taken by somebody else."""
    files = NfsFiles(options(ganesha.url(path)))
    with closing(files):
        files.write(".tmp-1", b"1")
        connection.call("nfs_link", b"/.tmp-1", b"/a")
        files.name(".tmp-1", "a", replace=False)
        assert [found.name for found in files.list("")] == ["a"]
        files.write(".tmp-2", b"2")
        with pytest.raises(FileExistsError):
            files.name(".tmp-2", "a", replace=False)
        assert files.read("a", 0, None) == b"1"


def test_a_failed_request_among_many_tells_why(ganesha):
    """libnfs tells of several requests at once only that one has failed."""
    asked = options(ganesha.url(ganesha.new("small")))
    with closing(Connection(asked.export, asked)) as connection:
        with pytest.raises(OSError, match="space"):
            connection.create(b"/a", 0o600, memoryview(bytes(32 * MIB)))
        connection.call("nfs_unlink", b"/a")


def test_another_libnfs_is_refused(monkeypatch):
    """One of an unknown number may take its arguments in another order."""
    library.load.cache_clear()
    tried = []

    def find(name: str) -> ctypes.CDLL:
        tried.append(name)
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", find)
    try:
        with closing(Nfs(options("nfs://127.0.0.1/export"))) as transport:
            with pytest.raises(Unsupported, match="libnfs") as caught:
                transport.get("a")
            assert "apt install" in caught.value.hint
            assert [finding.level for finding in transport.check()] == [Level.ERROR]
    finally:
        library.load.cache_clear()
    assert sorted(set(tried)) == [f"libnfs.so.{number}" for number in (13, 14, 17)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "/srv/export"}, "nfs://"),
        ({"url": "nfs:///export"}, "nfs://"),
        ({"url": "nfs://server"}, "nfs://"),
        ({"url": "nfs://server:2049/export"}, "options of their own"),
        ({"url": "nfs://user@server/export"}, "options of their own"),
        ({"url": "nfs://server/export?version=3"}, "options of their own"),
        ({"url": "nfs://server/export/../etc"}, r"\.\."),
        ({"url": "nfs://server/a%00b"}, "control"),
        ({"url": "nfs://server/a%0ab"}, "control"),
        ({"url": "nfs://server/a\tb"}, "control"),
        ({"url": "nfs://-oremount,bind/x"}, "name or the address"),
        ({"url": "nfs://a b/x"}, "name or the address"),
        ({"url": "nfs://a,b/x"}, "name or the address"),
        ({"client": "kernel", "uid": 5}, "userspace"),
        ({"client": "userspace", "version": 4}, "kernel"),
        ({"version": 2}, "3 or 4"),
        ({"timeout": 0}, "greater than"),
        ({"uid": -1}, "greater than"),
    ],
)
def test_options_that_cannot_be(given, said):
    with pytest.raises(ValidationError, match=said):
        NfsOptions(**{"url": "nfs://server/export"} | given)


@pytest.mark.parametrize(
    ("url", "shown", "source"),
    [
        ("nfs://server/export/path/", "nfs://server/export/path", "server:/export/path"),
        ("nfs://server/", "nfs://server/", "server:/"),
        ("nfs://[fe80::1]/my%20disk", "nfs://[fe80::1]/my disk", "[fe80::1]:/my disk"),
    ],
)
def test_exports(url, shown, source):
    export = NfsOptions(url=url).export
    assert (export.url, export.source) == (shown, source)
    assert export.parent.path in ("/export", "/")
