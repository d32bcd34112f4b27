"""What ``vbackup doctor`` tells of a vCenter or an ESXi host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

from pyVmomi import vim

from vbackup.api import Finding, Level, VBackupError
from vbackup_vsphere import privileges
from vbackup_vsphere.privileges import Privilege
from vbackup_vsphere.readers import nbdkit
from vbackup_vsphere.readers.vddk import why_not
from vbackup_vsphere.site import Site

_OLDEST = (6, 5)
_SHOWN = 5


def check(site: Site) -> Sequence[Finding]:
    """See `vbackup.api.Hypervisor.check`."""
    return [
        Finding("pyvmomi", Level.OK, version("pyvmomi")),
        *site.options.password.findings(),
        *_ways(site),
        *_connection(site),
    ]


def _connection(site: Site) -> Iterator[Finding]:
    session = site.session
    try:
        about = session.content.about
    except VBackupError as error:
        yield Finding(f"connection to {session.host}", Level.ERROR, error.message, error.hint)
        return
    kind = "vCenter" if session.is_vcenter else "stand-alone ESXi"
    yield Finding(f"connection to {session.host}", Level.OK, f"{kind}: {about.fullName}, API {about.apiVersion}")
    if tuple(int(part) for part in about.apiVersion.split(".")[:2] if part.isdecimal()) < _OLDEST:
        hint = f"upgrade it to {_OLDEST[0]}.{_OLDEST[1]} or later"
        yield Finding(
            "vSphere version", Level.WARNING, f"{about.apiVersion} is older than what vbackup is made for", hint
        )
    yield from _safely(
        "privileges for backups", lambda: _privileges(site, "backups", privileges.for_backup, Level.ERROR)
    )
    yield from _safely(
        "privileges for restores", lambda: _privileges(site, "restores", privileges.for_restore, Level.WARNING)
    )
    yield from _safely("changed-block tracking", lambda: _tracking(site))


def _safely(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except VBackupError as error:
        yield Finding(what, Level.ERROR, error.message, error.hint)


def _privileges(site: Site, purpose: str, wanted: Callable[..., list[Privilege]], level: Level) -> Iterator[Finding]:
    needed = wanted(site.options)
    lacking = privileges.missing(site.session, needed)
    for one in lacking:
        yield Finding(f"privilege for {purpose}", level, f"missing: {one}", "add it to the role of the user")
    if not lacking:
        yield Finding(f"privileges for {purpose}", Level.OK, f"all {len(needed)} are granted")


def _ways(site: Site) -> Iterator[Finding]:
    if "vddk" not in site.options.read:
        return
    if site.options.vddk is None:
        if set(site.options.read) == {"vddk"}:
            yield Finding(
                "VDDK", Level.ERROR, "`read` names vddk only, and there is no `vddk:`", "set `vddk: {libdir: ...}`"
            )
        return
    if not nbdkit.is_installed():
        yield Finding("nbdkit", Level.ERROR, "nbdkit is not installed", nbdkit.PACKAGE)
        return
    reason = why_not(site.options.vddk)
    if reason is not None:
        yield Finding("VDDK", Level.ERROR, reason, "see the plugin's README")
    else:
        yield Finding("VDDK", Level.OK, str(site.options.vddk.libdir))


def _tracking(site: Site) -> Iterator[Finding]:
    if site.options.tracking == "no":
        yield Finding("changed-block tracking", Level.OK, "not used, as configured")
        return
    rows = site.session.list(vim.VirtualMachine, "name", "config.changeTrackingEnabled", "config.template")
    machines = [row for _, row in rows if not row.get("config.template")]
    off = sorted(row.get("name", "") for row in machines if not row.get("config.changeTrackingEnabled"))
    if not off:
        yield Finding("changed-block tracking", Level.OK, f"on for all {len(machines)} machines")
        return
    shown = ", ".join(off[:_SHOWN]) + (" ..." if len(off) > _SHOWN else "")
    detail = f"off for {len(off)} of {len(machines)} machines, which are read in full each time: {shown}"
    if site.options.tracking == "enable":
        yield Finding(
            "changed-block tracking", Level.OK, f"off for {len(off)} machines; their next backup switches it on"
        )
    else:
        yield Finding("changed-block tracking", Level.WARNING, detail, "`tracking: enable` switches it on")
