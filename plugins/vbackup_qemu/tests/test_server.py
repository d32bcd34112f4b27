"""qemu-nbd for the time of a context: locks, errors, and that it ends whatever happens to us."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vbackup.api import Busy, CaptureLost, ConfigError, NotFound, Range, Unsupported
from vbackup_qemu import image
from vbackup_qemu.host import Host, LocalHost
from vbackup_qemu.nbd import NbdClient
from vbackup_qemu.server import serve

SIZE = 4 << 20


@pytest.fixture(params=["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "a:b, c"
    image.create(LocalHost(), path, request.param, SIZE)
    return path, request.param


def server_pids(path: Path) -> list[int]:
    """The qemu-nbd processes that serve an image."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv.startswith(b"qemu-nbd\0") and str(path).encode() in argv:
            found.append(int(entry.name))
    return found


def write(path: Path, kind: str) -> subprocess.CompletedProcess[str]:
    argv = ["qemu-io", "-f", kind, "-c", "write -P 7 0 64k", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_nobody_writes_to_an_image_while_it_is_read(host: Host, disk: tuple[Path, str], sockets: Path) -> None:
    with serve(host, *disk, sockets=sockets) as socket, NbdClient(socket) as client:
        assert "lock" in write(*disk).stderr
        (block,) = client.read([Range(0, 65536)])
        assert not any(block.data)
    assert write(*disk).returncode == 0
    assert list(sockets.iterdir()) == []


def test_an_image_that_is_written_to_is_busy(local: LocalHost, disk: tuple[Path, str], sockets: Path) -> None:
    with (
        serve(local, *disk, read_only=False, sockets=sockets),
        pytest.raises(Busy, match="in use"),
        serve(local, *disk, sockets=sockets),
    ):
        pass
    assert server_pids(disk[0]) == []


def test_a_block_device_can_be_served(local: LocalHost, loop: Path, sockets: Path) -> None:
    with serve(local, loop, "raw", sockets=sockets) as socket, NbdClient(socket) as client:
        assert client.size == 8 << 20
        assert "lock" in write(loop, "raw").stderr


def test_what_a_guest_wrote_into_a_raw_disk_is_never_taken_as_a_header(
    local: LocalHost, tmp_path: Path, sockets: Path
) -> None:
    secret, path = tmp_path / "secret", tmp_path / "disk.raw"
    secret.write_bytes(b"secret" * 1000)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(path), "1M"], check=True
    )
    with serve(local, path, "raw", sockets=sockets) as socket, NbdClient(socket) as client:
        (block,) = client.read([Range(0, 4096)])
    assert bytes(block.data) == path.read_bytes()[:4096]
    assert image.info(local, path, "raw").backing is None


def test_errors_name_the_image(host: Host, tmp_path: Path, sockets: Path) -> None:
    with pytest.raises(NotFound, match="nothing"), serve(host, tmp_path / "nothing", "raw", sockets=sockets):
        pass
    with pytest.raises(ConfigError), serve(host, "relative", "raw", sockets=sockets):
        pass
    with pytest.raises(ConfigError, match="too long"), serve(host, tmp_path, "raw", sockets=tmp_path / ("x" * 100)):
        pass


def test_without_qemu_nbd_the_user_is_told_what_to_install(
    local: LocalHost, tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "cat"):
        (programs / program).symlink_to(f"/bin/{program}")
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Unsupported) as caught, serve(local, tmp_path / "x", "raw", sockets=sockets):
        pass
    assert "qemu-utils" in caught.value.hint


def test_a_server_that_was_killed_ends_the_context_in_order(
    local: LocalHost, disk: tuple[Path, str], sockets: Path
) -> None:
    with serve(local, *disk, sockets=sockets) as socket, NbdClient(socket) as client:
        (pid,) = server_pids(disk[0])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CaptureLost):
            list(client.read([Range(0, 512)]))


def test_a_server_that_nobody_reaps_is_not_waited_for(tmp_path: Path, sockets: Path) -> None:
    """As in a container whose first process is no init. Each wait is a call of a ``sleep`` that counts."""
    path, waits, counting = tmp_path / "disk.qcow2", tmp_path / "waits", tmp_path / "sleep"
    image.create(LocalHost(), path, "qcow2", SIZE)
    counting.write_text(f"#!/bin/sh\necho >>'{waits}'\nexec /bin/sleep $1\n")
    counting.chmod(0o755)
    script = f"""
import ctypes, sys
from pathlib import Path
from vbackup_qemu.host import LocalHost
from vbackup_qemu.server import serve
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
with serve(LocalHost(), '{path}', 'qcow2', sockets=Path('{sockets}')):
    pass
"""
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert len(waits.read_text().splitlines() if waits.exists() else []) < 100


@pytest.mark.parametrize("kind", ["local", "ssh"])
@pytest.mark.parametrize("connected", [False, True])
def test_when_we_are_killed_the_server_ends(
    tmp_path: Path, sockets: Path, kind: str, connected: bool, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "disk.qcow2"
    image.create(LocalHost(), path, "qcow2", SIZE)
    host = "LocalHost()"
    if kind == "ssh":
        request.getfixturevalue("ssh")
        port, directory = request.getfixturevalue("sshd")
        host = f"SshHost('127.0.0.1', {port}, Path('{directory}/key'))"
    script = f"""
import sys
from pathlib import Path
from vbackup_qemu.host import LocalHost, SshHost
from vbackup_qemu.nbd import NbdClient
from vbackup_qemu.server import serve
with serve({host}, '{path}', 'qcow2', sockets=Path('{sockets}')) as socket:
    client = NbdClient(socket) if {connected} else None
    print('ready', flush=True)
    sys.stdin.read()
"""
    argv = [sys.executable, "-c", script]
    environment = os.environ | {"TMPDIR": str(sockets)}  # what the child leaves behind lies there
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        (pid,) = server_pids(path)
        server = os.pidfd_open(pid)
        for entry in sockets.glob("*.*"):
            entry.unlink()  # as a sweep may do before the shell notices
        child.kill()
        ended, _, _ = select.select([server], [], [], 60)
        os.close(server)
        assert ended
    assert write(path, "qcow2").returncode == 0
