"""What vSphere is asked to make."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from vbackup.api import PluginError
from vbackup_vsphere import importing, settings, spec
from vbackup_vsphere.document import Allocation, Boot, Card, Cdrom, Config, Controller, Disk, Network
from vbackup_vsphere.lease import LeaseUrl
from vbackup_vsphere.spec import Identity, Order

device = vim.vm.device
UUID = "42000000-0000-0000-0000-000000000001"

CONFIG = Config(
    guest_id="debian11_64Guest",
    cpus=4,
    cores=2,
    memory=2048,
    efi=True,
    secure_boot=True,
    annotation="the web server",
    cpu=Allocation(reservation=500, limit=2000, level="custom", shares=4000),
    boot=Boot(order=("nic:4000", "cdrom", "disk:2001"), delay=500, retry=10000),
    tracking=True,
    controllers=(
        Controller(key=200, model="ide", number=0),
        Controller(key=1000, model="pvscsi", number=0, slot=160),
        Controller(key=15000, model="ahci", number=1),
    ),
    disks=(
        Disk(key=2000, controller=1000, unit=0, size=(1 << 20) + 1, file="[other] secret/x.vmdk"),
        Disk(key=2001, controller=15000, unit=3, size=1 << 20),
    ),
    cdroms=(Cdrom(controller=200, unit=0),),
    cards=(Card(key=4000, model="vmxnet3", mac="00:50:56:aa:bb:cc", network=Network(name="LAN"), slot=192),),
    extra={"guestinfo.a": "b", "scsi0:0.fileName": "/vmfs/x"},
)


def build(config: Config = CONFIG, *, keeps_macs: bool = True) -> Any:
    backing = device.VirtualEthernetCard.NetworkBackingInfo(deviceName="LAN")
    identity = Identity("web", UUID, UUID, keeps_macs=keeps_macs)
    return spec.build(Order(config, identity, "vmx-19", "fast", {card.key: backing for card in config.cards}, "abcd"))


def made(asked: Any, kind: Any) -> list[Any]:
    return [one.device for one in asked.deviceChange if isinstance(one.device, kind)]


def test_the_machine() -> None:
    asked = build()
    assert (asked.name, asked.uuid, asked.instanceUuid) == ("web", UUID, UUID)
    assert (asked.numCPUs, asked.numCoresPerSocket, asked.memoryMB) == (4, 2, 2048)
    assert (asked.firmware, asked.bootOptions.efiSecureBootEnabled, asked.version) == ("efi", True, "vmx-19")
    assert asked.files.vmPathName == "[fast]"
    assert asked.bootOptions.bootDelay == 500
    assert asked.bootOptions.bootRetryDelay == 10000
    assert (asked.cpuAllocation.reservation, asked.cpuAllocation.shares.shares) == (500, 4000)
    assert asked.changeTrackingEnabled is None


def test_settings_and_the_mark() -> None:
    assert {one.key: one.value for one in build().extraConfig} == {"guestinfo.a": "b", settings.MARK: "abcd"}


def test_disks_are_thin_plugged_in_where_they_were_and_name_no_file() -> None:
    asked = build()
    keys = {type(one): one.key for one in made(asked, device.VirtualController)}
    first, second = made(asked, device.VirtualDisk)
    assert first.controllerKey == keys[device.ParaVirtualSCSIController]
    assert second.controllerKey == keys[device.VirtualAHCIController]
    assert (first.unitNumber, second.unitNumber) == (0, 3)
    assert first.capacityInBytes == (1 << 20) + 1024
    assert first.capacityInBytes == first.capacityInKB * 1024
    assert first.backing.fileName == "[fast]"
    assert first.backing.thinProvisioned
    assert all(one.key < 0 for one in (first, second))
    assert len({one.device.key for one in asked.deviceChange}) == len(asked.deviceChange)


def test_every_machine_has_its_ide_controllers() -> None:
    (cdrom,) = made(build(), device.VirtualCdrom)
    assert cdrom.controllerKey == 200
    assert not cdrom.connectable.startConnected


def test_cards() -> None:
    (card,) = made(build(), device.VirtualVmxnet3)
    assert (card.macAddress, card.addressType) == ("00:50:56:aa:bb:cc", "assigned")
    assert card.slotInfo.pciSlotNumber == 192
    (new,) = made(build(keeps_macs=False), device.VirtualVmxnet3)
    assert new.macAddress is None


@pytest.mark.parametrize(
    ("mac", "kind"),
    [
        ("52:54:00:12:34:56", "manual"),
        ("00:50:56:3f:ff:ff", "manual"),
        ("00:50:56:40:00:00", "assigned"),
        ("00:0C:29:12:34:56", "generated"),
    ],
)
def test_who_is_said_to_have_given_an_address(mac: str, kind: str) -> None:
    assert spec.mac_type(mac) == kind


def test_the_boot_order_has_the_keys_of_the_new_devices() -> None:
    order = spec.boot_options(CONFIG, {2001: 16003, 4000: 4005}).bootOrder
    assert [type(one).__name__.rpartition(".")[2] for one in order] == [
        "BootableEthernetDevice",
        "BootableCdromDevice",
        "BootableDiskDevice",
    ]
    assert (order[0].deviceKey, order[2].deviceKey) == (4005, 16003)


def url(key: str, import_key: str = "", *, is_disk: bool = True) -> LeaseUrl:
    return LeaseUrl(key=key, import_key=import_key, url=f"https://*/{key}", is_disk=is_disk, target="", thumbprint=None)


DISKS = {str(disk.key): disk for disk in CONFIG.disks}


def test_where_each_disk_is_sent() -> None:
    urls = [
        url("/vm-1/nvram", is_disk=False),
        url("a", "/vm-1/VirtualAHCIController1:3"),
        url("/vm-1/ParaVirtualSCSIController0:0"),
    ]
    found = importing.addresses(CONFIG, DISKS, urls)
    assert {key: one.url for key, one in found.items()} == {
        "2000": "https://*//vm-1/ParaVirtualSCSIController0:0",
        "2001": "https://*/a",
    }


@pytest.mark.parametrize("second", ["/vm-1/ParaVirtualSCSIController0:1", "disk-1", "/vm-1/VirtualIDEController1:3"])
def test_disks_that_cannot_be_told_apart(second: str) -> None:
    with pytest.raises(PluginError, match="2001"):
        importing.addresses(CONFIG, DISKS, [url("/vm-1/ParaVirtualSCSIController0:0"), url(second)])


def test_the_only_disk_needs_no_key() -> None:
    assert importing.addresses(CONFIG, {"2000": CONFIG.disks[0]}, [url("x")])["2000"].url == "https://*/x"
