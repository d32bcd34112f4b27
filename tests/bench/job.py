"""A backup job of libvirt's with nothing done in it: what no backup can do without, and where bare readers read.

Run as a program, ``python -m tests.bench.job GUEST SINCE NEXT DIRECTORY``, it does what each incremental backup has
libvirt do: a job since the checkpoint SINCE begins, with a new checkpoint NEXT, and ends; SINCE goes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from vbackup.testing.lab.libvirtd import until


@contextmanager
def serving(domain: libvirt.virDomain, place: Path, since: str = "", checkpoint: str = "") -> Iterator[Path]:
    """Have a running machine serve its disk ``vda`` by NBD, as it is now; yield the socket."""
    socket = place / f"{domain.name()}.socket"
    incremental = f"<incremental>{since}</incremental>" if since else ""
    backup = f"""<domainbackup mode='pull'>{incremental}
      <server transport='unix' socket='{socket}'/>
      <disks><disk name='vda' backup='yes' type='file' exportname='vda'>
        <driver type='qcow2'/><scratch file='{place / domain.name()}.scratch'/>
      </disk></disks></domainbackup>"""
    domain.backupBegin(backup, _checkpoint(checkpoint) if checkpoint else None)
    try:
        yield socket
    finally:
        domain.abortJob()
        until(lambda: domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the backup job to end")


def first_checkpoint(domain: libvirt.virDomain, name: str) -> None:
    """Make a checkpoint to begin with."""
    domain.checkpointCreateXML(_checkpoint(name))


def _checkpoint(name: str) -> str:
    return f"<domaincheckpoint><name>{name}</name></domaincheckpoint>"


def main() -> None:
    """Run as a program."""
    guest, since, following, place = sys.argv[1:]
    domain = libvirt.open("qemu:///system").lookupByName(guest)
    with serving(domain, Path(place), since, following):
        pass
    domain.checkpointLookupByName(since).delete()


if __name__ == "__main__":
    main()
