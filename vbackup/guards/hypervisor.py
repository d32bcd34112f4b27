"""The guard around each hypervisor."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from vbackup.api import (
    CaptureRequest,
    Finding,
    Hypervisor,
    MachineDescription,
    MachineRef,
    Marker,
    PluginError,
    RestoreDisk,
    RestoreRequest,
    VBackupError,
)
from vbackup.guards.answers import checked, findings, listed
from vbackup.guards.blame import Blame, Raised, told, told_value
from vbackup.guards.capture import GuardedCapture
from vbackup.guards.restoration import GuardedRestoration

T = TypeVar("T")
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,255}")  # as `vbackup.api.Name`
_log = logging.getLogger(__name__)


class GuardedHypervisor:
    """Holds a hypervisor to its promises. It gets copies of what it could change."""

    def __init__(self, inner: Hypervisor, blame: Blame) -> None:
        self.inner = inner
        self.name: str = inner.name
        self.options: type[BaseModel] = inner.options
        self.writes_files: bool = inner.writes_files
        self._blame = blame

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`."""
        with self._blame.calling("machines"):
            found = listed(self.inner.machines(), MachineRef, "machines", self._blame)
            for ref in found:
                self._check_ref(ref)
        return found

    @contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[GuardedCapture]:
        """See `Hypervisor.capture`. No error of ours is swallowed."""
        if not _NAME.fullmatch(machine) or machine in {".", ".."}:
            raise self._blame.error(f"it lists a machine named {machine!r:.300}, which is no name")
        raised = Raised()
        moment = None if request.moment is None else raised.by(request.moment)
        asked = replace(request, since=copy.deepcopy(request.since), moment=moment)
        with self._held(lambda: self.inner.capture(machine, asked), f"capture of {machine}", raised) as capture:
            yield GuardedCapture(capture, self._blame)

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """See `Hypervisor.commit`."""
        with self._blame.calling("commit", machine):
            self.inner.commit(machine, owner, copy.deepcopy(marker))

    def sweep(self, owner: str) -> list[str]:
        """See `Hypervisor.sweep`."""
        with self._blame.calling("sweep"):
            return listed(self.inner.sweep(owner), str, "sweep", self._blame)

    @contextmanager
    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> Iterator[GuardedRestoration]:
        """See `Hypervisor.restore`. No error of ours is swallowed."""
        wanted, given = tuple(disks), dict(files)
        asked = replace(request, disks=dict(request.disks))
        what = f"restore of {request.name or machine.name}"
        with self._held(lambda: self.inner.restore(machine, wanted, given, asked), what, Raised()) as restoration:
            yield GuardedRestoration(restoration, self._blame)

    def answers(self, machine: str) -> bool:
        """See `Hypervisor.answers`."""
        with self._blame.calling("answers", machine):
            return checked(self.inner.answers(machine), bool, "answers", self._blame)

    def check(self) -> Sequence[Finding]:
        """See `Hypervisor.check`."""
        with self._blame.calling("check"):
            return findings(self.inner.check(), "check", self._blame)

    def close(self) -> None:
        """See `Hypervisor.close`."""
        with self._blame.calling("close"):
            self.inner.close()

    @contextmanager
    def _held(self, make: Callable[[], AbstractContextManager[T]], what: str, raised: Raised) -> Iterator[T]:
        """Hold a plugin's context open. An error of ours goes through it, and comes out again whatever it does."""
        with self._blame.calling(what, raised=raised):
            manager = make()
            held = manager.__enter__()
        try:
            yield held
        except BaseException as error:
            raised.error = error
            try:
                with self._blame.calling(f"the end of the {what}", raised=raised):
                    manager.__exit__(type(error), error, error.__traceback__)
            except VBackupError as other:
                if other is not error:
                    if isinstance(error, VBackupError) and not isinstance(other, PluginError):
                        raise  # it knows better why
                    _log.warning("%s (while undoing after: %s)", other.message, told(error))
            raise
        with self._blame.calling(f"the end of the {what}", raised=raised):
            manager.__exit__(None, None, None)

    def _check_ref(self, ref: MachineRef) -> None:
        texts = (ref.name, ref.id, ref.folder)
        # No subclass of a text: it is compared, looked up and shown far from here, which may be code of its own.
        if not all(type(text) is str for text in texts) or not ref.name or not ref.id:
            raise self._blame.error(
                f"machines gave a machine whose name, id or folder is no text: {told_value(ref.name)}"
            )
        if "\n" in ref.name or "\r" in ref.name:
            raise self._blame.error(f"machines gave a name of several lines: {ref.name!r:.80}")
        pairs = isinstance(ref.labels, frozenset) and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(type(part) is str for part in pair)
            for pair in ref.labels
        )
        if not isinstance(ref.running, bool) or not pairs:
            raise self._blame.error(f"machines gave {ref.name!r:.80} with `running` or `labels` of another type")
