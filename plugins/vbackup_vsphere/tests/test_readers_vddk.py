"""Reading and writing with VDDK: nbdkit is real, its plugin the simulator's stand-in."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import Kind, Range, Run, Unavailable, Unsupported
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.options import VddkOptions
from vbackup_vsphere.readers import nbdkit
from vbackup_vsphere.readers.base import Frozen
from vbackup_vsphere.readers.vddk import Vddk, VddkReader, open_for_writing

from .frozen import MIB, Machine, content, fill, read, read_all, session_with

SIZE = 24 * MIB


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as one:
        yield one


@pytest.fixture(scope="module")
def machine(simulator: Simulator) -> Iterator[Machine]:
    with session_with(simulator, vddk=simulator.vddk()) as session:
        machine = Machine.find(simulator, session)
        machine.resize(SIZE)
        fill(machine, SIZE)
        yield machine


@pytest.fixture(scope="module")
def frozen(machine: Machine) -> Iterator[tuple[Frozen, VmDisk]]:
    with machine.frozen() as (frozen, disks):
        yield frozen, disks[0]


@pytest.fixture(scope="module")
def way(machine: Machine) -> Vddk:
    return Vddk(machine.session.options.vddk)


@pytest.fixture(scope="module")
def whole(machine: Machine, frozen: tuple[Frozen, VmDisk]) -> bytes:
    return content(machine.simulator.disk(machine.name))


def test_a_disk_is_read(way: Vddk, frozen: tuple[Frozen, VmDisk], whole: bytes) -> None:
    assert way.why_not(*frozen) is None
    with way.open(*frozen) as reader:
        assert not reader.is_sequential
        assert read_all(reader, SIZE, 4 * MIB) == whole
        apart = [Range(SIZE - 512, 512), Range(512, 1024)]
        assert read(reader, apart) == [whole[r.offset : r.offset + r.length] for r in apart]


def test_it_tells_where_data_is(way: Vddk, frozen: tuple[Frozen, VmDisk], whole: bytes) -> None:
    with way.open(*frozen) as reader:
        extents = list(reader.extents() or ())
    assert sum(e.length for e in extents) == SIZE
    zeros = [e for e in extents if e.kind is Kind.ZERO]
    assert sum(e.length for e in zeros) > SIZE // 2
    assert not any(any(whole[e.offset : e.end]) for e in zeros)


def test_vddk_is_told_what_to_open_and_nobody_the_password(
    way: Vddk, simulator: Simulator, frozen: tuple[Frozen, VmDisk]
) -> None:
    with way.open(*frozen) as reader:
        assert isinstance(reader, VddkReader)
        arguments = Path(f"/proc/{reader._server._popen.pid}/cmdline").read_bytes().split(b"\0")
    asked = "\n".join(simulator.vddk_log())
    assert f"snapshot={frozen[0].snapshot} file={frozen[1].file} readonly=1" in asked
    secrets = [argument for argument in arguments if argument.startswith(b"password=")]
    assert len(secrets) == 1
    assert re.fullmatch(rb"password=\+/proc/self/fd/\d+", secrets[0])
    assert f"thumbprint={simulator.thumbprint()}".encode() in arguments


def test_nothing_of_it_remains(way: Vddk, simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    with way.open(*frozen) as reader:
        assert isinstance(reader, VddkReader)
        pid, directory = reader._server._popen.pid, reader._server.socket.parent
        assert simulator.state()["reads"]
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()
    assert not simulator.state()["reads"]


def test_what_vddk_does_not_open_is_left_to_others(way: Vddk, frozen: tuple[Frozen, VmDisk]) -> None:
    of_another = replace(frozen[0], snapshot="snapshot-0")
    with pytest.raises(Unsupported, match="snapshot-0 was not found"), way.open(of_another, frozen[1]):
        pass


def test_a_plugin_that_is_missing_leaves_it_to_others(way: Vddk, frozen: tuple[Frozen, VmDisk]) -> None:
    assert way._options is not None
    options = VddkOptions(libdir=way._options.libdir, plugin="nosuchplugin")
    with pytest.raises(Unsupported, match="nosuchplugin"), Vddk(options).open(*frozen):
        pass


def test_a_disk_of_another_size_is_refused(way: Vddk, frozen: tuple[Frozen, VmDisk]) -> None:
    with (
        pytest.raises(Unsupported, match=f"shows {SIZE} bytes, the disk has {SIZE + 512}"),
        way.open(frozen[0], replace(frozen[1], size=SIZE + 512)),
    ):
        pass


def test_a_read_that_fails_says_what_vddk_said(simulator: Simulator, way: Vddk, machine: Machine) -> None:
    machine = Machine.find(simulator, machine.session, "DC0_H0_VM1")
    with machine.frozen() as (frozen, disks), way.open(frozen, disks[0]) as reader:
        file = simulator.file(disks[0].file.replace(".vmdk", "-flat.vmdk"))
        os.truncate(file, 0)
        with pytest.raises(Unavailable, match="VixDiskLib_Read"):
            read(reader, [Range(0, 4096)])
        os.truncate(file, disks[0].size)


def test_without_it_reasons_are_told(
    way: Vddk, tmp_path: Path, frozen: tuple[Frozen, VmDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Vddk(None).why_not(*frozen) == "no VDDK is configured"
    assert "libvixDiskLib" in (Vddk(VddkOptions(libdir=tmp_path)).why_not(*frozen) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert way.why_not(*frozen) == "nbdkit is not installed"
    with pytest.raises(Unsupported, match="nbdkit is not installed"), way.open(*frozen):
        pass


def test_a_disk_is_written_in_its_place(simulator: Simulator, machine: Machine) -> None:
    moid = simulator.add_vm("off", disks=[8 * MIB], on=False)
    fill(replace(machine, name="off"), 8 * MIB)
    disk = simulator.disks("off")[0]
    runs = [
        Run(0, 4096, b"new " * 1024),
        Run(4096, MIB, None),
        Run(4096 + MIB, 7 * MIB - 4096, bytes(7 * MIB - 4096)),
    ]
    with open_for_writing(machine.session, moid, disk["file"], 8 * MIB, "disk 2000 of off") as client:
        client.write(runs, zeroed=False)
    assert content(simulator.disk("off")) == (b"new " * 1024).ljust(8 * MIB, b"\0")


def test_without_vddk_nothing_is_written(simulator: Simulator) -> None:
    with (
        session_with(simulator) as session,
        pytest.raises(Unsupported, match="disk 2000 of web cannot be written in its place: no VDDK is configured"),
        open_for_writing(session, "vm-57", "[ds] a/b.vmdk", SIZE, "disk 2000 of web"),
    ):
        pass


_DYING = """
import json, os, sys
from vbackup_vsphere.readers.nbdkit import Nbdkit
with Nbdkit(["memory", "1M"], "disk") as server:
    print(json.dumps([server._popen.pid, str(server.socket)]), flush=True)
    sys.stdin.read()
"""


def test_it_ends_with_us_even_when_we_are_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _DYING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid, path = json.loads(process.stdout.readline())
        server = os.pidfd_open(pid)
        try:
            assert Path(path).is_socket()
            process.send_signal(signal.SIGKILL)
            process.wait()

            assert select.select([server], [], [], 60)[0]
        finally:
            os.close(server)
    assert not Path(path).parent.exists()


def test_nbdkit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with nbdkit.Nbdkit(["memory", "1M"], "disk") as server:
        assert server.socket.is_socket()
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Unsupported, match="disk: "), nbdkit.Nbdkit(["memory", "nonsense=1"], "disk"):
        pass
    assert list(tmp_path.iterdir()) == []
