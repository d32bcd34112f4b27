"""Image files and block devices, with no hypervisor around: back up what lies there, restore disks into files.

And the target that keeps restore points as such files.
"""

from __future__ import annotations

from vbackup.api import Hypervisor, Register, Target, hookimpl

VBACKUP_BRINGS = {"hypervisors": ["image"], "targets": ["image"]}


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register ``type: image``."""
    from vbackup_image.plugin import ImageHypervisor

    register(ImageHypervisor)


@hookimpl
def vbackup_register_targets(register: Register[type[Target]]) -> None:
    """Register ``type: image``."""
    from vbackup_image.points.target import ImageTarget

    register(ImageTarget)
