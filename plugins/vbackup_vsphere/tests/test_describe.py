"""What a machine's properties say, in our words; and what we keep of them."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from vbackup.api import ClockOffset, Corrupt, Firmware, Guest
from vbackup_vsphere import configuration, describe, document, settings
from vbackup_vsphere.document import Config, Home, Network

device = vim.vm.device


def option(key: str, value: str) -> Any:
    return vim.option.OptionValue(key=key, value=value)


def controller(kind: Any, key: int, number: int = 0, slot: int | None = None) -> Any:
    made = kind(key=key, busNumber=number)
    if slot is not None:
        made.slotInfo = device.VirtualDevice.PciBusSlotInfo(pciSlotNumber=slot)
    return made


def disk(key: int, at: int, unit: int, size: int = 1 << 20) -> Any:
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName=f"[fast] web/web_{key}.vmdk", diskMode="persistent")
    return device.VirtualDisk(
        key=key, controllerKey=at, unitNumber=unit, capacityInKB=size // 1024, capacityInBytes=size, backing=backing
    )


def card(kind: Any, key: int, mac: str, network: str, *, connected: bool = True) -> Any:
    connectable = device.VirtualDevice.ConnectInfo(
        startConnected=connected, connected=connected, allowGuestControl=True
    )
    return kind(
        key=key,
        macAddress=mac,
        backing=device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network),
        connectable=connectable,
        slotInfo=device.VirtualDevice.PciBusSlotInfo(pciSlotNumber=192),
    )


def properties(**changes: Any) -> dict[str, Any]:
    """Return the properties of a machine as a vCenter tells them."""
    order = vim.vm.BootOptions
    usual = {
        "uuid": "42000000-0000-0000-0000-000000000001",
        "instanceUuid": "50000000-0000-0000-0000-000000000001",
        "guestId": "debian11_64Guest",
        "guestFullName": "Debian GNU/Linux 11 (64-bit)",
        "version": "vmx-19",
        "annotation": "the web server",
        "firmware": "efi",
        "hardware.numCPU": 4,
        "hardware.numCoresPerSocket": 2,
        "hardware.memoryMB": 2048,
        "bootOptions": order(
            efiSecureBootEnabled=True,
            bootDelay=500,
            bootOrder=[order.BootableEthernetDevice(deviceKey=4001), order.BootableDiskDevice(deviceKey=2001)],
        ),
        "hardware.device": [
            device.VirtualPCIController(key=100, busNumber=0),
            controller(device.VirtualIDEController, 200),
            controller(device.ParaVirtualSCSIController, 1000, slot=160),
            controller(device.VirtualAHCIController, 15000),
            device.VirtualUSBXHCIController(key=14000, busNumber=0),
            disk(2000, 1000, 0),
            disk(2001, 1000, 1, 3 << 20),
            device.VirtualCdrom(key=16000, controllerKey=15000, unitNumber=0),
            card(device.VirtualVmxnet3, 4000, "00:50:56:aa:bb:cc", "LAN"),
            card(device.VirtualE1000e, 4001, "00:50:56:01:02:03", "DMZ", connected=False),
            device.VirtualSerialPort(key=9000, deviceInfo=vim.Description(label="Serial port 1", summary="")),
            device.VirtualTPM(key=11000),
        ],
        "extraConfig": [
            option("guestinfo.metadata", "x"),
            option("disk.EnableUUID", "TRUE"),
            option("nvram", "web.nvram"),
            option("scsi0:0.fileName", "/vmfs/volumes/other/secret.vmdk"),
            option("debugStub.listen.guest64.remote", "TRUE"),
            option("guestinfo.vmtools.versionNumber", "12"),
        ],
    }
    return {f"config.{path}": value for path, value in (usual | changes).items()}


def read(**changes: Any) -> Config:
    plugged = lambda backing: Network(name=backing.deviceName)  # noqa: E731
    return configuration.read(properties(**changes), plugged, Home(folder="/DC/vm"))


def test_a_machine_in_our_words() -> None:
    machine = describe.description("web", read())
    assert (machine.name, machine.id) == ("web", "50000000-0000-0000-0000-000000000001")
    assert (machine.cpus, machine.cores, machine.memory) == (4, 2, 2 << 30)
    assert (machine.firmware, machine.secure_boot, machine.tpm) == (Firmware.UEFI, True, True)
    assert (machine.guest, machine.clock, machine.drivers) == (Guest.LINUX, ClockOffset.UTC, ("vmware",))
    first, second = machine.disks
    assert (first.key, first.size, first.format, first.bus, first.controller) == (
        "2000",
        1 << 20,
        "vmdk",
        "scsi",
        "pvscsi",
    )
    assert first.source == "[fast] web/web_2000.vmdk"
    assert (first.boot_order, second.boot_order) == (None, 2)
    lan, dmz = machine.nics
    assert (lan.mac, lan.model, lan.network, lan.connected) == ("00:50:56:aa:bb:cc", "vmxnet3", "LAN", True)
    assert (dmz.model, dmz.network, dmz.connected, dmz.boot_order) == ("e1000e", "DMZ", False, 1)


def test_what_is_kept_can_be_read_back() -> None:
    config = read()
    assert document.parse(config.model_dump_json()) == config
    assert config.others == ("Serial port 1",)
    assert config.usb == ("xhci",)
    assert config.cards[0].slot == 192


def test_settings_that_could_do_harm_are_not_kept() -> None:
    config = read()
    assert config.extra == {"guestinfo.metadata": "x", "disk.EnableUUID": "TRUE"}
    assert config.dropped == ("debugStub.listen.guest64.remote",)
    assert settings.allowed({"scsi0:0.fileName": "x", "guestinfo.a": "b"}) == {"guestinfo.a": "b"}


@pytest.mark.parametrize(
    ("guest_id", "family"),
    [
        ("windows2019srv_64Guest", Guest.WINDOWS),
        ("winNetEnterpriseGuest", Guest.WINDOWS),
        ("rhel8_64Guest", Guest.LINUX),
        ("ubuntu64Guest", Guest.LINUX),
        ("other5xLinux64Guest", Guest.LINUX),
        ("otherLinux64Guest", Guest.LINUX),
        ("vmwarePhoton64Guest", Guest.LINUX),
        ("freebsd12_64Guest", Guest.UNKNOWN),
        ("otherGuest64", Guest.UNKNOWN),
        ("darwin19_64Guest", Guest.UNKNOWN),
    ],
)
def test_the_family_of_guests(guest_id: str, family: Guest) -> None:
    assert describe.guest_family(guest_id) is family


def test_windows_has_its_clock_in_local_time() -> None:
    machine = describe.description("win", read(guestId="windows9Server64Guest"))
    assert machine.clock is ClockOffset.LOCALTIME


@pytest.mark.parametrize(("said", "known"), [("virtio", ("virtio", "vmware")), ("virtio,,../x", ("virtio", "vmware"))])
def test_drivers_that_another_hypervisor_has_seen(said: str, known: tuple[str, ...]) -> None:
    assert describe.description("web", read(extraConfig=[option("vbackup.drivers", said)])).drivers == known


def test_a_guest_on_lsilogic_is_not_known_to_have_vmwares_drivers() -> None:
    hardware = [controller(device.VirtualLsiLogicController, 1000), disk(2000, 1000, 0)]
    assert describe.description("web", read(**{"hardware.device": hardware})).drivers == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"cards": [{"key": 4000, "model": "pcnet64", "network": {"name": "x"}}]}',
        '{"boot": {"order": ["disk:../etc"]}}',
        '{"version": "vmx-19; rm"}',
        '{"controllers": [{"key": 1, "model": "pvscsi", "number": 9}]}',
    ],
)
def test_a_document_that_is_none(text: str) -> None:
    with pytest.raises(Corrupt, match="vSphere configuration"):
        document.parse(text)
