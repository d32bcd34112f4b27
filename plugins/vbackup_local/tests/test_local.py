"""The transport ``local`` keeps the contract, on a disk and in memory, and what is special about directories."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from functools import partial

import pytest
from pydantic import ValidationError

from vbackup.api import AlreadyExists, Level, NotFound, ObjectInfo, Unavailable, Unsupported
from vbackup.api.clock import now
from vbackup.testing.leftovers import nothing_left_open
from vbackup.testing.transport_contract import HostsContract, MissingPlaceContract, TransportContract
from vbackup_local.transport import Local, LocalOptions


class TestLocal(MissingPlaceContract, TransportContract):
    @pytest.fixture
    def transport(self, tmp_path):
        return Local(LocalOptions(path=tmp_path))

    @pytest.fixture
    def missing(self, tmp_path):
        return Local(LocalOptions(path=tmp_path / "not" / "there"))

    @pytest.fixture(autouse=True)
    def _leaves_no_temporary_file(self, tmp_path):
        yield
        assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".tmp-")]


class TestLocalOfManyHosts(HostsContract):
    @pytest.fixture
    def opens(self, tmp_path):
        return partial(Local, LocalOptions(path=tmp_path))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def local(root):
    return Local(LocalOptions(path=root))


def keys(transport, prefix=""):
    return sorted(info.key for info in transport.list(prefix))


@pytest.mark.parametrize("path", ["store", "./store", "~/store", ""])
def test_a_path_that_is_not_absolute_is_refused(path):
    with pytest.raises(ValidationError, match="absolute"):
        LocalOptions(path=path)


def everything(local):
    yield lambda: local.put("a", b"1")
    yield lambda: local.put("a", b"1", if_absent=True)
    yield lambda: local.put("a/b", b"1")
    yield lambda: local.get("a")
    yield lambda: local.size("a")
    yield lambda: local.delete("a")
    yield lambda: list(local.list())
    yield lambda: list(local.list("a"))
    yield lambda: list(local.list("a/b"))


@pytest.mark.parametrize("there", ["nothing", "file", "dangling link"])
def test_a_missing_root_is_never_taken_for_an_empty_store(root, local, there):
    """The disk is not mounted: nothing may be written below its mount point, and nothing is known to be missing."""
    root.rmdir()
    if there == "file":
        root.write_bytes(b"")
    elif there == "dangling link":
        root.symlink_to("nowhere")
    for action in everything(local):
        with pytest.raises(Unavailable, match="store is not there") as caught:
            action()
        assert "mounted" in caught.value.hint
        assert not caught.value.transient
    assert not root.is_dir()


def test_a_root_that_goes_missing_after_use_is_not_made_again(root, local):
    local.put("a/b", b"1")
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(Unavailable):
        local.put("a/c", b"1")
    assert not root.exists()


def test_create_makes_the_last_directory_only(root):
    new = Local(LocalOptions(path=root / "new"))
    new.create()
    new.put("repository", b"1", if_absent=True)
    assert (root / "new").stat().st_mode & 0o777 == 0o700
    with pytest.raises(Unavailable):
        Local(LocalOptions(path=root / "not" / "there")).create()
    assert keys(new) == ["repository"]
    assert not (root / "not").exists()


def test_the_root_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    Local(LocalOptions(path=tmp_path / "link")).put("a/b", b"1")
    assert (root / "a" / "b").read_bytes() == b"1"


def test_a_directory_that_was_removed_is_made_again(root, local):
    local.put("a/b", b"1")
    local.delete("a/b")
    (root / "a").rmdir()
    local.put("a/b", b"2")
    assert local.get("a/b") == b"2"


def test_nobody_else_may_read(root, local):
    local.put("a/b", b"1")
    assert (root / "a").stat().st_mode & 0o777 == 0o700
    assert (root / "a" / "b").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_an_object_is_not_listed(root, local):
    local.put("a/b", b"1")
    for name in ("README.txt", "lost+found", "Upper", ".hidden", ".tmp-0123", "a/.tmp-0123", "a/with space", "x" * 129):
        (root / name).write_bytes(b"foreign")
    (root / "$RECYCLE.BIN").mkdir()
    (root / "$RECYCLE.BIN" / "file").write_bytes(b"foreign")
    os.mkfifo(root / "fifo")
    (root / "empty").mkdir()
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"foreign")
    assert keys(local) == ["a/b"]


@pytest.mark.timeout(60)
def test_links_fifos_and_sockets_are_not_objects(root, local, tmp_path):
    """A FIFO must not make a reader wait for ever."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    for key in ("link", "dangling", "loop", "fifo", "socket"):
        with pytest.raises(NotFound):
            local.get(key)
        with pytest.raises(NotFound):
            local.size(key)
        assert list(local.list(key)) == []
    assert list(local.list()) == []
    local.put("link", b"ours")
    assert (outside / "secret").read_bytes() == b"secret"
    assert local.get("link") == b"ours"


def test_no_link_leads_out_of_the_root(root, local, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "packs").symlink_to(outside)
    (root / "real").mkdir()
    (root / "real" / "up").symlink_to("..")
    for key in ("packs/secret", "real/up/real"):
        with pytest.raises(NotFound):
            local.get(key)
        with pytest.raises(Unsupported, match=key):
            local.put(key, b"ours")
        local.delete(key)
        assert list(local.list(key)) == []
    assert list(local.list()) == []
    assert list(local.list("packs")) == []
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_key_cannot_be_an_object_and_a_directory(local):
    local.put("a", b"1")
    local.put("b/c", b"1")
    for if_absent in (True, False):
        with pytest.raises(Unsupported, match="a/b"):
            local.put("a/b", b"2", if_absent=if_absent)
    with pytest.raises(Unsupported, match="/b"):
        local.put("b", b"2")
    with pytest.raises(AlreadyExists):
        local.put("b", b"2", if_absent=True)
    assert keys(local) == ["a", "b/c"]
    assert local.get("a") == b"1"


def test_temporary_files_of_the_dead_are_removed_after_a_day(root):
    yesterday = (now() - timedelta(days=1, minutes=1)).timestamp()
    for name, time in ((".tmp-old", yesterday), (".tmp-young", now().timestamp()), ("old", yesterday)):
        (root / name).write_bytes(b"")
        os.utime(root / name, (time, time))
    (root / ".tmp-directory").mkdir()
    os.utime(root / ".tmp-directory", (yesterday, yesterday))
    Local(LocalOptions(path=root)).put("a", b"1")
    assert sorted(path.name for path in root.iterdir()) == [".tmp-directory", ".tmp-young", "a", "old"]


def test_a_lost_answer_to_link_is_no_failure(local, monkeypatch):
    """NFS: the server linked, its answer got lost, the kernel asked again and was told that the name is taken."""
    link = os.link

    def link_twice(*arguments, **options):
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", link_twice)
    local.put("a/b", b"1", if_absent=True)
    assert local.get("a/b") == b"1"
    with pytest.raises(AlreadyExists):
        local.put("a/b", b"2", if_absent=True)
    assert local.get("a/b") == b"1"


def test_a_listing_that_meets_an_error_raises(local, monkeypatch):
    for key in ("a/b", "c/d", "e/f"):
        local.put(key, b"1")
    scandir, seen = os.scandir, []

    def fail_third(directory):
        seen.append(directory)
        if len(seen) == 3:
            raise OSError(5, "Input/output error")
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", fail_third)
    with pytest.raises(Unavailable, match="Input/output error") as caught:
        list(local.list())
    assert caught.value.transient


def test_a_listing_is_of_files_as_they_are(local):
    local.put("a", b"123")
    local.put("b/c", b"")
    assert sorted(local.list()) == [ObjectInfo("a", 3), ObjectInfo("b/c", 0)]


def test_file_descriptors_are_not_leaked(local):
    local.put("a/b/c/d", b"1")
    with nothing_left_open():
        for _ in range(3):
            local.put("a/b/c/d", b"1")
            with pytest.raises(AlreadyExists):
                local.put("a/b/c/d", b"1", if_absent=True)
            with pytest.raises(NotFound):
                local.get("a/b")
            with pytest.raises(NotFound):
                local.get("a/x/y")
            list(local.list())
            next(local.list())
            local.delete("a/b/c/x")


class TestDoctor:
    def levels(self, path):
        return [finding.level for finding in Local(LocalOptions(path=path)).check()]

    def test_all_is_well(self, root):
        assert self.levels(root)[0] is Level.OK
        assert list(root.iterdir()) == []

    def test_a_missing_root_is_a_warning_if_it_can_be_made(self, root):
        assert self.levels(root / "new") == [Level.WARNING]
        assert self.levels(root / "not" / "there") == [Level.ERROR]
        (root / "file").write_bytes(b"")
        assert self.levels(root / "file") == [Level.ERROR]
