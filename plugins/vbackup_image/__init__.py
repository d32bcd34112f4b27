"""Image files and block devices, with no hypervisor around: back up what lies there, restore disks into files."""

from __future__ import annotations

from vbackup.api import Hypervisor, Register, hookimpl


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register ``type: image``."""
    from vbackup_image.plugin import ImageHypervisor

    register(ImageHypervisor)
