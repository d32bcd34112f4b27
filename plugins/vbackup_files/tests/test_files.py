"""What is shared by transports over file servers, with a directory of this machine in place of a server."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from vbackup.api import AccessDenied, AlreadyExists, Level, NoSpace, NotFound, Options, Unavailable, Unsupported, clock
from vbackup.api.hypervisor import Buffer
from vbackup.testing.transport_contract import FullContract, HostsContract, MissingPlaceContract, TransportContract
from vbackup_files import FileStore, Found, Pool, told

MIB = 1 << 20


class Directory:
    """`Files` of a directory; what a server does to its files, these are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, data: Buffer) -> None:
        """See `Files.write`."""
        descriptor = os.open(self.root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def name(self, temporary: str, path: str, *, replace: bool) -> None:
        """See `Files.name`."""
        if replace:
            (self.root / temporary).rename(self.root / path)
        else:
            (self.root / path).hardlink_to(self.root / temporary)
            (self.root / temporary).unlink()

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """See `Files.read`."""
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def look(self, path: str) -> Found:
        """See `Files.look`."""
        found = (self.root / path).lstat()
        is_file, is_directory = stat.S_ISREG(found.st_mode), stat.S_ISDIR(found.st_mode)
        return Found(path.rpartition("/")[2], is_file, is_directory, found.st_size, found.st_mtime)

    def list(self, path: str) -> Iterator[Found]:
        """See `Files.list`."""
        for entry in list((self.root / path).iterdir()):
            with suppress(FileNotFoundError):
                yield self.look(str(entry.relative_to(self.root)))

    def make_directory(self, path: str) -> None:
        """See `Files.make_directory`."""
        (self.root / path).mkdir(0o700)

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        (self.root / path).unlink()

    def free(self) -> tuple[int, int] | None:
        """See `Files.free`."""
        space = os.statvfs(self.root)
        return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize

    def close(self) -> None:
        """See `Files.close`."""


class Stored(FileStore):
    """As a plugin makes a transport of it."""

    name: ClassVar[str] = "files"
    options: ClassVar[type[BaseModel]] = Options
    has_files: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        """Put the objects below ``root``, which is "the place" in messages."""
        super().__init__("files://server/place", Directory(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def store(root: Path) -> Stored:
    return Stored(root)


def keys(store: FileStore) -> list[str]:
    return sorted(info.key for info in store.list())


class TestFileStore(HostsContract, MissingPlaceContract, TransportContract):
    many = 2_000  # the real servers are asked for more

    @pytest.fixture
    def opens(self, root):
        return partial(Stored, root)

    @pytest.fixture
    def missing(self, tmp_path):
        return Stored(tmp_path / "missing")

    @pytest.fixture(autouse=True)
    def _leaves_no_temporary_file(self, request, root):
        yield
        if "killed" not in request.node.name:
            assert not list(root.glob(".tmp-*"))


class TestFull(FullContract):
    @pytest.fixture
    def full(self, root):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "vbackup-test", root], check=True)
        yield Stored(root)
        subprocess.run(["umount", root], check=True)


def test_create_makes_the_place(tmp_path):
    store = Stored(tmp_path / "new")
    store.create()
    store.create()
    store.put("a/b", b"1")
    assert (tmp_path / "new/a/b").read_bytes() == b"1"


def test_what_cannot_be_an_object_is_not_listed(root, store):
    store.put("a/b", b"1")
    for name in ("README.txt", "Upper", ".hidden", ".tmp-0123", "a/with space", "x" * 129):
        (root / name).write_bytes(b"foreign")
    (root / "$RECYCLE.BIN").mkdir()
    (root / "link").symlink_to("a")
    os.mkfifo(root / "pipe")
    (root / "empty").mkdir()
    assert keys(store) == ["a/b"]
    for key in ("link", "pipe", "empty", "a"):
        with pytest.raises(NotFound):
            store.get(key)
        with pytest.raises(NotFound):
            store.size(key)


def test_what_is_in_the_way(store):
    store.put("points/a", b"1")
    for key in ("points", "points/a/b"):
        with pytest.raises(Unsupported, match=f"place/{key}"):
            store.put(key, b"2")
    with pytest.raises(AlreadyExists):
        store.put("points", b"2", if_absent=True)
    assert keys(store) == ["points/a"]


def test_a_directory_that_was_removed_is_made_again(root, store):
    store.put("a/b", b"1")
    store.delete("a/b")
    (root / "a").rmdir()
    with pytest.raises(Unavailable) as caught:
        store.put("a/b", b"2")
    assert caught.value.transient  # and so it is tried again
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"


def test_garbage_goes_after_a_day_and_nothing_else(root):
    now = clock.now()
    for name, days in ((".tmp-old", 2), (".tmp-new", 0.9), (".other", 9), ("object", 9)):
        (root / name).write_bytes(b"")
        then = (now - timedelta(days=days)).timestamp()
        os.utime(root / name, (then, then))
    (root / ".tmp-directory").mkdir()
    Stored(root).get("object")
    assert (root / ".tmp-old").exists()  # reading cleans nothing up
    Stored(root).put("a", b"1")
    assert {path.name for path in root.iterdir()} == {".tmp-new", ".other", "object", ".tmp-directory", "a"}


def test_a_place_that_goes_is_not_made_again(root, store):
    store.put("a/b", b"1")
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(Unavailable, match="is not there"):
        store.put("a/c", b"1")
    assert not root.exists()


def test_little_space_is_a_warning(store, monkeypatch):
    assert {finding.level for finding in store.check()} == {Level.OK}
    monkeypatch.setattr(Directory, "free", lambda _: (1, 100))
    assert {finding.level for finding in store.check()} == {Level.OK, Level.WARNING}
    monkeypatch.setattr(Directory, "free", lambda _: None)
    assert {finding.level for finding in store.check()} == {Level.OK}


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [
        (errno.ENOSPC, NoSpace, False),
        (errno.EDQUOT, NoSpace, False),
        (errno.EACCES, AccessDenied, False),
        (errno.EROFS, AccessDenied, False),
        (errno.ETIMEDOUT, Unavailable, True),
        (errno.ECONNREFUSED, Unavailable, True),
        (errno.ECONNRESET, Unavailable, True),
        (errno.ENETUNREACH, Unavailable, True),
        (errno.EIO, Unavailable, True),
        (errno.EINVAL, Unavailable, False),
        (errno.ENAMETOOLONG, Unavailable, False),
    ],
)
def test_what_an_errno_means(code, kind, transient):
    with pytest.raises(kind, match="cannot store a") as caught, told("store a"):
        raise OSError(code, os.strerror(code))
    assert caught.value.transient is transient


class Connections:
    """Counts what is opened and closed."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: list[int] = []

    def connect(self) -> int:
        self.opened += 1
        return self.opened


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def pool(connections: Connections) -> Pool[int]:
    return Pool(connections.connect, connections.closed.append, 2)


def broken(code: int) -> Callable[[Pool[int]], None]:
    def use(pool: Pool[int]) -> None:
        with suppress(OSError), pool.connection():
            raise OSError(code, os.strerror(code))

    return use


def test_connections_are_used_again(pool, connections):
    for code in (errno.ENOENT, errno.ENOSPC, errno.EEXIST):
        broken(code)(pool)
    with pool.connection() as first, pool.connection() as second:
        assert (first, second) == (1, 2)
    pool.close()
    assert sorted(connections.closed) == [1, 2]
    with pool.connection() as third:
        assert third == 3


def test_a_broken_connection_is_not_used_again(pool, connections):
    with pool.connection(), pool.connection():
        pass
    broken(errno.ETIMEDOUT)(pool)
    with suppress(ValueError), pool.connection():
        raise ValueError("what this means is not known")
    assert {1, 2} <= set(connections.closed)
    with pool.connection() as connection:
        assert connection not in connections.closed


def test_no_more_connections_than_allowed(connections):
    pool = Pool(connections.connect, connections.closed.append, 2)
    lent, over = threading.Barrier(3), threading.Event()

    def borrow(barrier: threading.Barrier | None) -> int:
        with pool.connection() as connection:
            if barrier:
                barrier.wait()
                over.wait()
            return connection

    with ThreadPoolExecutor(5) as executor:
        first = [executor.submit(borrow, lent) for _ in range(2)]
        lent.wait()
        others = [executor.submit(borrow, None) for _ in range(3)]
        assert connections.opened == 2
        over.set()
        assert {future.result() for future in first} == {1, 2}
        assert {future.result() for future in others} <= {1, 2}
    assert connections.opened == 2


def test_a_failure_to_connect_takes_no_place():
    def connect() -> int:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    pool = Pool(connect, lambda _: None, 1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError), pool.connection():
            pass


def test_a_silent_server_is_waited_for_once(connections):
    """Whoever waited for a connection meanwhile fails, too, and nobody who comes later."""
    pool = Pool(connections.connect, connections.closed.append, 2)
    lent, silence, given = threading.Barrier(3), threading.Event(), []

    def ask(*, first: bool) -> None:
        with pool.connection() as connection:
            given.append(connection)
            if first:
                lent.wait(60)
            assert silence.wait(60)
            raise TimeoutError(errno.ETIMEDOUT, "no answer")

    with ThreadPoolExecutor(8) as executor:
        asked = [executor.submit(ask, first=True) for _ in range(2)]
        lent.wait(60)
        asked += [executor.submit(ask, first=False) for _ in range(6)]
        deadline = time.monotonic() + 60
        while len(pool._turns._waiting) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        silence.set()
        assert all(isinstance(one.exception(60), TimeoutError) for one in asked)
    assert sorted(given) == [1, 2]
    with pool.connection() as connection:
        assert connection == 3


class Silent(Directory):
    """Does not answer any more; counts how often it was asked."""

    asked = 0

    def _nothing(self, *_: object, **__: object) -> Any:
        self.asked += 1
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    write = read = look = list = remove = name = make_directory = _nothing


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.put("a", b"1"),
        lambda store: store.get("a"),
        lambda store: store.size("a"),
        lambda store: store.delete("a"),
        lambda store: list(store.list("a")),
    ],
)
def test_a_silent_server_is_asked_once(root, action):
    files = Silent(root)
    with pytest.raises(Unavailable) as caught:
        action(FileStore("files://server/place", files))
    assert caught.value.transient
    assert files.asked == 1
    files.asked = 0
    assert FileStore("files://server/place", files).check()[0].level is Level.ERROR
    assert files.asked == 1
