"""A machine's virtual disks as a snapshot has frozen them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VmDisk:
    """One ``VirtualDisk``; sizes in bytes."""

    device: int
    """Its device key in vSphere, such as 2000."""
    label: str
    size: int
    file: str
    """Its VMDK: ``[datastore] dir/name.vmdk``; in a snapshot the frozen layer."""
    uuid: str
    change_id: str | None
    has_parent: bool
    """Whether its frozen layer is a delta: other snapshots of the machine lie below."""
    datastore: str
    """The datastore's name."""
    datastore_type: str
    """As vSphere calls it: VMFS, NFS, NFS41, vsan, VVOL."""
    is_thin: bool
    is_encrypted: bool
    bus: str
    """scsi, sata, ide, nvme."""
    controller: str
    """pvscsi, lsilogic, lsisas, buslogic, ahci, ide, nvme."""
    left_out: str | None
    """Why it is not captured, as a phrase: independent, raw device mapping, shared bus."""

    @property
    def key(self) -> str:
        """The disk's key on restore points."""
        return str(self.device)
