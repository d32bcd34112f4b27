"""The simulated vCenter exports and imports machines, and moves disks between them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.client import Client
from tests.vcsim.simulator import Simulator

MIB = 1 << 20


def convert(stream: bytes, directory: Path) -> bytes:
    (directory / "x.vmdk").write_bytes(stream)
    subprocess.run(["qemu-img", "convert", "-Oraw", directory / "x.vmdk", directory / "x.raw"], check=True)
    return (directory / "x.raw").read_bytes()


def stream_of(image: Path, directory: Path) -> bytes:
    made = directory / "up.vmdk"
    options = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(["qemu-img", "convert", *options, image, made], check=True)
    return made.read_bytes()


def test_a_lease_exports_a_snapshot_and_another_imports_it(vcsim: Simulator, tmp_path: Path) -> None:
    disks: list[Any] = [8 * MIB, {"controller": "ahci", "size": 3 * MIB}]
    moid = vcsim.add_vm("web", disks=disks, firmware="efi")
    for disk in vcsim.disks("web"):
        vcsim.guest_write("web", disk["key"], MIB + 512, bytes([disk["key"] % 251]) * 5000)
    vcsim.snapshot("web", "somebody's")  # the lease reads chains
    images = [vcsim.disk("web", disk["key"]) for disk in vcsim.disks("web")]
    with Client(vcsim) as client:
        snapshot = client.snapshot(client.vm(moid))
        lease = snapshot.ExportSnapshot()
        assert client.get(lease, "state")["state"] == "ready"
        info = client.get(lease, "info")["info"]
        places = [url.key.rpartition("/")[2] for url in info.deviceUrl]
        assert places == ["ParaVirtualSCSIController0:0", "VirtualAHCIController0:0", "nvram"]
        assert [lease["vm"] for lease in vcsim.state()["leases"]] == ["web"]
        for url, image in zip(info.deviceUrl, images, strict=False):
            data = client.http("GET", url.url.removeprefix("https://*"))[1]
            assert convert(data, tmp_path) == image.read_bytes()
        nvram = client.http("GET", info.deviceUrl[2].url.removeprefix("https://*"))[1]
        assert nvram == vcsim.nvram("web").read_bytes()
        lease.HttpNfcLeaseComplete()
        spec = import_spec("again", 8 * MIB)
        lease = import_vm(client, spec)
        (url,) = client.get(lease, "info")["info"].deviceUrl
        assert url.importKey == "/again/VirtualLsiLogicController0:0"
        path = url.url.removeprefix("https://*")
        assert client.http("POST", path, stream_of(images[1], tmp_path))[0] == 500  # another capacity
        assert client.http("POST", path, images[0].read_bytes())[0] == 500  # no VMDK
        assert client.http("POST", path, stream_of(images[0], tmp_path))[0] == 201
        lease.HttpNfcLeaseComplete()
        assert vcsim.disk("again").read_bytes() == images[0].read_bytes()
        assert [upload["vm"] for upload in vcsim.state()["uploads"]] == ["again"]
        client.wait(snapshot.RemoveSnapshot_Task(False))
    vcsim.remove_snapshot("web", "somebody's")
    assert not vcsim.leaks()
    assert vcsim.state()["peak"]["snapshots"] == 2


def import_spec(name: str, size: int) -> Any:
    device = vim.vm.device
    change = device.VirtualDeviceSpec
    controller = device.VirtualLsiLogicController(key=-1, busNumber=0, sharedBus="noSharing")
    disk = device.VirtualDisk(key=-2, controllerKey=-1, unitNumber=0, capacityInKB=size // 1024)
    disk.backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent", thinProvisioned=True)
    card = device.VirtualVmxnet3(key=-3, macAddress="00:50:56:00:00:07", addressType="manual")
    card.backing = device.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network")
    return vim.vm.ConfigSpec(
        name=name,
        guestId="debian11_64Guest",
        memoryMB=64,
        numCPUs=2,
        firmware="efi",
        annotation="hello",
        instanceUuid="50112233-4455-6677-8899-aabbccddeeff",
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        extraConfig=[vim.option.OptionValue(key="a", value="b")],
        bootOptions=vim.vm.BootOptions(bootOrder=[vim.vm.BootOptions.BootableDiskDevice(deviceKey=-2)]),
        deviceChange=[
            change(operation="add", device=controller),
            change(operation="add", fileOperation="create", device=disk),
            change(operation="add", device=card),
        ],
    )


def import_vm(client: Client, spec: Any) -> Any:
    dc = client.content.rootFolder.childEntity[0]
    pool = client.get(dc.hostFolder.childEntity[0], "resourcePool")["resourcePool"]
    return pool.ImportVApp(vim.vm.VmImportSpec(configSpec=spec), dc.vmFolder)


def test_an_import_honours_its_specification_and_leaves_nothing_when_it_ends(
    make_vcsim: Callable[..., Simulator],
) -> None:
    vcsim = make_vcsim(lease_timeout="200ms")
    with Client(vcsim) as client:
        lease = import_vm(client, import_spec("new", MIB))
        (new,) = (vm for vm in vcsim.state()["vms"] if vm["name"] == "new")
        config = client.get(client.vm(new["id"]), "config")["config"]
        assert (config.hardware.memoryMB, config.hardware.numCPU, config.firmware) == (64, 2, "efi")
        assert (config.annotation, config.instanceUuid) == ("hello", "50112233-4455-6677-8899-aabbccddeeff")
        assert ("a", "b") in [(option.key, option.value) for option in config.extraConfig]
        by_label = {device.deviceInfo.label: device for device in config.hardware.device}
        disk, card = by_label["Hard disk 1"], by_label["Network adapter 1"]
        assert (disk.key, disk.controllerKey, disk.capacityInBytes) == (2000, 1000, MIB)
        assert (card.macAddress, card.backing.deviceName) == ("00:50:56:00:00:07", "VM Network")
        assert [boot.deviceKey for boot in config.bootOptions.bootOrder] == [2000]
        lease.HttpNfcLeaseAbort()
        assert "new" not in {vm["name"] for vm in vcsim.state()["vms"]}
        before = len(vcsim.state()["vms"])
        lease = import_vm(client, import_spec("again", MIB))
        while client.get(lease, "state")["state"] == "ready":
            pass
        assert len(vcsim.state()["vms"]) == before
        spec = import_spec("lost", MIB)
        spec.deviceChange[2].device.backing.deviceName = "no such network"
        with pytest.raises(vim.fault.InvalidDeviceSpec):
            import_vm(client, spec)


def test_a_disk_moves_from_one_machine_to_another(vcsim: Simulator) -> None:
    old, new = vcsim.add_vm("old", on=False), vcsim.add_vm("new", on=False)
    vcsim.guest_write("new", 0, 512, b"new bytes")
    change = vim.vm.device.VirtualDeviceSpec
    with Client(vcsim) as client:

        def disk_of(moid: str) -> Any:
            devices = client.get(client.vm(moid), "config.hardware.device")["config.hardware.device"]
            return next(device for device in devices if isinstance(device, vim.vm.device.VirtualDisk))

        disk, theirs = disk_of(old), disk_of(new)
        remove = change(operation="remove", fileOperation="destroy", device=disk)
        client.wait(client.vm(old).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[remove])))
        assert not vcsim.file(disk.backing.fileName).exists()
        keep = change(operation="remove", device=theirs)
        client.wait(client.vm(new).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[keep])))
        theirs.controllerKey = disk.controllerKey
        add = change(operation="add", device=theirs)
        client.wait(client.vm(old).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[add])))
        assert disk_of(old).backing.uuid == theirs.backing.uuid
        client.wait(client.vm(new).Destroy_Task())
    assert vcsim.disk("old").read_bytes()[512:521] == b"new bytes"
