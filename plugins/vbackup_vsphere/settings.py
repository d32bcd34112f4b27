"""Which of a machine's settings (``extraConfig``) are kept: those that describe the guest, by name.

Everything else is left out, since a setting can name files of other machines, open a debugger's port or pass a device
of the host through, and most of them are only what a host has noted for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vbackup_vsphere.document import DRIVERS

MARK = "vbackup.restore"
"""A setting of a machine that a restore has not finished: the restore's token. Only such a machine may be swept."""

_KEPT = re.compile(
    r"""guestinfo\.[\w.-]+
    | vbackup\.drivers
    | disk\.enableuuid
    | isolation\.tools\.[\w.-]+
    | isolation\.device\.[\w.-]+
    | time\.synchronize\.[\w.-]+
    | rtc\.difffromutc
    | numa\.[\w.-]+
    | cpuid\.[\w.-]+
    | hypervisor\.cpuid\.v0
    | devices\.hotplug
    | sched\.cpu\.latencysensitivity
    | mks\.enable3d
    | svga\.(autodetect|vramsize|maxwidth|maxheight|numdisplays|guestbackedprimaryaware)
    | tools\.upgrade\.policy
    | tools\.guest\.desktop\.autolock
    | remotedisplay\.maxconnections
    | log\.(rotatesize|keepold)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOTED_BY_HOSTS = re.compile(
    r"""(guestinfo\.)?(vmtools|detailed|appinfo|vmware\.components).*
    | .*\.(pcislotnumber|present|redo|filename|reservation)
    | (pcibridge|scsi|sata|nvme|ide|ethernet|usb|ehci|vmci|hpet|floppy|cpuid|numvcpus|migrate|vmotion|viv|vmxstats).*
    | (monitor|sched\.swap|sched\.scsi|svga|nvram|softpoweroff|toolsinstallmanager|tools|virtualhw|extendedconfigfile).*
    | (ctkenabled|govcsim|evccompatibilitymode|hostcpuid|hostcpuinfo|guestcpuid|checkpoint|config\.readonly|uuid).*
    | (vmware\.tools|cleanshutdown|replay|snapshot|unity|mks|vm\.genid|disk\.scsiunmapallowed|vbackup\.restore).*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_OF_TOOLS = re.compile(r"guestinfo\.(vmtools|detailed|appInfo|vmware\.components|driver)", re.IGNORECASE)


def kept(options: Iterable[Any]) -> dict[str, str]:
    """Return the settings that are kept of ``config.extraConfig``."""
    return {
        str(one.key): str(one.value)
        for one in options
        if _KEPT.fullmatch(str(one.key)) and not _OF_TOOLS.match(str(one.key))
    }


def dropped(options: Iterable[Any]) -> Iterator[str]:
    """Yield the names of settings that somebody has made and that are left out."""
    for one in options:
        key = str(one.key)
        if not _KEPT.fullmatch(key) and not _NOTED_BY_HOSTS.fullmatch(key):
            yield key


def allowed(extra: Mapping[str, str]) -> dict[str, str]:
    """Return those of a restore point's settings that may be set: it may say anything."""
    return {key: value for key, value in extra.items() if _KEPT.fullmatch(key)}


def drivers(extra: Mapping[str, str]) -> tuple[str, ...]:
    """Return the device families that the setting `DRIVERS` names."""
    named = (one.strip() for one in extra.get(DRIVERS, "").split(","))
    return tuple(one for one in named if re.fullmatch(r"[a-z0-9-]{1,32}", one))[:8]
