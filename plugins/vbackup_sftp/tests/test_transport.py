"""What is special about files behind SSH."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers.daemon import Daemons
from tests.servers.processes import traced
from tests.servers.sshd import Sshd
from vbackup.api import NotFound, Unavailable, Unsupported
from vbackup.wrappers.retry import RetryingTransport


def test_what_is_put_is_durable_before_its_name_is(sftp, sshd, root, tmp_path):
    """Seen from the server: fsync, the name, fsync of its directory; new directories before what is in them."""
    transport = sftp()
    transport.put("a", b"1")
    with traced(sshd.pid, tmp_path / "log", "fsync", "rename", "link", "unlink", "mkdir") as calls:
        transport.put("b/c", b"1")
        transport.put("b/d", b"1", if_absent=True)
        transport.delete("b/d")
    first, second = (call.split()[1] for call in calls if call.startswith("fsync .tmp-"))
    assert calls == [
        f"fsync {first}",
        "mkdir b",
        f"fsync {root.name}",
        f"rename {first} c",
        "fsync b",
        f"fsync {second}",
        f"link {second} d",
        f"unlink {second}",
        "fsync b",
        "unlink d",
        "fsync b",
    ]


def test_others_may_not_read_what_is_put(sftp, root):
    sftp().put("a/b", b"1")
    assert (root / "a").stat().st_mode & 0o777 == 0o700
    assert (root / "a/b").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_name_that_is_in_the_way(sftp, if_absent):
    """An object and a directory cannot have one name."""
    transport = sftp()
    transport.put("a/b", b"1")
    with pytest.raises(Unsupported, match="a/b/c is in the way"):
        transport.put("a/b/c", b"2", if_absent=if_absent)
    if not if_absent:
        with pytest.raises(Unsupported, match="/a is in the way"):
            transport.put("a", b"2")
    assert [info.key for info in transport.list()] == ["a/b"]


def test_create_makes_the_last_directory_only(sftp, root):
    transport = sftp(root / "new")
    transport.create()
    transport.create()
    transport.put("a", b"1")
    assert (root / "new/a").read_bytes() == b"1"
    with pytest.raises(Unavailable):
        sftp(root / "x/y").create()


def test_a_server_that_falls_silent(sftp, root):
    """Connections that were open end as new ones do; afterwards all goes on."""
    with Daemons("sshd") as daemons:
        server = Sshd(daemons)
        transport = sftp(root, server, timeout=1)
        transport.put("a", b"1")
        server.freeze()
        for action in (lambda: transport.get("a"), lambda: transport.put("b", b"2"), lambda: list(transport.list())):
            with pytest.raises(Unavailable, match="did not answer within 1 s") as caught:
                action()
            assert caught.value.transient
        server.thaw()
        assert transport.get("a") == b"1"


def test_a_job_outlives_its_server(sftp, root):
    """Killed in the middle of puts and started again: every put succeeds, and all bytes are there."""
    objects = {f"packs/{number}": bytes([number]) * (4 << 20) for number in range(12)}
    begun = threading.Semaphore(0)
    with Daemons("sshd") as daemons:
        server = Sshd(daemons)
        transport = RetryingTransport(sftp(root, server), 60)

        def put(key):
            begun.release()
            transport.put(key, objects[key], if_absent=True)

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(put, key) for key in objects]
            for _ in range(5):
                begun.acquire()
            server.kill()
            server.start()
            for each in done:
                each.result()
        assert {info.key: info.size for info in transport.list()} == dict.fromkeys(objects, 4 << 20)
        assert all(transport.get(key) == data for key, data in objects.items())


def test_a_socket_is_no_object(sftp, root):
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(root / "a"))
    transport = sftp()
    assert list(transport.list()) == []
    with pytest.raises(NotFound):
        transport.size("a")


def test_what_is_there_or_gone_already_is_durable(sftp, sshd, root, tmp_path):
    """Whoever made or deleted it may have lost the connection before it was: repeated, both are made durable."""
    (root / "b").mkdir()
    transport = sftp()
    transport.put("a", b"1")
    with traced(sshd.pid, tmp_path / "log", "fsync") as calls:
        transport.delete("b/gone")
        transport.delete("no/directory")
        transport.put("b/c", b"1")
    assert [call for call in calls if not call.startswith("fsync .tmp-")] == [
        "fsync b",
        f"fsync {root.name}",
        "fsync b",
    ]


def test_a_root_whose_parent_nobody_may_read(sftp, sshd, root):
    """It was made for us: there is nothing of ours to make durable."""
    (root / "private/store").mkdir(parents=True)
    (root / "private/store").chmod(0o777)
    (root / "private").chmod(0o711)
    root.chmod(0o711)
    transport = sftp(root / "private/store", user="nobody")
    transport.create()
    transport.put("a", b"1")


@pytest.mark.parametrize("if_absent", [False, True])
def test_another_file_system_below_the_root(sftp, sshd, root, if_absent):
    """No file can be named there: trying again is no use."""
    (root / "a").mkdir()
    sshd.mount("-t", "tmpfs", "tmpfs", root / "a")
    with pytest.raises(Unavailable, match="on another file system") as caught:
        sftp().put("a/b", b"1", if_absent=if_absent)
    assert not caught.value.transient
