"""A plugin that hears events, as one was written for API version 1: it writes them to ``$OLD_EVENTS``."""

import os
from pathlib import Path

from vbackup.api import hookimpl

VBACKUP_API_VERSION = 1


def _note(text):
    with Path(os.environ["OLD_EVENTS"]).open("a") as file:
        file.write(text + "\n")


@hookimpl
def vbackup_job_started(event):
    _note(f"{event.job} {event.hypervisor}:{event.machine} started")


@hookimpl
def vbackup_job_progress(event):
    disk = event.disk
    amounts = (disk.size, disk.done, disk.read, disk.unchanged, disk.zero, disk.duplicate)
    _note(f"{event.job} {event.hypervisor}:{event.machine} {disk.key} {' '.join(map(str, amounts))}")


@hookimpl
def vbackup_job_finished(event):
    _note(f"{event.job} {event.hypervisor}:{event.machine} finished {event.point} {event.error} {len(event.warnings)}")
