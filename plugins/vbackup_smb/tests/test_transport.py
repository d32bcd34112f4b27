"""What is special about files of a share."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from smbprotocol.open import Open

from tests.servers.daemon import Daemons
from tests.servers.processes import traced
from tests.servers.samba import Samba
from vbackup.api import Unavailable, Unsupported
from vbackup.wrappers.retry import RetryingTransport
from vbackup_smb.listing import parsed


def test_what_is_put_is_durable_before_its_name_is(smb, samba, root, tmp_path):
    """Seen from the server: fsync, the name, fsync of its directory; new directories before what is in them."""
    transport = smb()
    transport.put("a", b"1")
    calls = "fsync", "fdatasync", "renameat", "linkat", "unlinkat", "mkdirat"
    with traced(samba.pid, tmp_path / "log", *calls) as seen:
        transport.put("b/c", b"1")
        transport.put("b/d", b"1", if_absent=True)
        transport.delete("b/d")
    first, second = (call.split()[1] for call in seen if call.startswith("fsync .tmp-"))
    where = root.name
    assert seen == [
        f"fsync {first}",
        f"mkdirat {where} b",
        f"fsync {where}",
        f"renameat {where} {first} b c",
        "fsync b",
        f"fsync {second}",
        f"linkat {where} {second} b d",
        f"unlinkat {where} {second}",
        "fsync b",
        "unlinkat b d",
        "fsync b",
    ]


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_name_that_is_in_the_way(smb, if_absent):
    """An object and a directory cannot have one name."""
    transport = smb()
    transport.put("a/b", b"1")
    with pytest.raises(Unsupported, match="a/b/c is in the way"):
        transport.put("a/b/c", b"2", if_absent=if_absent)
    if not if_absent:
        with pytest.raises(Unsupported, match="/a is in the way"):
            transport.put("a", b"2")
    assert [info.key for info in transport.list()] == ["a/b"]


def test_create_makes_the_last_directory_only(smb, root):
    transport = smb(f"{root.name}/new")
    transport.create()
    transport.create()
    transport.put("a", b"1")
    assert (root / "new/a").read_bytes() == b"1"
    with pytest.raises(Unavailable):
        smb(f"{root.name}/x/y").create()


def test_the_whole_share(smb):
    """A store needs no directory of its own."""
    with Daemons("samba") as daemons:
        transport = smb("", Samba(daemons))
        transport.create()
        transport.put("a/b", b"1")
        assert [info.key for info in transport.list()] == ["a/b"]
        transport.delete("a/b")
        assert list(transport.list()) == []


def test_a_server_that_falls_silent(smb):
    """Connections that were open end as new ones do; afterwards all goes on."""
    with Daemons("samba") as daemons:
        server = Samba(daemons)
        transport = smb("", server, timeout=1)
        transport.put("a", b"1")
        server.freeze()
        for action in (
            lambda: transport.get("a"),
            lambda: transport.put("b", bytes(64 << 20)),
            lambda: list(transport.list()),
        ):
            with pytest.raises(Unavailable) as caught:
                action()
            assert caught.value.transient
        server.thaw()
        assert smb("", server).get("a") == b"1"


def test_a_job_outlives_its_server(smb):
    """Killed in the middle of puts and started again: every put succeeds, and all bytes are there."""
    objects = {f"packs/{number}": bytes([number]) * (4 << 20) for number in range(12)}
    begun = threading.Semaphore(0)
    with Daemons("samba") as daemons:
        server = Samba(daemons)
        transport = RetryingTransport(smb("", server), 60)

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


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_listing_of_any_length(count):
    """Each entry says where the next one is; the last one says 0."""
    entries = [
        (104 if number < count - 1 else 0).to_bytes(4, "little")
        + bytes(20)
        + (116_444_736_000_000_000 + number * 10**7).to_bytes(8, "little")
        + bytes(8)
        + number.to_bytes(8, "little")
        + bytes(8)
        + (16 if number == 1 else 128).to_bytes(4, "little")
        + (2).to_bytes(4, "little")
        + "abc"[number].encode("utf-16-le")
        + bytes(38)
        for number in range(count)
    ]
    assert list(parsed(b"".join(entries))) == [
        (name, name != "b", name == "b", number, float(number)) for number, name in enumerate("abc"[:count])
    ]


def test_what_is_there_or_gone_already_is_durable(smb, samba, root, tmp_path):
    """Whoever made or deleted it may have lost the connection before it was: repeated, both are made durable."""
    (root / "b").mkdir()
    transport = smb()
    transport.put("a", b"1")
    with traced(samba.pid, tmp_path / "log", "fsync") as calls:
        transport.delete("b/gone")
        transport.delete("no/directory")
        transport.put("b/c", b"1")
    assert [call for call in calls if not call.startswith("fsync .tmp-")] == [
        "fsync b",
        f"fsync {root.name}",
        "fsync b",
    ]


def test_answers_that_are_short(smb, monkeypatch):
    """A server may write or give less than it was asked for; here it is asked for less."""
    write, read = Open.write, Open.read
    data = random.Random(1).randbytes(3 << 20)
    monkeypatch.setattr(Open, "write", lambda file, data, *more, **named: write(file, part(data), *more, **named))
    monkeypatch.setattr(
        Open, "read", lambda file, at, length, **named: read(file, at, len(part(bytes(length))), **named)
    )
    transport = smb()
    transport.put("a", data)
    assert transport.get("a") == data
    assert transport.get("a", 5, 2 << 20) == data[5 : 5 + (2 << 20)]
    monkeypatch.undo()
    assert transport.get("a") == data


def part(data):
    return data[: max(1, len(data) * 2 // 3)] if len(data) > 1000 else data


@pytest.mark.parametrize("if_absent", [False, True])
def test_another_file_system_below_the_root(smb, samba, root, if_absent):
    """No file can be named there: trying again is no use."""
    (root / "a").mkdir()
    samba.mount("-t", "tmpfs", "tmpfs", root / "a")
    with pytest.raises(Unsupported, match=r"not same device|0xc00000d4"):
        smb().put("a/b", b"1", if_absent=if_absent)
