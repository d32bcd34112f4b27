"""The guard around a machine that is being put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vbackup.api import Restoration
from vbackup.guards.answers import checked, listed
from vbackup.guards.blame import Blame
from vbackup.guards.disk import GuardedSink


class GuardedRestoration:
    """A `Restoration` that has taken all when it says so."""

    def __init__(self, inner: Restoration, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame
        with blame.calling("restoration.disks"):
            self.disks: Mapping[str, GuardedSink] = {
                checked(key, str, "restoration.disks", blame): GuardedSink(sink, key, blame)
                for key, sink in inner.disks.items()
            }

    @property
    def notes(self) -> Sequence[str]:
        """See `Restoration.notes`."""
        with self._blame.calling("restoration.notes"):
            return listed(self._inner.notes, str, "restoration.notes", self._blame)

    def finish(self) -> str:
        """See `Restoration.finish`."""
        with self._blame.calling("finish"):
            return checked(self._inner.finish(), str, "finish", self._blame)
