"""What the parts of the plugin share: one per entry under ``hypervisors:``."""

from __future__ import annotations

from vbackup.api import HypervisorContext
from vbackup_undo.journal import Journals
from vbackup_vsphere.inventory import Inventory
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.labels import labels
from vbackup_vsphere.limits import Slots
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.session import Session


class Site:
    """A vCenter or an ESXi host as we work with it."""

    def __init__(self, options: VsphereOptions, context: HypervisorContext) -> None:
        self.options = options
        self.context = context
        self.session = Session(options, context.alias)
        self.inventory = Inventory(self.session, labels)
        self.captures = Journals(context.state_dir, "capture", CaptureEntry)
        self.slots = Slots()
