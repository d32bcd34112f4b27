"""Files and programs of a host: the same on this machine and by ssh to a real sshd."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from vbackup.api import AccessDenied, AlreadyExists, NoSpace, NotFound, Unavailable, Unsupported, VBackupError
from vbackup_qemu.host import Host, SshHost

NASTY = "a b'c\"$(touch x);*\n-é"


def test_a_program_gets_its_input_and_arguments_as_they_are(host: Host) -> None:
    done = host.run(["sh", "-c", 'cat; printf %s "$1" >&2', "sh", NASTY], input=b"\x00\xff")
    assert (done.stdout, done.stderr, done.returncode) == (b"\x00\xff", NASTY, 0)


def test_a_program_that_fails_raises_what_it_said(host: Host) -> None:
    with pytest.raises(VBackupError, match="broken"):
        host.run(["sh", "-c", "echo broken >&2; exit 3"])
    assert host.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_a_program_that_is_not_there_is_unsupported(host: Host) -> None:
    with pytest.raises(Unsupported, match="qemu-nothing is not installed"):
        host.run(["qemu-nothing"])


def test_files_are_written_whole_and_read_back(host: Host, tmp_path: Path) -> None:
    path = tmp_path / NASTY
    host.write_file(path, b"one", 0o640)
    host.write_file(path, b"\x00two", 0o600)
    assert host.read_file(path) == b"\x00two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [n for n in host.list_dir(tmp_path) if n != "bin"] == [NASTY]


def test_a_file_that_cannot_be_written_leaves_the_old_one(host: Host, tmpfs: Path) -> None:
    path = tmpfs / "file"
    host.write_file(path, b"old")
    with pytest.raises(NoSpace):
        host.write_file(path, bytes(16 << 20))
    assert host.read_file(path) == b"old"
    assert host.list_dir(tmpfs) == ["file"]


def test_what_is_missing_is_not_found(host: Host, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert not host.exists(missing)
    for attempt in (host.read_file, host.list_dir, host.free_bytes):
        with pytest.raises(NotFound):
            attempt(missing)
    with pytest.raises(NotFound):
        host.write_file(missing / "file", b"")


def test_a_private_directory_is_made_once_and_removed_with_all_in_it(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "parent" / NASTY
    host.make_private_dir(path, (12345, 54321))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 12345, 54321)
    with pytest.raises(AlreadyExists):
        host.make_private_dir(path)
    host.write_file(path / "file", b"x")
    host.remove_tree(path)
    host.remove_tree(path)
    assert not host.exists(path)


def test_removing_a_link_leaves_what_it_points_to(host: Host, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert host.exists(tmp_path / "link")
    host.remove_tree(tmp_path / "link")
    assert host.exists(tmp_path / "target")
    assert not host.exists(tmp_path / "link")


def test_free_space_is_in_bytes(host: Host, tmpfs: Path) -> None:
    assert host.free_bytes(tmpfs) == 8 << 20


def test_a_socket_of_the_host_is_reached_from_here(host: Host, sockets: Path) -> None:
    path = sockets / "server"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        with host.local_socket(path) as local, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(local))
            assert client.recv(5) == b"hello"
        thread.join()


def test_a_process_ends_when_it_is_stopped(host: Host, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with host.spawn(["sh", "-c", 'echo $$; read -r _; touch "$1"', "sh", str(done)], "the test") as process:
        assert process.line().isdigit()
        assert not done.exists()
    assert done.exists()
    process.stop()


def test_a_process_that_fails_to_start_says_why(host: Host) -> None:
    argv = ["sh", "-c", "echo /x: No such file or directory >&2; exit 1"]
    with host.spawn(argv, "serving /x failed") as process, pytest.raises(NotFound, match="serving /x failed"):
        process.line()


def test_an_ssh_host_that_does_not_answer_is_unavailable(ssh: SshHost) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = SshHost("127.0.0.1", probe.getsockname()[1])
        with pytest.raises(Unavailable, match="Connection refused"):
            nobody.run(["true"])
        with pytest.raises(VBackupError, match="no tunnel"), nobody.local_socket("/x"):
            pass


def test_a_key_that_is_not_accepted_is_access_denied(ssh: SshHost, sshd: tuple[int, Path], tmp_path: Path) -> None:
    port, directory = sshd
    with pytest.raises(AccessDenied, match="Permission denied"):
        SshHost("127.0.0.1", port, directory / "host").run(["true"])


def test_a_host_that_is_not_known_is_access_denied(sshd: tuple[int, Path], ssh: SshHost) -> None:
    port, directory = sshd
    with pytest.raises(AccessDenied, match="verification failed"):
        SshHost("localhost", port, directory / "key").run(["true"])


def test_a_destination_is_never_taken_as_an_option(ssh: SshHost) -> None:
    with pytest.raises(VBackupError):
        SshHost("-oProxyCommand=touch${IFS}/tmp/x").run(["true"])


def test_programs_speak_english(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert host.run(["sh", "-c", "printf %s $LC_ALL"]).stdout == b"C"
    assert os.environ["LC_ALL"] == "de_DE.UTF-8"
