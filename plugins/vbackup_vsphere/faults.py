"""vSphere's faults as errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Busy,
    GuestError,
    NoSpace,
    NotFound,
    Unavailable,
    Unsupported,
    VBackupError,
)

TRANSPORT = (OSError, HTTPException, ExpatError)
"""What pyvmomi lets through when the other side is not there, ends in mid-answer or is a proxy that says 503."""

_TOOLS = "are VMware Tools (open-vm-tools) running in the guest?"

_KINDS: tuple[tuple[str, type[VBackupError], str], ...] = (
    ("vim.fault.InvalidLogin", AccessDenied, "`user` is written like administrator@vsphere.local"),
    ("vim.fault.PasswordExpired", AccessDenied, "set a new password"),
    ("vim.fault.NotAuthenticated", Unavailable, ""),
    ("vim.fault.NoPermission", AccessDenied, ""),
    ("vmodl.fault.ManagedObjectNotFound", NotFound, "it was removed meanwhile"),
    ("vim.fault.FileNotFound", NotFound, ""),
    ("vim.fault.NotFound", NotFound, ""),
    ("vim.fault.NoDiskSpace", NoSpace, "make room on the datastore"),
    ("vim.fault.InsufficientStorageSpace", NoSpace, "make room on the datastore"),
    ("vim.fault.InsufficientDisks", NoSpace, ""),
    ("vim.fault.FileTooLarge", NoSpace, ""),
    ("vim.fault.FileAlreadyExists", AlreadyExists, ""),
    ("vim.fault.DuplicateName", AlreadyExists, ""),
    ("vim.fault.AlreadyExists", AlreadyExists, ""),
    ("vim.fault.FileLocked", Busy, "another program, such as another backup, holds a file of it"),
    ("vim.fault.TaskInProgress", Busy, "wait for the task that is running on it"),
    ("vim.fault.ConcurrentAccess", Busy, ""),
    ("vim.fault.ResourceInUse", Busy, ""),
    ("vim.fault.InvalidPowerState", Busy, "it was switched on or off meanwhile"),
    ("vim.fault.ApplicationQuiesceFault", GuestError, _TOOLS),
    ("vim.fault.FilesystemQuiesceFault", GuestError, _TOOLS),
    ("vim.fault.ToolsUnavailable", GuestError, _TOOLS),
    ("vim.fault.RestrictedVersion", Unsupported, "the free licence of ESXi lets programs read only"),
    ("vim.fault.TooManySnapshotLevels", Unsupported, "consolidate the machine's snapshots"),
    ("vim.fault.DeviceNotSupported", Unsupported, "vSphere does not do that to a machine with such a device"),
    ("vmodl.fault.NotSupported", Unsupported, ""),
    ("vmodl.fault.MethodNotFound", Unsupported, ""),
    ("vmodl.fault.NotImplemented", Unsupported, ""),
    ("vmodl.fault.HostNotConnected", Unavailable, "the ESXi host does not answer its vCenter"),
    ("vmodl.fault.HostCommunication", Unavailable, "the ESXi host does not answer its vCenter"),
    ("vmodl.fault.HostNotReachable", Unavailable, "the ESXi host does not answer its vCenter"),
    ("vim.fault.HostConnectFault", Unavailable, "the ESXi host does not answer its vCenter"),
    ("vim.fault.Timedout", Unavailable, ""),
    ("vim.fault.InaccessibleDatastore", Unavailable, "its datastore cannot be reached"),
    ("vim.fault.CannotAccessFile", Unavailable, "is its datastore there?"),
    ("vmodl.fault.SecurityError", AccessDenied, ""),
)
"""Names, since which types exist depends on pyvmomi's version; the first that fits counts."""


def text_of(fault: Any) -> str:
    """Return what a fault says to people."""
    said = getattr(fault, "msg", None) or ""
    details = [m.message for m in getattr(fault, "faultMessage", None) or () if m.message]
    parts = [part.strip().rstrip(".") for part in (said, *details) if part.strip()]
    return ": ".join(dict.fromkeys(parts)) or type(fault).__name__.rpartition(".")[2]


def translate(what: str, error: Any, name_of: Callable[[Any], str]) -> VBackupError:
    """Return a fault, or what pyvmomi raised instead, as an error whose message begins with ``what``.

    ``name_of`` gives the name of an inventory object.
    """
    if isinstance(error, TRANSPORT):
        return Unavailable(f"{what}: {error or type(error).__name__}", hint="is the host up, and reachable from here?")
    if isinstance(error, vim.fault.NoPermission):
        return _no_permission(what, error, name_of)
    message = f"{what}: {text_of(error)}"
    if "No space left on device" in message:
        return NoSpace(message)
    for name, kind, hint in _KINDS:
        fault = _type(name)
        if fault is not None and isinstance(error, fault):
            return kind(message, hint=hint)
    return VBackupError(message)


def _type(name: str) -> type | None:
    module = vim if name.startswith("vim.") else vmodl
    return getattr(module.fault, name.rpartition(".")[2], None)


def _no_permission(what: str, error: Any, name_of: Callable[[Any], str]) -> AccessDenied:
    lacks: list[tuple[str, str]] = []
    for entity in getattr(error, "missingPrivileges", None) or ():
        lacks += [(privilege, name_of(entity.entity)) for privilege in entity.privilegeIds or ()]
    if not lacks and error.privilegeId:
        lacks = [(error.privilegeId, name_of(error.object) if error.object is not None else "it")]
    if not lacks:
        return AccessDenied(f"{what}: the user lacks a privilege", hint="`vbackup doctor` tells which are missing")
    named = ", ".join(f"the privilege {privilege} on {name}" for privilege, name in lacks)
    return AccessDenied(f"{what}: the user lacks {named}", hint="add it to the role of the user")
