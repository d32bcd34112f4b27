"""vSphere's faults as errors of ours."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any

import pytest
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
from vbackup_vsphere import faults
from vbackup_vsphere.faults import translate


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("reset"), Unavailable),
        (HTTPException("503 Service Unavailable"), Unavailable),
        (vim.fault.InvalidLogin(), AccessDenied),
        (vim.fault.NoDiskSpace(), NoSpace),
        (vim.fault.TaskInProgress(), Busy),
        (vim.fault.FileLocked(), Busy),
        (vim.fault.ApplicationQuiesceFault(), GuestError),
        (vim.fault.RestrictedVersion(), Unsupported),
        (vim.fault.DuplicateName(), AlreadyExists),
        (vim.fault.SharedBusControllerNotSupported(), Unsupported),
        (vmodl.fault.HostNotConnected(), Unavailable),
        (vmodl.fault.ManagedObjectNotFound(), NotFound),
        (vim.fault.FileFault(msg="No space left on device"), NoSpace),
        (vim.fault.FileFault(), VBackupError),
    ],
)
def test_the_kind_of_a_fault(error: Any, kind: type[VBackupError]) -> None:
    told = translate("doing it", error, str)
    assert type(told) is kind
    assert told.message.startswith("doing it: ")
    assert told.transient == kind.default_transient


def test_each_privilege_is_named_with_its_object() -> None:
    root, host = vim.Folder("group-d1"), vim.HostSystem("host-1")
    lacks = [
        vim.fault.NoPermission.EntityPrivileges(entity=root, privilegeIds=["A.One", "A.Two"]),
        vim.fault.NoPermission.EntityPrivileges(entity=host, privilegeIds=["B.One"]),
    ]
    error = vim.fault.NoPermission(object=root, privilegeId="A.One", missingPrivileges=lacks)
    message = translate("doing it", error, lambda ref: str(ref._GetMoId())).message
    for part in ("A.One on group-d1", "A.Two on group-d1", "B.One on host-1"):
        assert part in message


def test_what_a_fault_says_is_kept() -> None:
    error = vim.fault.FileFault(msg="Error caused by file x.vmdk.")
    error.faultMessage = [vmodl.LocalizableMessage(key="k", message="the file is damaged")]
    assert translate("doing it", error, str).message == "doing it: Error caused by file x.vmdk: the file is damaged"


def test_the_table_names_faults_that_there_are() -> None:
    assert [name for name, _, _ in faults._KINDS if faults._type(name) is None] == []
