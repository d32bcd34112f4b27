from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vbackup_qemu.host import Host, LocalHost, SshHost


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A private directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="vb-") as directory:
        yield Path(directory)


@pytest.fixture
def local() -> LocalHost:
    return LocalHost()


@pytest.fixture(scope="session")
def sshd() -> Iterator[tuple[int, Path]]:
    """A real sshd on loopback for our own user: its port, and a directory with ``key`` and ``config``."""
    with tempfile.TemporaryDirectory(prefix="vb-ssh-") as name:
        directory = Path(name)
        for key in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        host_key = (directory / "host.pub").read_text().split()
        (directory / "known").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
        (directory / "config").write_text(f"UserKnownHostsFile {directory}/known\n")
        (directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/key.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
            "PermitRootLogin yes\nMaxStartups 100\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        argv = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "sshd_config")]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            assert "listening" in server.stderr.readline()
            try:
                yield port, directory
            finally:
                server.terminate()
                server.communicate()


@pytest.fixture
def ssh(sshd: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshHost:
    """The loopback host by ssh; a script stands in for the user's ~/.ssh/config."""
    port, directory = sshd
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "ssh"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return SshHost("127.0.0.1", port, directory / "key")


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> Host:
    found: Host = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device of 8 MiB full of garbage."""
    file = tmp_path / "loop.bin"
    file.write_bytes(b"\xee" * (8 << 20))
    argv = ["losetup", "--show", "-f", str(file)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
