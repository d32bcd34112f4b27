"""How far things are: bars on a terminal, lines in a log, JSON lines for programs.

Plugins like any other: they hear of a run through the job events. All but the JSON goes to stderr.
"""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from vbackup.api import DiskProgress, JobEvent, JobFinished, JobProgress, JobStarted, hookimpl
from vbackup.cli import output


def for_run(*, as_json: bool) -> AbstractContextManager[object]:
    """Return the plugin that shows a run in the way that suits where it goes."""
    if as_json:
        return nullcontext(JsonLines())
    return Bars() if sys.stderr.isatty() else nullcontext(Lines())


class JsonLines:
    """Each event is a line of JSON: ``event`` is started, progress or finished; amounts are bytes."""

    @hookimpl
    def vbackup_job_started(self, event: JobStarted) -> None:
        """See the hook."""
        output.document({"event": "started", **asdict(event)}, indent=None)

    @hookimpl
    def vbackup_job_progress(self, event: JobProgress) -> None:
        """See the hook."""
        output.document({"event": "progress", **asdict(event)}, indent=None)

    @hookimpl
    def vbackup_job_finished(self, event: JobFinished) -> None:
        """See the hook."""
        output.document({"event": "finished", **asdict(event)}, indent=None)


class Lines:
    """A line when a machine begins and one when it is done."""

    @hookimpl
    def vbackup_job_started(self, event: JobStarted) -> None:
        """See the hook."""
        output.complain(f"{_name(event)}: started")

    @hookimpl
    def vbackup_job_finished(self, event: JobFinished) -> None:
        """See the hook."""
        output.complain(_finished(event))


class Bars:
    """A line for each disk that is under way, kept up to date; nothing unless stderr is a terminal.

    A context manager: the bars are there for its time. Methods may be called from many threads.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TextColumn("{task.fields[skipped]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()
        self._checked = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def disk(self, key: str, done: int, size: int) -> None:
        """Show that ``done`` of ``size`` bytes of a disk are written."""
        self._show(("", key), key, done, size)

    def checked(self, count: int) -> None:
        """Show that ``count`` more bytes are checked."""
        with self._lock:
            self._checked += count
        self._show(("", ""), "checked", self._checked, None)

    @hookimpl
    def vbackup_job_progress(self, event: JobProgress) -> None:
        """See the hook."""
        disk = event.disk
        self._show((_name(event), disk.key), f"{_name(event)} {disk.key}", disk.done, disk.size, _skipped(disk))

    @hookimpl
    def vbackup_job_finished(self, event: JobFinished) -> None:
        """See the hook."""
        with self._lock:
            for owner, key in [each for each in self._tasks if each[0] == _name(event)]:
                self._progress.remove_task(self._tasks.pop((owner, key)))
        self._console.print(output.line(_finished(event)), markup=False, highlight=False)

    def _show(self, task: tuple[str, str], text: str, done: int, size: int | None, skipped: str = "") -> None:
        with self._lock:
            if task not in self._tasks:
                self._tasks[task] = self._progress.add_task(output.line(text), total=size, skipped="")
            self._progress.update(self._tasks[task], completed=done, total=size, skipped=skipped)


def _name(event: JobEvent) -> str:
    return f"{event.hypervisor}:{event.machine}"


def _finished(event: JobFinished) -> str:
    if event.error:
        return f"{_name(event)}: failed: {event.error}"
    warned = f" with {len(event.warnings)} warnings" if event.warnings else ""
    return f"{_name(event)}: done{warned}: {event.point}"


def _skipped(disk: DiskProgress) -> str:
    amounts = {"unchanged": disk.unchanged, "zero": disk.zero, "duplicate": disk.duplicate}
    return ", ".join(f"{output.size(amount)} {name}" for name, amount in amounts.items() if amount)
