"""Full and read-only file systems, those without hard links, and death at any step, for real."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import pytest

from vbackup.api import AccessDenied, Level, NoSpace
from vbackup.testing.transport_contract import FullContract, ReadOnlyContract
from vbackup_local.transport import Local, LocalOptions

KIB = 1 << 10
STEPS = ("mkdir", "open", "write", "fsync", "link", "rename", "unlink", "close")


@contextmanager
def mounted(path, kind, *options):
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, *options, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def tiny(tmp_path):
    """A file system of 1 MiB and few inodes."""
    with mounted(tmp_path / "tiny", "tmpfs", "-o", "size=1m,nr_inodes=24", "vbackup-test") as path:
        yield path


@pytest.fixture
def read_only(tmp_path):
    with mounted(tmp_path / "read-only", "tmpfs", "-o", "size=1m", "vbackup-test") as path:
        Local(LocalOptions(path=path)).put("a/b", b"there")
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
        yield path


class TestLocalFaults(FullContract, ReadOnlyContract):
    room = 8

    @pytest.fixture
    def full(self, tmp_path):
        with mounted(tmp_path / "full", "tmpfs", "-o", f"size={self.room}m", "vbackup-test") as path:
            yield Local(LocalOptions(path=path))

    @pytest.fixture
    def read_only(self, tmp_path):
        with mounted(tmp_path / "read-only", "tmpfs", "-o", "size=1m", "vbackup-test") as path:
            Local(LocalOptions(path=path)).put("a/b", b"there")
            subprocess.run(["mount", "-o", "remount,ro", path], check=True)
            yield Local(LocalOptions(path=path))


def names(path):
    return sorted(name for _, _, files in os.walk(path) for name in files)


def test_a_full_file_system_takes_nothing_and_loses_nothing(tiny):
    local = Local(LocalOptions(path=tiny))
    local.put("packs/a", bytes(600 * KIB))
    for if_absent in (True, False):
        for size in (500, 2000):
            with pytest.raises(NoSpace, match="packs/b") as caught:
                local.put("packs/b", bytes(size * KIB), if_absent=if_absent)
            assert not caught.value.transient
            assert caught.value.hint
    with pytest.raises(NoSpace):
        local.put("packs/a", b"x" * 600 * KIB)
    assert names(tiny) == ["a"]
    assert local.get("packs/a") == bytes(600 * KIB)
    local.put("packs/c", bytes(100 * KIB), if_absent=True)
    local.delete("packs/a")
    local.put("packs/b", bytes(800 * KIB), if_absent=True)


def fill(local, directories):
    for number in range(directories):
        local.put(f"directory-{number}/a", b"")


def test_a_file_system_without_inodes_is_full(tiny):
    local = Local(LocalOptions(path=tiny))
    with pytest.raises(NoSpace):
        fill(local, 30)
    stored = [info.key for info in local.list()]
    assert stored
    for key in stored:
        local.delete(key)
    assert names(tiny) == []


def test_a_read_only_file_system_is_read_and_not_written(read_only):
    local = Local(LocalOptions(path=read_only))
    assert local.get("a/b") == b"there"
    assert [info.key for info in local.list()] == ["a/b"]
    actions = (
        lambda: local.put("a/b", b"1"),
        lambda: local.put("a/c", b"1", if_absent=True),
        lambda: local.put("c/d", b"1"),
        lambda: local.delete("a/b"),
        lambda: Local(LocalOptions(path=read_only / "new")).create(),
    )
    for action in actions:
        with pytest.raises(AccessDenied, match="Read-only"):
            action()
    assert [finding.level for finding in local.check()] == [Level.ERROR]


def test_a_directory_that_refuses_changes_is_access_denied(tmp_path):
    """chattr +i stands in for missing permissions, which do not stop root."""
    local = Local(LocalOptions(path=tmp_path))
    local.put("a/b", b"1")
    subprocess.run(["chattr", "+i", tmp_path / "a" / "b"], check=True)
    try:
        for action in (lambda: local.put("a/b", b"2"), lambda: local.delete("a/b")):
            with pytest.raises(AccessDenied):
                action()
    finally:
        subprocess.run(["chattr", "-i", tmp_path / "a" / "b"], check=True)
    assert local.get("a/b") == b"1"
    assert names(tmp_path) == ["b"]


def run_with_fault(root, fault, work, *, only_root=True):
    """Run ``work`` in a process whose system calls fail as strace(1) is told; return what it said."""
    script = (
        "import sys; from pathlib import Path\n"
        "from vbackup.api import VBackupError\n"
        "from vbackup_local.transport import Local, LocalOptions\n"
        "local = Local(LocalOptions(path=Path(sys.argv[1])))\n"
        f"try: {work}\n"
        "except VBackupError as error: print(error.kind, error.transient, error)\n"
        "else: print('done')\n"
    )
    strace = ["strace", "-f", "-o", "/dev/null", *(["-P", root] if only_root else []), "-e", f"inject={fault}"]
    done = subprocess.run([*strace, sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_hard_links_says_so(tmp_path, error):
    """FAT answers EPERM, others otherwise."""
    said = run_with_fault(tmp_path, f"linkat:error={error}", "local.put('a/b', b'1', if_absent=True)")
    assert said.startswith("unsupported False")
    assert "hard links" in said
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("EDQUOT", "no-space False"),
        ("EIO", "unavailable True"),
        ("ESTALE", "unavailable True"),
        ("EROFS", "access-denied"),
    ],
)
@pytest.mark.parametrize("call", ["openat", "linkat", "mkdirat"])
def test_errors_of_the_system_are_told_as_ours(tmp_path, call, error, expected):
    said = run_with_fault(tmp_path, f"{call}:error={error}", "local.put('a/b', b'1', if_absent=True)")
    assert said.startswith(expected)
    assert os.strerror(getattr(errno, error)) in said
    assert str(tmp_path) in said
    assert names(tmp_path) == []


@pytest.mark.parametrize("work", ["local.get('a')", "local.size('a')", "list(local.list())", "local.delete('a')"])
def test_a_disk_that_fails_is_never_an_object_that_is_missing(tmp_path, work):
    Local(LocalOptions(path=tmp_path)).put("a", b"1")
    assert run_with_fault(tmp_path, "openat:error=EIO", work).startswith("unavailable True")


@pytest.mark.parametrize(("failing", "stored"), [(1, []), (2, ["a"])])
def test_what_cannot_be_made_durable_is_an_error(tmp_path, failing, stored):
    """The first fsync is of the data, before they have a name; the second is of the name."""
    said = run_with_fault(tmp_path, f"fsync:error=EIO:when={failing}", "local.put('a', b'1')", only_root=False)
    assert said.startswith("unavailable True")
    assert names(tmp_path) == stored


def killed_at(number, work):
    """Run ``work`` in a child that kills itself at its ``number``-th step; whether it came that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(function):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for step in STEPS:
            setattr(os, step, dying(getattr(os, step)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("if_absent", [True, False])
@pytest.mark.parametrize("before", [None, b"before"])
def test_killed_at_any_step_an_object_is_whole_or_as_before(tmp_path, if_absent, before):
    data = b"after " * 1000
    key = "points/machine/one"
    number = 0
    died = True
    outcomes = set()
    while died:
        number += 1
        root = tmp_path / str(number)
        root.mkdir()
        if before is not None:
            Local(LocalOptions(path=root)).put(key, before)
        local = Local(LocalOptions(path=root))
        died = killed_at(number, partial(local.put, key, data, if_absent=if_absent))
        outcomes.add(check_store(root, key, before, data))
    assert number > 12
    assert outcomes == ({before} if if_absent and before else {before, data})


def check_store(root, key, before, data):
    """Whatever was killed, the store is in order, hides the rest, and takes the next put."""
    local = Local(LocalOptions(path=root))
    listed = {info.key: local.get(info.key) for info in local.list()}
    assert listed in ({}, {key: before}, {key: data})
    assert all(name == "one" or name.startswith(".tmp-") for name in names(root))
    local.put("points/machine/two", b"next", if_absent=True)
    assert local.get("points/machine/two") == b"next"
    return listed.get(key)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_killed_while_creating_the_place_it_can_be_created_again(tmp_path):
    number = 0
    died = True
    while died:
        number += 1
        root = tmp_path / str(number)
        died = killed_at(number, Local(LocalOptions(path=root)).create)
        Local(LocalOptions(path=root)).create()
        Local(LocalOptions(path=root)).put("repository", b"1", if_absent=True)
    assert number > 2


def test_everything_is_durable_before_the_next_step(tmp_path):
    """The order of system calls: data, then its name, then the directory; new directories before what is in them."""
    log = tmp_path / "strace"
    root = tmp_path / "root"
    root.mkdir()
    script = (
        "import sys; from pathlib import Path; from vbackup_local.transport import Local, LocalOptions\n"
        "local = Local(LocalOptions(path=Path(sys.argv[1]))); local.put('a/b/c', b'data', if_absent=True)\n"
        "local.put('a/b/c', b'more'); local.delete('a/b/c')"
    )
    calls = "trace=mkdirat,write,fsync,linkat,renameat,renameat2,unlinkat"
    subprocess.run(["strace", "-f", "-y", "-e", calls, "-o", log, sys.executable, "-c", script, root], check=True)
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if str(root) in line]
    steps = [(line.split("(")[0], line.split("<")[1].split(">")[0].removeprefix(str(root))) for line in lines]
    temporary = [where for call, where in steps if call == "write"]
    assert len(temporary) == 2
    assert all(where.startswith("/.tmp-") for where in temporary)
    assert steps == [
        ("mkdirat", ""), ("fsync", ""), ("mkdirat", "/a"), ("fsync", "/a"),
        ("write", temporary[0]), ("fsync", temporary[0]), ("linkat", ""), ("fsync", "/a/b"), ("unlinkat", ""),
        ("mkdirat", ""), ("mkdirat", "/a"),
        ("write", temporary[1]), ("fsync", temporary[1]), ("renameat", ""), ("fsync", "/a/b"), ("unlinkat", ""),
        ("unlinkat", "/a/b"), ("fsync", "/a/b"),
    ]  # fmt: skip
