"""Domain XML: what is read from it, and what is changed for a machine that comes back."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from vbackup.api import (
    Corrupt,
    MachineDescription,
    NativeDocument,
    RestoreDisk,
    RestoreRequest,
    Run,
)
from vbackup.testing.lab.factory import GuestFactory
from vbackup_libvirt import document, identity, state
from vbackup_libvirt.describe import describe
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.placement import Place, safe_name

from .conftest import MIB

UUID = "11111111-2222-3333-4444-555555555555"
RICH = f"""<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>rich</name><uuid>{UUID}</uuid><genid>22222222-2222-3333-4444-555555555555</genid>
  <memory unit='GiB'>2</memory><vcpu>4</vcpu>
  <sysinfo type='smbios'><system><entry name='uuid'>{UUID}</entry></system></sysinfo>
  <os><type arch='aarch64'>hvm</type><loader secure='yes'>/code.fd</loader><nvram>/vars/rich.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='/img/a.qcow2' index='3'><encryption format='luks'/></source>
      <backingStore type='file'><source file='/img/base'/></backingStore><mirror/>
      <target dev='vda' bus='virtio'/><boot order='1'/><alias name='virtio-disk0'/>
      <address type='pci' slot='0x05'/></disk>
    <disk type='network' device='disk'><driver name='qemu'/><auth username='x'/>
      <source protocol='rbd' name='pool/image'><host name='mon'/></source><target dev='vdb' bus='virtio'/></disk>
    <disk type='block' device='lun'><source dev='/dev/sdx'/><target dev='sda' bus='scsi'/></disk>
    <disk type='file' device='disk'><source file='/img/t'/><target dev='vdc'/><transient/></disk>
    <disk type='vhostuser' device='disk'><source type='unix' path='/s'/><target dev='vdd'/></disk>
    <disk type='file' device='disk'><source file='/img/ro'/><target dev='vde'/><readonly/></disk>
    <disk type='file' device='cdrom'><source file='/iso'/><target dev='sdb' bus='sata'/></disk>
    <hostdev type='pci' mode='subsystem'/>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'/><model type='virtio'/>
      <target dev='tap7'/></interface>
    <graphics type='vnc' port='5901' autoport='no'/>
    <vsock><cid auto='no' address='3'/></vsock>
    <channel type='unix'><source mode='bind' path='/run/x'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <video><alias name='ua-mine'/></video>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
  <seclabel type='dynamic' model='dac'><label>+64055:+108</label></seclabel>
  <qemu:commandline><qemu:arg value='-foo'/></qemu:commandline>
</domain>"""


def test_a_machine_is_described() -> None:
    """What another hypervisor needs to build it."""
    machine = describe(document.parse(RICH), RICH, {"vda": 123})
    assert (machine.name, machine.id, machine.arch, machine.cpus, machine.memory) == (
        "rich",
        UUID,
        "aarch64",
        4,
        2 << 30,
    )
    assert (machine.firmware, machine.secure_boot, machine.tpm) == ("uefi", True, True)
    disk = machine.disks[0]
    assert (disk.key, disk.size, disk.format, disk.bus, disk.boot_order) == ("vda", 123, "qcow2", "virtio", 1)
    assert machine.disks[1].source == "rbd:mon/pool/image"
    (nic,) = machine.nics
    assert (nic.mac, nic.model, nic.network) == ("52:54:00:00:00:01", "virtio", "lan")


WEB = """<domain type='kvm'><name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
  <metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
    <libosinfo:os id='{system}'/></libosinfo:libosinfo></metadata>
  <memory>1024</memory><vcpu>8</vcpu><os><type>hvm</type></os><clock offset='localtime'/>
  <cpu><topology sockets='2' dies='1' cores='2' threads='2'/></cpu>
  <devices>
    <controller type='scsi' index='0' model='lsilogic'/><controller type='scsi' index='1' model='virtio-scsi'/>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><boot order='1'/></disk>
    <disk type='file' device='disk'><source file='/a'/><target dev='sda' bus='scsi'/>
      <address type='drive' controller='0'/><boot order='{first}'/></disk>
    <disk type='file' device='disk'><source file='/b'/><target dev='sdb' bus='scsi'/>
      <address type='drive' controller='1'/><boot order='{second}'/></disk>
    <interface type='bridge'><source bridge='br0'/><boot order='4'/><link state='down'/></interface>
  </devices>
</domain>"""


@pytest.mark.parametrize(
    ("system", "guest"),
    [
        ("http://microsoft.com/win/2k22", "windows"),
        ("http://debian.org/debian/12", "linux"),
        ("http://libosinfo.org/linux/2022", "linux"),
        ("http://freebsd.org/freebsd/14.0", ""),
    ],
)
def test_what_decides_on_devices_elsewhere(system: str, guest: str) -> None:
    """The system's family, the controllers, and whether it boots with virtio."""
    text = WEB.format(system=system, first=2, second=3)
    machine = describe(document.parse(text), text, {})
    assert (machine.guest, machine.clock, machine.cpus, machine.cores) == (guest, "localtime", 8, 4)
    # The drive for CDs is no disk.
    assert [disk.controller for disk in machine.disks] == ["lsilogic", "virtio-scsi"]
    assert machine.drivers == ()
    assert (machine.nics[0].boot_order, machine.nics[0].connected) == (4, False)
    text = WEB.format(system=system, first=3, second=2)
    assert describe(document.parse(text), text, {}).drivers == ("virtio",)


def test_a_windows_that_nothing_was_said_of() -> None:
    """Enlightenments tell it."""
    text = WEB.replace("<metadata>", "<features><hyperv><relaxed state='on'/></hyperv></features><metadata>")
    text = text.replace("<libosinfo:os id='{system}'/>", "").format(first=1, second=2)
    assert describe(document.parse(text), text, {}).guest == "windows"


def test_disks_that_cannot_be_captured() -> None:
    """Each with its reason."""
    assert {disk.key: disk.left_out for disk in document.disks(document.parse(RICH))} == {
        "vda": None,
        "vdb": None,
        "sda": "a SCSI LUN is passed through to the guest",
        "vdc": "it is transient: its changes are thrown away",
        "vdd": "it has no source",
        "vde": "it is read-only",
        "sdb": "it is a cdrom",
    }
    assert list(document.others_left_out(document.parse(RICH))) == [
        "a pci device is passed through to the guest and not captured"
    ]
    assert document.qemu_owner(document.parse(RICH)) == (64055, 108)


@pytest.mark.parametrize(
    "text",
    ["", "<domain>", "<pool/>", "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>"],
)
def test_documents_that_are_none(text: str) -> None:
    """They are refused, entities among them."""
    with pytest.raises(Corrupt):
        document.parse(text)


def place(key: str, path: str) -> Place:
    """Return a place for a file."""
    to = PurePosixPath(path)
    return Place(key, MIB, "qcow2", to, to, PurePosixPath(path + ".new"), is_device=False, replaces=False)


def test_a_new_machine_shares_nothing() -> None:
    """Neither name, UUID, MACs, ports, paths nor what only the old run knew."""
    domain = document.parse(RICH)
    identity.clean(domain)
    notes = identity.place_disks(domain, [place("vda", "/new/a"), place("vdb", "/new/b")], lambda _: False, {})
    notes += identity.make_new(domain, "copy", "99999999-2222-3333-4444-555555555555")
    identity.place_nvram(domain, PurePosixPath("/vars/copy.fd"))
    text = identity.text(domain)
    stale = (
        UUID,
        "52:54:00",
        "5901",
        "/run/x",
        "tap7",
        "/img/",
        "/vars/rich.fd",
        "rbd",
        "virtio-disk0",
        "<seclabel",
        "id=",
    )
    for old in (*stale, "luks", "22222222-2222", "<mirror"):
        assert old not in text, old
    for kept in ("ua-mine", 'slot="0x05"', 'order="1"', "qemu:commandline", "/new/a", "/new/b", "<genid />"):
        assert kept in text, kept
    assert document.parse(text).find("devices/disk[2]/driver").attrib == {"name": "qemu", "type": "qcow2"}  # type: ignore[union-attr]
    assert notes == [
        "disk vda was encrypted, and is restored in clear: its key is not in the restore point",
        "disk vdb was on rbd:mon/pool/image; it is at /new/b now",
        "disk sda (/dev/sdx) is not in the restore point; the machine is without it",
        "disk vdc (/img/t) is not in the restore point; the machine is without it",
        "disk vde (/img/ro) is not in the restore point; the machine is without it",
        "cdrom sdb is empty: /iso is not here",
        "its vnc port is chosen by libvirt: the fixed one belongs to the other machine",
    ]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "-rf", "a b\u00e9"])
def test_names_are_safe_in_paths(name: str) -> None:
    """No separators, no leading dot or dash."""
    assert PurePosixPath(safe_name(name)).name == safe_name(name)
    assert safe_name(name)[0] not in ".-"


def tar(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return an archive with one member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, 4 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
        archive.addfile(member, io.BytesIO(b"data"))
    return buffer.getvalue()


def test_the_state_of_a_tpm_is_unpacked() -> None:
    """By relative path."""
    assert state.unpack(tar("./tpm2/tpm2-00.permall")) == {PurePosixPath("tpm2/tpm2-00.permall"): b"data"}


@pytest.mark.parametrize(
    "data",
    [
        tar("../x"),
        tar("/etc/x"),
        tar("tpm2/../x"),
        tar("tpm2/x", tarfile.SYMTYPE),
        tar("tpm2/x", tarfile.LNKTYPE),
        b"x" * 999,
    ],
)
def test_a_hostile_tpm_state_is_refused(data: bytes) -> None:
    """Nothing but plain files of swtpm's."""
    with pytest.raises(Corrupt):
        state.unpack(data)


def described(guest_xml: str, name: str) -> MachineDescription:
    """Return a description with a document of somebody's making."""
    native = NativeDocument(kind=document.KIND, text=guest_xml)
    return MachineDescription(name=name, id=UUID, native=native)


def test_a_hostile_document_names_no_paths(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path, tmp_path: Path
) -> None:
    """Disks of a machine that is not defined go to places for disks only, wherever the document says."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    xml = make_guest().domain.XMLDesc().replace("vda.qcow2", "x").replace("<name>", "<name>hostile-")
    root = document.parse(xml)
    source = root.find("devices/disk/source")
    assert source is not None
    for path in (f"{target}/precious", f"{images}/../elsewhere/precious", "relative"):
        source.set("file", path)
        machine = described(identity.text(root), "..hostile")
        disks = [RestoreDisk("vda", MIB, "qcow2")]
        with hypervisor.restore(machine, disks, {}, RestoreRequest()) as restoration:
            assert len(restoration.notes) == 1
            assert [path.name for path in images.iterdir() if "hostile" in path.name]
        assert list(target.iterdir()) == []
        assert list(images.iterdir()) == []


def test_a_document_of_another_machine_does_not_replace_it(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path
) -> None:
    """The UUID and the name in the document are not believed, nor is an id that is no UUID."""
    victim = make_guest()
    before = victim.domain.XMLDesc()
    disks = [RestoreDisk("vda", MIB, "qcow2")]
    machine = described(before, "comes-back")
    with hypervisor.restore(machine, disks, {}, RestoreRequest()) as restoration:
        restoration.disks["vda"].write([Run(0, MIB, None)])
        restoration.finish()
    assert make_guest.adopt("comes-back").uuid == UUID
    assert victim.domain.XMLDesc() == before
    machine = machine.model_copy(update={"id": f"../{UUID}"})
    with pytest.raises(Corrupt, match="is not the UUID"), hypervisor.restore(machine, disks, {}, RestoreRequest()):
        pass
    assert [path.name for path in images.iterdir()] == ["comes-back-vda.qcow2"]


def test_a_machine_of_another_hypervisor(hypervisor: Libvirt, images: Path) -> None:
    """Its disks can be restored alone."""
    machine = MachineDescription(name="esx", id="vm-1")
    disks = [RestoreDisk("disk0", MIB, "vmdk")]
    with hypervisor.restore(machine, disks, {}, RestoreRequest(disks={"disk0": images / "a.qcow2"})) as restoration:
        assert set(restoration.disks) == {"disk0"}
