"""The guard around what a hypervisor captures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from vbackup.api import Capture, MachineDescription, Marker, clock
from vbackup.guards.answers import as_json, checked, kind_of, listed
from vbackup.guards.blame import Blame
from vbackup.guards.disk import KEY, GuardedSource

_MOST_FILE = 64 << 20
_AHEAD = timedelta(hours=1)
_MOST_MARKER = 1 << 20


class GuardedCapture:
    """A `Capture` all of whose parts are of their types; what cannot change is asked for once."""

    def __init__(self, inner: Capture, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame
        with blame.calling("capture.machine"):
            described = checked(inner.machine, MachineDescription, "capture.machine", blame)
            # Made without its checks, it may still hold anything.
            self.machine = MachineDescription.model_validate(described.model_dump(warnings=False))
        with blame.calling("capture.disks"):
            self.disks: Sequence[GuardedSource] = [
                GuardedSource(disk, blame) for disk in listed(inner.disks, object, "capture.disks", blame)
            ]
            memory = inner.memory
            self.memory = GuardedSource(memory, blame) if memory is not None else None
        keys = [disk.key for disk in self.disks]
        if len(set(keys)) != len(keys):
            raise blame.error(f"capture.disks has two disks of one key: {', '.join(sorted(keys))}")

    @property
    def time(self) -> datetime:
        """See `Capture.time`."""
        with self._blame.calling("capture.time"):
            moment = checked(self._inner.time, datetime, "capture.time", self._blame)
        if moment.utcoffset() is None:
            raise self._blame.error("capture.time has no time zone")
        if moment > clock.now() + _AHEAD:  # it would stay the latest point until then
            raise self._blame.error(f"capture.time is in the future: {moment.isoformat()}")
        return moment

    @property
    def quiesced(self) -> bool:
        """See `Capture.quiesced`."""
        with self._blame.calling("capture.quiesced"):
            return checked(self._inner.quiesced, bool, "capture.quiesced", self._blame)

    @property
    def files(self) -> Mapping[str, bytes]:
        """See `Capture.files`."""
        with self._blame.calling("capture.files"):
            files = dict(self._inner.files)
        for name, data in files.items():
            if type(name) is not str or not KEY.fullmatch(name):
                raise self._blame.error(f"capture.files has the name {name!r:.80}, which is none")
            if type(data) is not bytes or len(data) > _MOST_FILE:
                what = f"{len(data)} bytes" if type(data) is bytes else kind_of(data)
                raise self._blame.error(f"capture.files has {what} for {name}, not at most {_MOST_FILE} bytes")
        return files

    @property
    def marker(self) -> Marker | None:
        """See `Capture.marker`: a copy, as it is stored."""
        with self._blame.calling("capture.marker"):
            marker: object = self._inner.marker
        if marker is None:
            return None
        if not isinstance(marker, dict):
            raise self._blame.error(f"capture.marker is {kind_of(marker)}, not a mapping or None")
        text = as_json(marker, "capture.marker", self._blame)
        if len(text) > _MOST_MARKER:
            raise self._blame.error(f"capture.marker has {len(text)} bytes, which is too much")
        copy: Marker = json.loads(text)
        return copy

    @property
    def notes(self) -> Sequence[str]:
        """See `Capture.notes`."""
        with self._blame.calling("capture.notes"):
            return listed(self._inner.notes, str, "capture.notes", self._blame)

    def check(self) -> None:
        """See `Capture.check`."""
        with self._blame.calling("capture.check"):
            self._inner.check()
