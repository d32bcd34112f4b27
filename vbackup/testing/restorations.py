"""What a restore writes to in memory; see `vbackup.testing.hypervisors`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vbackup.api import RestoreDisk, Run


class FakeRestoration:
    """A guest being put back: ``define`` gets the bytes of each disk in the end, and makes it one."""

    def __init__(
        self, disks: Sequence[RestoreDisk], notes: Sequence[str], define: Callable[[dict[str, bytearray]], str]
    ) -> None:
        self.disks = {disk.key: FakeSink(disk.size) for disk in disks}
        self.notes = list(notes)
        self._define = define

    def finish(self) -> str:
        """Make it a guest."""
        return self._define({key: sink.data for key, sink in self.disks.items()})


class FakeSink:
    """A disk being written; checks that it is covered exactly, in order."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, runs: Iterable[Run]) -> None:
        """Take the runs."""
        position = 0
        for offset, length, data in runs:
            if offset != position or (data is not None and len(data) != length):
                raise AssertionError(f"run {offset}+{length} after {position}")
            if data is not None:
                self.data[offset : offset + length] = data
            position += length
        if position != len(self.data):
            raise AssertionError(f"runs end at {position} of {len(self.data)}")
