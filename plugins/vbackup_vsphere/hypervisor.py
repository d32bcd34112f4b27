"""``type: vsphere``: the `Hypervisor` that the framework talks to."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from vbackup.api import (
    Capture,
    CaptureRequest,
    Finding,
    HypervisorContext,
    Level,
    MachineDescription,
    MachineRef,
    Marker,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
)
from vbackup_vsphere.options import VsphereOptions

if TYPE_CHECKING:
    from vbackup_vsphere.site import Site

_INSTALL = "pip install 'vbackup[vsphere]'"


class Vsphere:
    """Machines of a vCenter or of an ESXi host. See `vbackup.api.Hypervisor` for the methods.

    Whatever needs pyvmomi is imported when it is first used: the commands that do not are quick, and work without it.
    """

    name: ClassVar[str] = "vsphere"
    options: ClassVar[type[BaseModel]] = VsphereOptions
    writes_files: ClassVar[bool] = False

    def __init__(self, options: VsphereOptions, context: HypervisorContext) -> None:
        self._options = options
        self._context = context
        self._lock = threading.Lock()
        self._made: Site | None = None

    @property
    def site(self) -> Site:
        """What is connected at the first use. Raises: `Unsupported` when pyvmomi is not installed."""
        with self._lock:
            if self._made is None:
                if importlib.util.find_spec("pyVmomi") is None:
                    raise Unsupported("pyvmomi is not installed", hint=_INSTALL)
                from vbackup_vsphere.site import Site

                self._made = Site(self._options, self._context)
            return self._made

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`."""
        return self.site.inventory.machines()

    def capture(self, machine: str, request: CaptureRequest) -> AbstractContextManager[Capture]:
        """See `Hypervisor.capture`."""
        site = self.site
        from vbackup_vsphere.capture import capture

        return capture(site, machine, request)

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """See `Hypervisor.commit`. A change id is a number of vSphere's own: nothing is kept for it."""

    def sweep(self, owner: str) -> list[str]:
        """See `Hypervisor.sweep`."""
        site = self.site
        from vbackup_vsphere.sweep import sweep

        return sweep(site, owner)

    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> AbstractContextManager[Restoration]:
        """See `Hypervisor.restore`."""
        site = self.site
        from vbackup_vsphere.restore import restore

        return restore(site.session, self._context, machine, disks, files, request)

    def answers(self, machine: str) -> bool:
        """See `Hypervisor.answers`."""
        site = self.site
        from vbackup_vsphere.guest import answers

        return answers(site.session, site.inventory.find(machine))

    def check(self) -> Sequence[Finding]:
        """See `Hypervisor.check`."""
        try:
            site = self.site
        except Unsupported as error:
            return [Finding("pyvmomi", Level.ERROR, error.message, error.hint)]
        from vbackup_vsphere.doctor import check

        return check(site)

    def close(self) -> None:
        """See `Hypervisor.close`."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.session.close()
