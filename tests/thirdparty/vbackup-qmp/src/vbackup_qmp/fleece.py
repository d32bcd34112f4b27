"""A moment of a machine's disks, held inside of QEMU ("image fleecing").

For each disk there is an overlay, a scratch file on top of the disk itself. A backup job copies there what the guest is
about to overwrite, so the overlay shows the disk as it was when the job began, and QEMU's NBD server gives it to us:
https://www.qemu.org/docs/master/interop/live-block-operations.html

All that is made here has a name that begins with the token of the capture. So it can be undone by anybody who knows the
token, whatever became of who made it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener

from vbackup.api import Busy, CaptureLost
from vbackup_qmp.monitor import Monitor, Refused, is_listening
from vbackup_qmp.tracking import Tracked

_SERVER = "nbd"
"""The name of the NBD server's socket in the scratch directory."""
_AT_WORK = {"running", "paused", "standby"}
"""A job is paused for moments whenever QEMU wants its disk to be quiet; what must be copied is copied all the same."""


@dataclass(frozen=True, slots=True)
class Fleece:
    """The names of all that a capture makes in QEMU: ``scratch`` is its private directory."""

    token: str
    scratch: Path

    @classmethod
    def below(cls, directory: Path) -> Fleece:
        """Return one of its own, whose scratch directory is to be made in ``directory``."""
        token = f"vbq-{secrets.token_hex(6)}"  # names of nodes have 31 characters at most
        return cls(token, directory / token)

    @property
    def socket(self) -> Path:
        """Where QEMU's NBD server listens."""
        return self.scratch / _SERVER

    @property
    def bitmap(self) -> str:
        """The bitmap that tells what changed until the moment; it does not record."""
        return self.token

    def name(self, number: int) -> str:
        """Return the name of the job, the overlay and the export of a disk."""
        return f"{self.token}-{number}"

    def overlay(self, number: int) -> Path:
        """Return the scratch file of a disk."""
        return self.scratch / f"{number}.qcow2"


async def prepare(monitor: Monitor, fleece: Fleece, disks: Sequence[Tracked]) -> None:
    """Do all that takes long before the moment. The scratch files are there already.

    Raises: `Busy` when this QEMU has an NBD server, of which it can have only one.
    """
    address = {"type": "unix", "data": {"path": str(fleece.socket)}}
    try:
        await monitor.ask("nbd-server-start", addr=address)
    except Refused as error:
        raise Busy(error.message, hint="somebody else has QEMU's NBD server: end that first") from error
    for number, each in enumerate(disks):
        await monitor.ask(
            "blockdev-add",
            driver="qcow2",
            node_name=fleece.name(number),
            file={"driver": "file", "filename": str(fleece.overlay(number))},
            backing=each.disk.node,
            discard="unmap",
        )


async def begin(monitor: Monitor, fleece: Fleece, disks: Sequence[Tracked], new: str) -> None:
    """Hold the moment: that of all disks is the same. The bitmap ``new`` of each records what comes after it."""
    actions = [action for number, each in enumerate(disks) for action in _actions(fleece, number, each, new)]
    await monitor.ask("transaction", actions=actions)


def _actions(fleece: Fleece, number: int, tracked: Tracked, new: str) -> Iterator[dict[str, Any]]:
    # Bitmaps come before the job: what is written in between is in both of them, and only read once more.
    node = tracked.disk.node
    if tracked.old is not None:
        frozen = {"node": node, "name": fleece.bitmap, "disabled": True}
        yield {"type": "block-dirty-bitmap-add", "data": frozen}
        merged = {"node": node, "target": fleece.bitmap, "bitmaps": [tracked.old]}
        yield {"type": "block-dirty-bitmap-merge", "data": merged}
    added = {"node": node, "name": new, "persistent": tracked.disk.keeps_bitmaps}
    yield {"type": "block-dirty-bitmap-add", "data": added}
    name = fleece.name(number)
    yield {"type": "blockdev-backup", "data": {"job-id": name, "device": node, "target": name, "sync": "none"}}


async def export(monitor: Monitor, fleece: Fleece, disks: Sequence[Tracked]) -> None:
    """Let the overlays be read at `Fleece.socket`."""
    for number, each in enumerate(disks):
        name = fleece.name(number)
        bitmaps = {"bitmaps": [fleece.bitmap]} if each.old is not None else {}
        await monitor.ask("block-export-add", type="nbd", id=name, node_name=name, name=name, **bitmaps)


async def require_held(monitor: Monitor, fleece: Fleece, count: int) -> None:
    """Raise `CaptureLost` unless the jobs of all disks have been at work since the moment."""
    jobs = {job["id"]: job for job in await monitor.ask("query-jobs")}
    for number in range(count):
        job = jobs.get(fleece.name(number))
        if job is None or job["status"] not in _AT_WORK or job.get("error"):
            raise CaptureLost("QEMU's backup job ended before all was read")


async def is_there(monitor: Monitor, fleece: Fleece) -> bool:
    """Whether this is the QEMU that we made something in, and not one that was started since."""
    nodes = await monitor.ask("query-named-block-nodes", flat=True)
    return any(node["node-name"].startswith(fleece.token) for node in nodes)


async def undo(monitor: Monitor, fleece: Fleece) -> list[str]:
    """Remove all that bears our token, as far as it is there; returns a phrase for each."""
    undone: list[str] = []
    if is_listening(fleece.socket):  # the server is ours, and takes its exports along
        await monitor.ask("nbd-server-stop")
        undone.append("stopped its NBD server")
    for job in await monitor.ask("query-jobs"):
        if job["id"].startswith(fleece.token):
            await _cancel(monitor, job["id"])
            undone.append(f"ended the job {job['id']}")
    nodes = await monitor.ask("query-named-block-nodes", flat=True)
    for node in nodes:
        if node["node-name"].startswith(fleece.token):
            await monitor.ask("blockdev-del", node_name=node["node-name"])
    for node in nodes:
        if any(bitmap.get("name") == fleece.bitmap for bitmap in node.get("dirty-bitmaps", [])):
            await monitor.ask("block-dirty-bitmap-remove", node=node["node-name"], name=fleece.bitmap)
    return undone


async def _cancel(monitor: Monitor, job: str) -> None:
    def is_gone(event: Any) -> bool:
        return bool(event["data"]["id"] == job and event["data"]["status"] == "null")

    gone = EventListener("JOB_STATUS_CHANGE", is_gone)
    await monitor.ask_until(gone, f"the job {job} had ended", "job-cancel", id=job)
