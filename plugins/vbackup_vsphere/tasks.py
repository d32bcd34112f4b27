"""Waiting for vSphere's tasks."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim, vmodl

from vbackup_vsphere import properties

WATCHING = 20
"""Seconds for which one call waits, so that a dead connection does not hold us for long."""

ENDED = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)


def await_change(content: Any, task: Any) -> None:
    """Wait until a task has ended, or for `WATCHING` seconds. Raises pyvmomi's faults."""
    with properties.watching(content, task, "info.state") as collector:
        seen = collector.WaitForUpdatesEx("", None)
        if seen is not None and _is_running(seen):
            options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=WATCHING)
            collector.WaitForUpdatesEx(seen.version, options)


def _is_running(updates: Any) -> bool:
    changes = [c.val for f in updates.filterSet for o in f.objectSet for c in o.changeSet]
    return bool(changes) and changes[-1] not in ENDED
