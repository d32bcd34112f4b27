"""A listener that is right, and others that are but for one thing each."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import Counter

from vbackup.api import hookimpl


class Metrics:
    """What a plugin of metrics may look like: counts, and sends at the end, in a thread of its own."""

    def __init__(self):
        self.counts = Counter()
        self.sent = queue.SimpleQueue()
        self._lock = threading.Lock()

    @hookimpl
    def vbackup_job_started(self, event):
        with self._lock:
            self.counts["started"] += 1

    @hookimpl
    def vbackup_job_progress(self, event):
        disk = event.disk
        percent = disk.done * 100 // disk.size if disk.size else 100
        with self._lock:
            self.counts[f"{event.hypervisor}:{event.machine}:{disk.key}"] = percent

    @hookimpl
    def vbackup_job_finished(self, event):
        threading.Thread(target=self.sent.put, args=(f"{event.machine}: {event.error or event.point}",)).start()


class Raises(Metrics):
    @hookimpl
    def vbackup_job_finished(self, event):
        if event.error:
            raise ConnectionError("the dashboard is away")


class NeedsStart(Metrics):
    """Takes it for granted that there was a start."""

    def __init__(self):
        super().__init__()
        self.running = set()

    @hookimpl
    def vbackup_job_started(self, event):
        self.running.add(event.machine)

    @hookimpl
    def vbackup_job_finished(self, event):
        self.running.remove(event.machine)


class Divides(Metrics):
    @hookimpl
    def vbackup_job_progress(self, event):
        self.counts["percent"] = event.disk.done * 100 // event.disk.size


class OnlyForward(Metrics):
    @hookimpl
    def vbackup_job_progress(self, event):
        key = f"{event.job}:{event.hypervisor}:{event.machine}:{event.disk.key}"
        if event.disk.done < self.counts[key]:
            raise ValueError(f"{key} went back")
        self.counts[key] = event.disk.done


class ByName(Metrics):
    """Takes a machine's name for a machine."""

    def __init__(self):
        super().__init__()
        self.running = set()

    @hookimpl
    def vbackup_job_started(self, event):
        if event.machine in self.running:
            raise ValueError(f"{event.machine} runs already")
        self.running.add(event.machine)

    @hookimpl
    def vbackup_job_finished(self, event):
        self.running.discard(event.machine)


class Formats(Metrics):
    @hookimpl
    def vbackup_job_started(self, event):
        _ = (event.machine + ": %d started") % 1


class OneThread(Metrics):
    """Cannot be in two threads at once."""

    def __init__(self):
        super().__init__()
        self.inside = threading.Lock()

    @hookimpl
    def vbackup_job_progress(self, event):
        if not self.inside.acquire(blocking=False):
            raise RuntimeError("called from two threads")
        threading.Event().wait(0.001)
        self.inside.release()


class Changes(Metrics):
    @hookimpl
    def vbackup_job_finished(self, event):
        object.__setattr__(event, "warnings", (*event.warnings, "seen"))


class Leaks(Metrics):
    over = threading.Event()

    @hookimpl
    def vbackup_job_started(self, event):
        threading.Thread(target=self.over.wait, name="sender").start()


class SetsVariable(Metrics):
    @hookimpl
    def vbackup_job_started(self, event):
        os.environ["DASHBOARD_URL"] = "https://dash.example.org"


class Logs(Metrics):
    @hookimpl
    def vbackup_job_started(self, event):
        logging.getLogger().addHandler(logging.NullHandler())


class Loud(Metrics):
    @hookimpl
    def vbackup_job_started(self, event):
        logging.getLogger("vbackup").setLevel(logging.DEBUG)


class Moves(Metrics):
    @hookimpl
    def vbackup_job_started(self, event):
        os.chdir("/")


class Deaf:
    """Listens to nothing: the functions are not marked."""

    def vbackup_job_started(self, event):
        pass


class HalfDeaf(Metrics):
    def vbackup_job_finished(self, event):
        pass


class Misnamed(Metrics):
    @hookimpl
    def vbackup_job_ended(self, event):
        pass


class WrongArgument(Metrics):
    @hookimpl
    def vbackup_job_started(self, job):
        pass
