"""The kernel's client: real mounts, of local directories, by programs that stand in for mount.nfs(8).

So all is tested but that what the kernel does with an NFS server.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vbackup.api import AccessDenied, Interrupted, Level, Unavailable, Unsupported, VBackupError
from vbackup.testing.transport_contract import HostsContract, MissingPlaceContract, TransportContract
from vbackup_nfs import choice, mounts
from vbackup_nfs.options import NfsOptions
from vbackup_nfs.transport import Nfs

URL = "nfs://filer.example/export"

MOUNT = """\
#!/bin/sh
# mount -t nfs -o OPTIONS -- SERVER:PATH POINT
echo "$@" >> {here}/mounted
if [ -e {here}/say ]; then cat {here}/say >&2; exit 32; fi
if [ -e {here}/wait ]; then echo > {here}/waits; read line < {here}/wait; fi
directory={here}/server/${{6#*:/}}
said="mount.nfs: mounting $6 failed, reason given by server: No such file or directory"
if ! [ -d "$directory" ]; then echo "$said" >&2; exit 32; fi
exec {mount} --bind "$directory" "$7"
"""
UMOUNT = """\
#!/bin/sh
echo "$@" >> {here}/unmounted
exec {umount} "$@"
"""


class Kernel:
    """What a kernel with NFS, and a server, do: the directory ``server`` has the server's exports."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.export = here / "server/export"
        self.export.mkdir(parents=True)
        for name, text in (("mount", MOUNT), ("umount", UMOUNT), ("modprobe", "#!/bin/sh\n"), ("mount.nfs", "")):
            program = here / name
            program.write_text(text.format(here=here, mount="/usr/bin/mount", umount="/usr/bin/umount"))
            program.chmod(0o755)

    def said(self, name: str) -> list[str]:
        """Return how a program was called, each time."""
        return (self.here / name).read_text().splitlines() if (self.here / name).exists() else []


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Stand-ins on the PATH, and an export in memory."""
    kernel = Kernel(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(choice, "_SEARCH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(mounts, "DIRECTORY", tmp_path / "run/nfs")  # other workers have theirs
    choice._kernel_has_nfs.cache_clear()
    subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "vbackup-test", kernel.export], check=True)
    yield kernel
    choice._kernel_has_nfs.cache_clear()
    subprocess.run(["/usr/bin/umount", "-l", kernel.export], check=True)


def options(**more: Any) -> NfsOptions:
    return NfsOptions(**{"url": URL, "client": "kernel"} | more)


@pytest.fixture
def nfs(kernel: Kernel) -> Iterator[Nfs]:
    with closing(Nfs(options())) as transport:
        yield transport


def points() -> set[Path]:
    """Return where something is mounted below our directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {Path(line.split()[4]) for line in lines if line.split()[4].startswith(f"{mounts.DIRECTORY}/")}


def open_at(directory: Path) -> Nfs:
    """Make a transport, also in another process."""
    mounts.DIRECTORY = directory
    return Nfs(options())


class TestKernel(HostsContract, MissingPlaceContract, TransportContract):
    @pytest.fixture
    def opens(self, kernel):
        return partial(open_at, mounts.DIRECTORY)

    @pytest.fixture
    def missing(self, kernel):
        return Nfs(options(url=f"{URL}/missing"))

    @pytest.fixture(autouse=True)
    def _leaves_no_mount(self, kernel):
        yield
        mounts.DIRECTORY.mkdir(parents=True, exist_ok=True)
        mounts.sweep()
        assert not points()


def test_it_is_mounted_privately_and_safely(kernel, nfs):
    nfs.put("points/a", b"1")
    (point,) = points()
    assert (kernel.export / "points/a").read_bytes() == b"1"
    assert mounts.DIRECTORY.stat().st_mode & 0o777 == 0o700
    (call,) = kernel.said("mounted")
    assert call.startswith("-t nfs -o ")
    assert call.endswith(f" -- filer.example:/export {point}")
    given = call.split()[3].split(",")
    assert {"nosuid", "nodev", "noexec", "soft", "timeo=200", "retrans=2", "retry=0", "nolock"} <= set(given)
    nfs.close()
    assert not points()
    assert not list(mounts.DIRECTORY.iterdir())


def test_options_of_the_mount(kernel):
    asked = options(url="nfs://[fe80::1]/export/", version=3, port=1049, mount_port=1050, timeout=3)
    with closing(Nfs(asked)) as nfs:
        nfs.put("a", b"1")
    (call,) = kernel.said("mounted")
    assert call.split()[4:6] == ["--", "[fe80::1]:/export"]
    assert {"vers=3", "port=1049", "mountport=1050", "nolock", "timeo=10"} <= set(call.split()[3].split(","))


def test_version_4_has_locks_of_its_own(kernel):
    with closing(Nfs(options(version=4))) as nfs:
        nfs.put("a", b"1")
    (call,) = kernel.said("mounted")
    assert "vers=4" in call
    assert "nolock" not in call


def test_errors_name_the_url_and_not_the_mount_point(kernel, nfs):
    nfs.put("points/a", b"1")
    with pytest.raises(Unsupported, match=f"{URL}/points") as caught:
        nfs.put("points", b"1")
    assert "/run/nfs" not in str(caught.value)
    assert "/run/nfs" not in str(nfs.check())


def test_create_makes_the_last_directory(kernel):
    with closing(Nfs(options(url=f"{URL}/new"))) as new:
        with pytest.raises(Unavailable):
            new.put("a", b"1")
        new.create()
        new.create()
        new.put("a", b"1")
    with closing(Nfs(options(url=f"{URL}/not/there"))) as deep, pytest.raises(Unavailable):
        deep.create()
    assert (kernel.export / "new/a").read_bytes() == b"1"
    assert not (kernel.export / "not").exists()
    assert not points()


@pytest.mark.parametrize(
    ("said", "kind", "transient"),
    [
        ("mount.nfs: access denied by server while mounting filer.example:/export", AccessDenied, False),
        ("mount.nfs: Operation not permitted", Unsupported, False),
        ("mount: /x: must be superuser to use mount.", Unsupported, False),
        ("mount.nfs: mounting x failed, reason given by server: No such file or directory", Unavailable, False),
        ("mount: /x: unknown filesystem type 'nfs'.", Unsupported, False),
        ("mount.nfs: Protocol not supported", Unsupported, False),
        ("mount.nfs: an incorrect mount option was specified", Unsupported, False),
        ("mount.nfs: Failed to resolve server x: Name or service not known", Unavailable, False),
        ("mount.nfs: Failed to resolve server x: Temporary failure in name resolution", Unavailable, True),
        ("mount.nfs: Connection refused for filer.example:/export", Unavailable, True),
        ("mount.nfs: Connection timed out", Unavailable, True),
        ("mount.nfs: No route to host for filer.example:/export", Unavailable, True),
        ("mount.nfs: rpc.statd is not running but is required for remote locking.", Unsupported, False),
    ],
)
def test_what_mount_says(kernel, nfs, said, kind, transient):
    (kernel.here / "say").write_text(said)
    with pytest.raises(VBackupError, match=URL) as caught:
        nfs.get("a")
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert caught.value.hint or transient
    assert Level.ERROR in {finding.level for finding in nfs.check()}
    assert not list(mounts.DIRECTORY.iterdir())
    (kernel.here / "say").unlink()
    nfs.put("a", b"1")


def test_a_mount_that_hangs_is_given_up(kernel, monkeypatch):
    monkeypatch.setattr("vbackup_nfs.kernel._SPARE_SECONDS", 0)
    os.mkfifo(kernel.here / "wait")
    with closing(Nfs(options(timeout=1))) as nfs, pytest.raises(Unavailable, match="no answer") as caught:
        nfs.get("a")
    assert caught.value.transient
    assert not points()


def test_many_do_not_wait_for_one_mount_after_the_other(kernel, monkeypatch):
    monkeypatch.setattr("vbackup_nfs.kernel._SPARE_SECONDS", 0)
    os.mkfifo(kernel.here / "wait")
    together = threading.Barrier(8)

    def read(_: int) -> None:
        together.wait(60)
        with pytest.raises(Unavailable, match="no answer"):
            nfs.get("a")

    with closing(Nfs(options(timeout=2))) as nfs, ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(kernel.said("mounted")) < 8  # once, unless a thread was very late
    assert not points()


def test_close_does_not_wait_for_a_mount_which_is_then_undone(kernel, nfs):
    for name in ("wait", "waits"):
        os.mkfifo(kernel.here / name)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(nfs.get, "a")
        (kernel.here / "waits").read_text()
        nfs.close()
        assert not read.done()
        (kernel.here / "wait").write_text("go on\n")
        with pytest.raises(Interrupted, match=URL):
            read.result(60)
    assert not points()


def test_a_mount_that_was_lost_is_made_again(kernel, nfs):
    nfs.put("a", b"1")
    (point,) = points()
    subprocess.run(["/usr/bin/umount", point], check=True)
    with pytest.raises(Unavailable, match=f"{URL} is another one") as caught:
        nfs.get("a")
    assert caught.value.transient
    assert nfs.get("a") == b"1"
    assert len(kernel.said("mounted")) == 2


def test_a_mount_whose_directory_is_stale_is_made_again(kernel, nfs, monkeypatch):
    """What a server says of a directory that was removed and made again."""
    nfs.put("a", b"1")
    (point,) = points()
    stat = Path.stat

    def stale(*_: object, **__: object) -> bytes:
        error = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        raise Unavailable(f"cannot read {point}/a: {error.strerror}") from error

    def look(path: Path, **how: bool) -> os.stat_result:
        if path == point and lost:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", look)
    for lost in (False, True):  # a file only, and the root
        with monkeypatch.context() as patch:
            patch.setattr("vbackup_local.transport.Local.get", stale)
            with pytest.raises(Unavailable, match=f"{URL}/a") as caught:
                nfs.get("a")
        assert caught.value.transient
        assert nfs.get("a") == b"1"
        assert len(kernel.said("mounted")) == 1 + lost


def test_a_mount_that_is_in_use_goes_all_the_same(kernel, nfs):
    """As one does whose server is away: unmounting must not keep us."""
    nfs.put("a", b"1")
    (point,) = points()
    with (point / "a").open("rb"):
        nfs.close()
        assert not points()
    assert kernel.said("unmounted") == [str(point), f"-f -l {point}"]


OWNER = """
    import sys
    from pathlib import Path
    from vbackup_nfs import mounts
    from vbackup_nfs.options import NfsOptions
    from vbackup_nfs.transport import Nfs
    mounts.DIRECTORY = Path(sys.argv[2])
    nfs = Nfs(NfsOptions(url=sys.argv[1], client="kernel"))
    nfs.put("a", b"1")
    print(flush=True)
    sys.stdin.read()
    sys.exit()  # without close
"""


def owner() -> subprocess.Popen[str]:
    """Start a process that has mounted the export."""
    command = [sys.executable, "-c", textwrap.dedent(OWNER), URL, str(mounts.DIRECTORY)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.readline()


def end(process: subprocess.Popen[str], how: Callable[[subprocess.Popen[str]], object]) -> None:
    with process:
        how(process)


def test_a_process_that_ends_unmounts(kernel):
    process = owner()
    wait(process)
    assert len(points()) == 1
    end(process, lambda process: process.stdin.close())
    assert not points()


def test_the_next_run_unmounts_what_a_killed_one_left_and_nothing_else(kernel, nfs):
    living = owner()
    wait(living)
    kept = points()
    killed = owner()
    wait(killed)
    left = points() - kept
    end(killed, subprocess.Popen.kill)
    assert points() == kept | left  # nobody has cleaned up yet
    foreign = mounts.DIRECTORY / "0123456789abcdef"
    foreign.mkdir()
    file = mounts.DIRECTORY / "notes.lock"
    file.write_text("not ours")
    subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "foreign", foreign], check=True)
    try:
        nfs.get("a")
        assert points() > kept | {foreign}
        assert not points() & left
        assert file.read_text() == "not ours"
    finally:
        subprocess.run(["/usr/bin/umount", foreign], check=True)
    (point,) = left
    assert not list(mounts.DIRECTORY.glob(f"{point.name}*"))
    assert (kernel.export / "a").read_bytes() == b"1"  # what is on the server stays there
    end(living, lambda process: process.stdin.close())
    nfs.close()
    assert not points()


def test_a_mount_that_outlives_its_killed_owner_is_swept_when_it_is_there(kernel):
    """Killed while mount(8) is at work: until that ends it holds the lock, and nobody takes its directory away."""
    os.mkfifo(kernel.here / "wait")
    os.mkfifo(kernel.here / "waits")
    process = owner()
    (kernel.here / "waits").read_text()
    end(process, subprocess.Popen.kill)
    point, lock = sorted(mounts.DIRECTORY.iterdir())
    mounts.sweep()
    assert point.exists()
    assert not points()
    (kernel.here / "wait").write_text("go on\n")
    with lock.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # mount(8) holds it until it has mounted
    assert points() == {point}
    mounts.sweep()
    assert not points()
    assert not list(mounts.DIRECTORY.iterdir())


def test_auto_takes_the_kernel_where_it_can(kernel, caplog):
    with caplog.at_level("INFO"), closing(Nfs(options(client="auto"))) as nfs:
        nfs.put("a", b"1")
        assert "the kernel's client: this kernel has NFS" in nfs.check()[0].detail
    assert len(kernel.said("mounted")) == 1
    assert "the kernel's client" in caplog.text


@pytest.mark.parametrize("lack", ["module", "program", "capability", "uid"])
def test_auto_takes_libnfs_where_the_kernel_cannot(kernel, lack, monkeypatch):
    asked = options(client="auto", uid=5 if lack == "uid" else None)
    if lack == "module":
        (kernel.here / "modprobe").write_text("#!/bin/sh\nexit 1\n")
    elif lack == "program":
        monkeypatch.setattr(choice, "_SEARCH", str(kernel.export))
    elif lack == "capability":
        monkeypatch.setattr(choice, "_may_mount", lambda: False)
    client, reason = choice.choose(asked)
    assert client == "userspace"
    assert reason
    with pytest.raises(Unsupported, match="version 4"):
        choice.choose(asked.model_copy(update={"version": 4}))


def test_root_of_a_user_namespace_may_not_mount():
    script = "from vbackup_nfs import choice; print(choice._may_mount())"
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
