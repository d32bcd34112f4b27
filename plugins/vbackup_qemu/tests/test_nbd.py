"""The NBD client against real servers: qemu-nbd, and nbdkit for what qemu-nbd never does."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vbackup.api import CaptureLost, Extent, Kind, NoSpace, Range, Run, Unavailable, Unsupported, split
from vbackup_qemu import connection, image, libnbd
from vbackup_qemu.host import LocalHost
from vbackup_qemu.nbd import ALLOCATION, MAX_STATUS, NbdClient, allocation, bitmap_context, changed, dirty
from vbackup_qemu.server import serve

MIB = 1 << 20
SIZE = 8 * MIB
BLOCK = 64 << 10


def qemu_io(path: Path, *commands: str) -> None:
    argv = ["qemu-io", "-f", "qcow2"]
    for command in commands:
        argv += ["-c", command]
    done = subprocess.run([*argv, str(path)], capture_output=True, text=True, check=True)
    assert "failed" not in done.stdout + done.stderr, done.stdout


@contextlib.contextmanager
def nbdkit(sockets: Path, *arguments: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Run nbdkit on a socket that is there before it starts."""
    path = sockets / "nbdkit"
    pid = sockets / "pid"
    os.mkfifo(pid)
    with subprocess.Popen(["nbdkit", "--foreground", "--unix", str(path), "--pidfile", str(pid), *arguments]) as server:
        assert pid.read_text()  # written when it listens
        try:
            yield path, server
        finally:
            server.terminate()


def read_all(client: NbdClient) -> bytes:
    return b"".join(bytes(b.data) for b in client.read(split([Range(0, client.size)], MIB)))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    image.create(LocalHost(), path, "qcow2", SIZE)
    return path


# --- reading


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * MIB)), max_size=40),
    depth=st.integers(1, 20),
)
def test_reads_equal_the_bytes_in_the_order_asked(
    pieces: list[tuple[int, int]], depth: int, tmp_path: Path, sockets: Path
) -> None:
    data = random.Random(1).randbytes(SIZE)
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    ranges = [Range(offset, min(length, SIZE - offset)) for offset, length in pieces]
    with serve(LocalHost(), path, "raw", sockets=sockets) as socket, NbdClient(socket, depth=depth) as client:
        blocks = list(client.read(ranges))
    assert [(b.offset, bytes(b.data)) for b in blocks] == [(o, data[o : o + n]) for o, n in ranges]


def test_many_requests_are_under_way_at_once_but_never_more_than_the_depth(sockets: Path) -> None:
    taken = 0

    def ranges() -> Iterator[Range]:
        nonlocal taken
        for offset in range(0, 64 * MIB, MIB):
            taken += 1
            yield Range(offset, MIB)

    with nbdkit(sockets, "memory", "64M") as (path, _), NbdClient(path, depth=16) as client:
        blocks = client.read(ranges())
        assert next(blocks).offset == 0
        assert taken == 17
        assert len(list(blocks)) == 63


def test_no_more_than_16_mib_are_under_way(sockets: Path) -> None:
    taken: list[int] = []

    def ranges() -> Iterator[Range]:
        for offset in range(0, 64 * MIB, 4 * MIB):
            taken.append(offset)
            yield Range(offset, 4 * MIB)

    with nbdkit(sockets, "memory", "64M") as (path, _), NbdClient(path) as client:
        next(client.read(ranges()))
        assert len(taken) == 5


def test_a_reader_may_stop_early_and_others_go_on(tmp_path: Path, sockets: Path) -> None:
    """Buffers of abandoned reads live until the server has filled them."""
    data = random.Random(2).randbytes(64 * MIB)
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    with serve(LocalHost(), path, "raw", sockets=sockets) as socket, NbdClient(socket) as client:
        for count in range(30):
            blocks = client.read(split([Range(0, len(data))], 2 * MIB))
            for _ in range(count % 4 + 1):
                next(blocks)
            blocks.close()
            del blocks
            gc.collect()
            bytearray(32 * MIB)
            offset = count * MIB
            (block,) = client.read([Range(offset, MIB)])
            assert bytes(block.data) == data[offset : offset + MIB]
        assert read_all(client) == data


def test_two_readers_may_take_turns(tmp_path: Path, sockets: Path) -> None:
    data = random.Random(3).randbytes(SIZE)
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    with serve(LocalHost(), path, "raw", sockets=sockets) as socket, NbdClient(socket) as client:
        one = client.read(split([Range(0, SIZE)], MIB))
        two = client.read(split([Range(0, SIZE)], MIB))
        pairs = list(zip(one, two, strict=True))
    assert b"".join(bytes(a.data) for a, _ in pairs) == b"".join(bytes(b.data) for _, b in pairs) == data


def test_ranges_may_come_from_the_status_of_the_same_client(disk: Path, sockets: Path) -> None:
    qemu_io(disk, *(f"write -P {n + 1} {n * 256}k 64k" for n in range(32)))
    with serve(LocalHost(), disk, "qcow2", sockets=sockets) as socket, NbdClient(socket) as client:
        ranges = (Range(e.offset, e.length) for e in allocation(client) if e.kind is Kind.DATA)
        blocks = list(client.read(ranges))
    assert [(b.offset, bytes(b.data)) for b in blocks] == [(n * 256 << 10, bytes([n + 1]) * BLOCK) for n in range(32)]


def test_a_client_may_be_closed_with_reads_under_way(sockets: Path) -> None:
    with nbdkit(sockets, "--filter=delay", "memory", "64M", "rdelay=100ms") as (path, _):
        for _ in range(5):
            client = NbdClient(path)
            blocks = client.read(split([Range(0, 64 * MIB)], MIB))
            next(blocks)
            client.close()
            with pytest.raises(CaptureLost):
                list(blocks)


def test_a_server_that_hangs_does_not_hold_up_the_end(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "POLL_MS", 1)
    with nbdkit(sockets, "memory", "64M") as (path, server):
        client = NbdClient(path)
        blocks = client.read(split([Range(0, 64 * MIB)], MIB))
        next(blocks)
        server.send_signal(signal.SIGSTOP)
        client.close()
        server.send_signal(signal.SIGCONT)


def test_a_server_that_says_nothing_is_unavailable(sockets: Path) -> None:
    path = sockets / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(Unavailable, match="says nothing") as caught:
            NbdClient(path, silence=0.5)
    assert caught.value.transient


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop a process, and return when all its threads stand still: one of them might still answer else."""
    server.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{server.pid}/task")
    while any("State:\tT" not in (task / "status").read_text() for task in tasks.iterdir()):
        os.sched_yield()


@pytest.mark.parametrize("what", ["read", "status", "write"])
def test_a_server_that_falls_silent_is_given_up(sockets: Path, what: str) -> None:
    """It is lost: the next command does not wait again."""
    expected = Unavailable if what == "write" else CaptureLost
    with nbdkit(sockets, "memory", "8M") as (path, server), NbdClient(path, silence=0.5) as client:
        commands = {
            "read": lambda: read_all(client),
            "status": lambda: list(allocation(client)),
            "write": lambda: client.write([Run(0, 4096, bytes(4096))], zeroed=False),
        }
        stop(server)
        try:
            for _ in range(20):
                with pytest.raises(expected, match="says nothing") as caught:
                    commands[what]()
                assert caught.value.transient
        finally:
            server.send_signal(signal.SIGCONT)


def test_a_server_that_dies_is_a_lost_capture(sockets: Path) -> None:
    slow = ("--filter=delay", "memory", "256M", "rdelay=20ms")
    with nbdkit(sockets, *slow) as (path, server), NbdClient(path, label="web/vda") as client:
        blocks = client.read(split([Range(0, 256 * MIB)], MIB))
        next(blocks)
        server.send_signal(signal.SIGKILL)
        with pytest.raises(CaptureLost, match="web/vda: reading"):
            list(blocks)
        with pytest.raises(CaptureLost):
            list(client.read([Range(0, 512)]))
        with pytest.raises(CaptureLost):
            list(client.status(ALLOCATION))


def test_a_storage_that_fails_is_not_a_lost_capture(sockets: Path) -> None:
    broken = ("--filter=error", "memory", "8M", "error-pread=EIO", "error-pread-rate=1")
    with (
        nbdkit(sockets, *broken) as (path, _),
        NbdClient(path) as client,
        pytest.raises(Unavailable, match="reading 512 bytes at 1024") as caught,
    ):
        list(client.read([Range(1024, 512)]))
    assert not caught.value.transient


def test_no_server_is_unavailable(sockets: Path) -> None:
    with pytest.raises(Unavailable, match="no NBD connection"):
        NbdClient(sockets / "nothing")


def test_without_the_library_the_user_is_told_what_to_install(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnbd, "SONAME", "libnbd-that-is-not-there.so.0")
    libnbd.load.cache_clear()
    with pytest.raises(Unsupported) as caught:
        NbdClient(sockets / "nothing")
    assert "libnbd0" in caught.value.hint


def test_a_library_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnbd, "OLDEST", (99, 0))
    libnbd.load.cache_clear()
    with pytest.raises(Unsupported, match="too old"):
        libnbd.load()


# --- status


def test_a_large_sparse_disk_is_covered_in_more_than_one_request(tmp_path: Path, sockets: Path) -> None:
    path = tmp_path / "large.qcow2"
    image.create(LocalHost(), path, "qcow2", 10 << 40)
    qemu_io(path, "write -P 1 5T 64k")
    with serve(LocalHost(), path, "qcow2", sockets=sockets) as socket, NbdClient(socket) as client:
        extents = list(allocation(client))
    assert [e for e in extents if e.kind is Kind.DATA] == [Extent(5 << 40, BLOCK, Kind.DATA)]
    assert extents[-1].end == 10 << 40


def test_short_replies_are_asked_for_again(sockets: Path) -> None:
    """This server tells of one 64 KiB block for each request."""
    script = "extents=echo $4 65536 hole,zero"
    size = "get_size=echo 8M"
    pread = "pread=head -c $3 /dev/zero"
    with nbdkit(sockets, "eval", size, pread, "can_extents=exit 0", script) as (path, _), NbdClient(path) as client:
        assert list(client.status(ALLOCATION, [Range(100 * 512, 1 << 17)])) == [(51200, BLOCK, 3), (116736, BLOCK, 3)]
        assert list(allocation(client)) == [Extent(0, 8 * MIB, Kind.ZERO)]


def test_a_status_that_is_left_early_leaves_nothing_behind(tmp_path: Path, sockets: Path) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 16 * MAX_STATUS)
    with serve(LocalHost(), path, "raw", sockets=sockets) as socket, NbdClient(socket) as client:
        for _ in range(5):
            extents = client.status(ALLOCATION)
            assert next(extents)[0] == 0
            extents.close()  # type: ignore[attr-defined]
        connection = client._of_context[ALLOCATION]
        assert connection._under_way
        connection.settle()
        assert not connection._under_way
        assert not connection._answers
        assert not connection._asked
        assert list(allocation(client)) == [Extent(0, client.size, Kind.ZERO)]


def test_a_hole_that_is_not_zero_is_data(sockets: Path) -> None:
    """NBD_STATE_HOLE alone says nothing of what can be read there."""
    arguments = ("get_size=echo 1M", "pread=head -c $3 /dev/zero", "can_extents=exit 0", "extents=echo 0 1048576 hole")
    with nbdkit(sockets, "eval", *arguments) as (path, _), NbdClient(path) as client:
        assert list(allocation(client)) == [Extent(0, MIB, Kind.DATA)]


def test_a_context_that_the_server_does_not_know_is_not_offered(disk: Path, sockets: Path) -> None:
    unknown = bitmap_context("nothing")
    with (
        serve(LocalHost(), disk, "qcow2", sockets=sockets) as socket,
        NbdClient(socket, contexts=(ALLOCATION, unknown)) as client,
    ):
        assert client.contexts == {ALLOCATION}
        with pytest.raises(Unsupported, match="does not offer"):
            list(client.status(unknown))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write -P 7", "write -z", "write -z -u", "discard"]),
            st.integers(0, 127),
            st.integers(1, 9),
        ),
        max_size=12,
    )
)
def test_what_changed_is_never_missed_and_zeroed_data_comes_as_zero(
    steps: list[tuple[str, int, int]], tmp_path: Path, sockets: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    image.create(LocalHost(), path, "qcow2", SIZE)
    qemu_io(path, f"write -P 170 0 {SIZE}")
    image.add_bitmap(LocalHost(), path, "b")
    expected = [Kind.UNCHANGED] * (SIZE // BLOCK)
    for command, start, length in steps:
        end = min(start + length, len(expected))
        qemu_io(path, f"{command} {start * BLOCK} {(end - start) * BLOCK}")
        kind = Kind.DATA if command == "write -P 7" else Kind.ZERO
        expected[start:end] = [kind] * (end - start)
    context = bitmap_context("b")
    with (
        serve(LocalHost(), path, "qcow2", bitmap="b", sockets=sockets) as socket,
        NbdClient(socket, contexts=(ALLOCATION, context)) as client,
    ):
        found = [e.kind for e in changed(client, context) for _ in range(e.length // BLOCK)]
        touched = [e.kind is Kind.DATA for e in dirty(client, context) for _ in range(e.length // BLOCK)]
    assert found == expected
    assert touched == [kind is not Kind.UNCHANGED for kind in expected]


# --- writing


RUNS = st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["data", "zero", "view"])), min_size=1, max_size=30)


def make_runs(pieces: list[tuple[int, str]], size: int) -> list[Run]:
    """Cover ``size`` with runs of the pieces' lengths in 32 KiB, again and again."""
    source, runs, offset = random.Random(4), [], 0
    while offset < size:
        for units, kind in pieces:
            length = min(units << 15, size - offset)
            if not length:
                break
            data = None if kind == "zero" else source.randbytes(length)
            runs.append(Run(offset, length, memoryview(data) if data and kind == "view" else data))
            offset += length
    return runs


def content(runs: list[Run]) -> bytes:
    return b"".join(bytes(r.length) if r.data is None else bytes(r.data) for r in runs)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=RUNS, depth=st.integers(1, 20), kind=st.sampled_from(["raw", "qcow2"]), zeroed=st.booleans())
def test_what_was_written_is_read_back(
    pieces: list[tuple[int, str]], depth: int, kind: str, zeroed: bool, tmp_path: Path, sockets: Path
) -> None:
    path = tmp_path / "disk"
    image.create(LocalHost(), path, kind, SIZE)
    if not zeroed:
        subprocess.run(["qemu-io", "-f", kind, "-c", f"write -P 238 0 {SIZE}", str(path)], check=True, stdout=-3)
    runs = make_runs(pieces, SIZE)
    with (
        serve(LocalHost(), path, kind, read_only=False, sockets=sockets) as socket,
        NbdClient(socket, contexts=(), depth=depth) as client,
    ):
        client.write(runs, zeroed=zeroed)
    with serve(LocalHost(), path, kind, sockets=sockets) as socket, NbdClient(socket) as client:
        assert read_all(client) == content(runs)


@pytest.mark.parametrize("filters", [["--filter=nozero"], ["--filter=nozero", "--filter=noextents"]])
def test_zeros_are_written_out_where_the_server_cannot_zero(sockets: Path, filters: list[str]) -> None:
    runs = [Run(0, MIB, b"\xaa" * MIB), Run(MIB, 7 * MIB, None)]
    with nbdkit(sockets, *filters, "memory", "8M") as (path, _), NbdClient(path, contexts=()) as client:
        client.write([Run(0, SIZE, b"\xee" * SIZE)], zeroed=False)
        client.write(runs, zeroed=False)
        assert read_all(client) == content(runs)


def test_zeros_are_written_out_where_zeroing_is_refused(sockets: Path) -> None:
    arguments = ("--filter=error", "memory", "8M", "error-zero=EINVAL", "error-zero-rate=1")
    with nbdkit(sockets, *arguments) as (path, _), NbdClient(path, contexts=()) as client:
        client.write([Run(0, SIZE, b"\xee" * SIZE)], zeroed=False)
        client.write([Run(0, SIZE, None)], zeroed=False)
        assert read_all(client) == bytes(SIZE)


def test_a_new_image_stays_thin(disk: Path, sockets: Path) -> None:
    with serve(LocalHost(), disk, "qcow2", read_only=False, sockets=sockets) as socket, NbdClient(socket) as client:
        client.write([Run(0, BLOCK, b"x" * BLOCK), Run(BLOCK, SIZE - BLOCK, None)], zeroed=True)
        assert [e.kind for e in allocation(client)] == [Kind.DATA, Kind.ZERO]
    assert image.info(LocalHost(), disk, "qcow2").actual_size < MIB


def test_zeros_over_data_make_holes(tmp_path: Path, sockets: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\xee" * SIZE)
    with serve(LocalHost(), path, "raw", read_only=False, sockets=sockets) as socket, NbdClient(socket) as client:
        client.write([Run(0, SIZE, None)], zeroed=False)
    assert path.read_bytes() == bytes(SIZE)
    assert path.stat().st_blocks == 0


def test_a_full_file_system_is_no_space(tmpfs: Path, sockets: Path) -> None:
    path = tmpfs / "disk.qcow2"
    image.create(LocalHost(), path, "qcow2", 64 * MIB)
    runs = [Run(n * MIB, MIB, os.urandom(MIB)) for n in range(64)]
    with (
        serve(LocalHost(), path, "qcow2", read_only=False, sockets=sockets) as socket,
        NbdClient(socket, label="web/vda") as client,
        pytest.raises(NoSpace, match="web/vda: writing"),
    ):
        client.write(runs, zeroed=True)


@pytest.mark.parametrize("command", ["pwrite", "zero", "flush"])
def test_any_failed_command_raises(sockets: Path, command: str) -> None:
    arguments = ("--filter=error", "memory", "8M", f"error-{command}=EIO", f"error-{command}-rate=1")
    if command == "flush":
        arguments = (
            "eval",
            "get_size=echo 8M",
            "pwrite=cat >/dev/null",
            "can_flush=exit 0",
            "flush=echo EIO no >&2; exit 1",
            "pread=head -c $3 /dev/zero",
            "can_zero=echo native",
            "zero=exit 0",
            "can_write=exit 0",
        )
    with (
        nbdkit(sockets, *arguments) as (path, _),
        NbdClient(path, contexts=()) as client,
        pytest.raises(Unavailable),
    ):
        client.write([Run(0, MIB, bytes(MIB)), Run(MIB, 7 * MIB, None)], zeroed=False)


def test_a_server_that_dies_under_writes_is_unavailable(sockets: Path) -> None:
    with nbdkit(sockets, "--filter=delay", "memory", "64M", "wdelay=10ms") as (path, server):

        def runs() -> Iterator[Run]:
            for n in range(64):
                if n == 32:
                    server.send_signal(signal.SIGKILL)
                yield Run(n * MIB, MIB, bytes(MIB))

        with NbdClient(path) as client, pytest.raises(Unavailable) as caught:
            client.write(runs(), zeroed=False)
    assert caught.value.transient


def test_an_error_of_the_producer_comes_through_and_the_client_can_be_closed(sockets: Path) -> None:
    def runs() -> Iterator[Run]:
        for n in range(8):
            yield Run(n * MIB, MIB, os.urandom(MIB))
        raise CaptureLost("the other side")

    with nbdkit(sockets, "--filter=delay", "memory", "64M", "wdelay=50ms") as (path, _):
        with NbdClient(path) as client, pytest.raises(CaptureLost, match="the other side"):
            client.write(runs(), zeroed=False)
        gc.collect()


@pytest.fixture(autouse=True)
def _fresh_library() -> Iterator[None]:
    yield
    libnbd.load.cache_clear()
