"""Many processes, several hosts, and deaths of all kinds."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers.daemon import end
from vbackup.api import AccessDenied, Busy, Level, NotFound, Unavailable
from vbackup.testing.lab.libvirtd import until
from vbackup.testing.transport_contract.base import patiently
from vbackup_iscsi.options import Timing

MIB = 1 << 20
HASTY = Timing(renew=0.2, lease=3, takeover=6, settle=1, connect=4, unacknowledged=1)

USER = """
import pickle, sys
from pathlib import Path
from vbackup_iscsi.transport import Iscsi
options, runtime, timing = pickle.loads(bytes.fromhex(sys.stdin.readline()))
transport = Iscsi(options, runtime=runtime, timing=timing)
transport.put("of-another", b"1")
print("attached", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other_user(host, formatted):
    """Another process of the host that has the LUN attached."""
    transport = host.open(formatted)
    given = pickle.dumps((transport._options, host.runtime, transport._timing)).hex()
    process = subprocess.Popen([sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        process.stdin.write(given + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "attached\n"
        yield process
        process.kill()


@pytest.fixture
def bystander(tmp_path):
    """A loop device and a mount that are not ours."""
    image, mount = tmp_path / "lun", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    (mount / "file").write_text("theirs")
    yield mount / "file"
    subprocess.run(["umount", str(mount)], check=True)


def gone(host):
    until(lambda: host.traces() == [], "the end of the attachment")


def test_closing_undoes_everything(formatted, host, bystander):
    transport = host.open(formatted)
    transport.put("a", b"1")
    assert len(host.traces()) > 5
    transport.close()
    assert host.traces() == []
    assert bystander.read_text() == "theirs"
    assert transport.get("a") == b"1", "a later operation attaches it again"


def test_processes_of_a_host_share_it(formatted, host, other_user):
    keeper = host.processes()["keeper"]
    one, two = host.open(formatted), host.open(formatted)
    one.put("a", b"1")
    assert two.get("a") == b"1"
    assert two.get("of-another") == b"1"
    one.close()
    two.close()
    assert host.processes()["keeper"] == keeper, "the other process still uses it"
    other_user.communicate("\n")
    gone(host)


def test_coming_and_going_at_once(formatted, host):
    def come_and_go(number):
        transport = host.open(formatted)
        transport.put(f"{number}", b"1")
        transport.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(16)))
    assert host.traces() == []
    assert len(list(host.open(formatted).list())) == 16


def test_killed_user(host, other_user, bystander):
    """Nothing of it stays, without anybody's next run."""
    other_user.kill()
    gone(host)
    assert bystander.read_text() == "theirs"


@pytest.mark.parametrize("victims", [["keeper"], ["keeper", "qemu-storage-daemon", "nbdfuse"], ["nbdfuse"]])
def test_killed_keeper(formatted, host, other_user, bystander, victims):
    """The kernel undoes what it had made; the next one that comes finds the LUN as it was."""
    transport = host.open(formatted)
    transport.put("a", b"1")
    processes = host.processes()
    for name in victims:
        end(processes[name])
    other_user.kill()
    assert patiently(lambda: transport.get("a"), 60) == b"1"
    assert patiently(lambda: transport.get("of-another"), 60) == b"1"
    transport.close()
    gone(host)
    assert bystander.read_text() == "theirs"


def test_everything_killed_at_once(formatted, host, other_user, bystander):
    for pid in host.processes().values():
        os.kill(pid, signal.SIGKILL)
    other_user.kill()
    transport = host.open(formatted)
    assert patiently(lambda: transport.get("of-another"), 60) == b"1"
    transport.close()
    gone(host)
    assert bystander.read_text() == "theirs"


def test_terminated_initiator_goes_on(formatted, host):
    """systemd ends all processes of a service at once, and some of them still have to write."""
    transport = host.open(formatted)
    transport.put("a", b"1")
    for pid in host.processes().values():
        os.kill(pid, signal.SIGTERM)
    transport.put("b", b"2")
    assert transport.get("b") == b"2"
    transport.close()
    assert host.traces() == []


def test_away_for_a_moment(formatted, host, tgtd):
    transport = host.open(formatted)
    transport.put("a", b"1")
    data = os.urandom(48 * MIB)
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(patiently, lambda: transport.put("big", data), 60)
        tgtd.kill()
        tgtd.start()
        put.result()
    assert transport.get("big") == data
    transport.close()
    assert host.open(formatted).get("big") == data


def test_away_for_longer_than_the_lease(formatted, host, tgtd):
    transport = host.open(formatted)
    transport.put("a", b"1")
    tgtd.kill()
    try:
        with pytest.raises(Unavailable, match="b: ") as caught:
            transport.put("b", b"2")
        assert caught.value.transient
        with pytest.raises(Unavailable) as caught:
            transport.get("a")
        assert caught.value.transient
        assert host.traces() == []
    finally:
        tgtd.start()
    assert patiently(lambda: transport.get("a"), 60) == b"1"
    transport.put("b", b"3")
    assert transport.get("b") == b"3"


def test_a_second_host_is_refused(formatted, make_host):
    one, two = make_host().open(formatted), make_host().open(formatted)
    one.put("a", b"1")
    for action in (lambda: two.get("a"), two.create):
        with pytest.raises(Busy, match=os.uname().nodename) as caught:
            action()
        assert caught.value.transient
        assert caught.value.hint
    one.close()
    assert two.get("a") == b"1"


def test_the_same_lun_by_another_name_is_refused(formatted, host):
    """Its lock is another one, and so the LUN itself has to tell."""
    one = host.open(formatted)
    one.put("a", b"1")
    alias = host.open(formatted, portal=one._options.portal.replace("127.0.0.1", "localhost"))
    with pytest.raises(Busy):
        alias.get("a")
    one.close()
    assert alias.get("a") == b"1"


def test_another_lun_in_its_place_is_left_alone(formatted, host, tgtd):
    """What is cached of the lost one must not be written to it."""
    transport = host.open(formatted, HASTY)
    transport.put("a", b"1")
    tgtd.kill()
    formatted.image.write_bytes(bytes(8 * MIB))
    os.truncate(formatted.image, 1 << 30)
    tgtd.start()
    until(lambda: host.traces() == [], "the end of the attachment")
    with pytest.raises(Unavailable, match="blank"):
        transport.put("b", b"2")
    assert not any(formatted.image.read_bytes()[: 8 * MIB])


def test_a_keeper_that_stands_still_is_cut_off(formatted, make_host):
    """Its users could go on writing while another host has the LUN."""
    one, two = make_host(), make_host()
    first, second = one.open(formatted, HASTY), two.open(formatted, HASTY)
    first.put("a", b"1")
    keeper = one.processes()["keeper"]
    os.kill(keeper, signal.SIGSTOP)
    try:
        until(lambda: "qemu-storage-daemon" not in one.processes(), "the end of its initiator")
        assert patiently(lambda: second.get("a"), 60) == b"1"
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_a_connection_that_cannot_be_seen_is_not_trusted(formatted, host, monkeypatch):
    """Else nothing would be noticed, and nobody told."""
    monkeypatch.setattr("vbackup_iscsi.attachment.sockets", lambda process: frozenset())
    with pytest.raises(Unavailable, match="was lost"):
        host.open(formatted).put("a", b"1")


def test_many_hosts_at_once(formatted, make_host):
    transports = [make_host().open(formatted, HASTY) for _ in range(4)]
    barrier = threading.Barrier(len(transports))

    def attach(transport):
        barrier.wait()
        try:
            transport.size("a")
        except NotFound:
            return True
        except Busy:
            return False
        return None

    with ThreadPoolExecutor(len(transports)) as pool:
        assert sorted(pool.map(attach, transports)) == [False, False, False, True]


def test_a_dead_host_is_succeeded(formatted, make_host):
    one, two = make_host(), make_host()
    first = one.open(formatted, HASTY)
    first.put("a", b"1")
    end(one.processes()["keeper"])
    second = two.open(formatted, HASTY)
    assert patiently(lambda: second.get("a"), 60) == b"1"
    with pytest.raises(Busy):
        one.open(formatted, HASTY).get("a")


def test_a_host_that_wakes_up_after_it_was_succeeded(formatted, make_host):
    """It is cut off before it does harm, and hears that another host has the LUN."""
    one, two = make_host(), make_host()
    first, second = one.open(formatted, HASTY), two.open(formatted, HASTY)
    first.put("a", b"1")
    asleep = list(one.processes().values())
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        patiently(lambda: second.put("a", b"2"), 60)
    finally:
        for pid in asleep:
            with contextlib.suppress(ProcessLookupError):  # one that was about to end anyway
                os.kill(pid, signal.SIGCONT)
    until(lambda: one.traces() == [], "the end of the first attachment")
    with pytest.raises(Busy):
        first.put("a", b"3")
    assert second.get("a") == b"2"
    second.close()
    assert first.get("a") == b"2"


def test_the_password_is_nowhere(formatted, host, tgtd):
    transport = host.open(formatted)
    transport.put("a", b"1")
    password = tgtd.password.encode()
    for pid in host.processes().values():
        for name in ("cmdline", "environ"):
            assert password not in Path(f"/proc/{pid}/{name}").read_bytes()
    files = [path for path in host.runtime.rglob("*") if path.is_file() and path.name != "lun"]
    assert files
    assert not [path for path in files if password in path.read_bytes()]
    transport.close()
    assert not [path for path in host.runtime.rglob("*") if path.is_file() and password in path.read_bytes()]


def test_only_root(formatted, host, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(AccessDenied, match="root"):
        host.open(formatted).get("a")
    assert [finding.level for finding in host.open(formatted).check()] == [Level.ERROR]


def test_programs_that_are_missing(formatted, host, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = [finding for finding in host.open(formatted).check() if finding.level is Level.ERROR]
    assert {"nbdfuse", "mkfs.xfs", "qemu-storage-daemon"} <= {finding.what for finding in findings}
    assert all("apt-get install" in finding.hint for finding in findings)


def test_doctor(formatted, host):
    findings = host.open(formatted).check()
    assert {finding.level for finding in findings} == {Level.OK}
    assert "userspace" in findings[0].detail
    assert "free" in findings[-1].detail
