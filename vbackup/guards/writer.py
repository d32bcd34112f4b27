"""The guard around what a target writes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vbackup.api import DiskCounts, DiskWriter, MachineDescription, Point, PointDisk, Writer
from vbackup.guards.answers import checked, kind_of, listed
from vbackup.guards.blame import Blame

_LARGEST_BLOCK = 64 << 20


class GuardedWriter:
    """Holds a `Writer` to its promises."""

    def __init__(self, inner: Writer, blame: Blame) -> None:
        self.inner = inner
        self._blame = blame
        with blame.calling("block_size"):
            self.block_size = checked(inner.block_size, int, "block_size", blame)
        if not 0 < self.block_size <= _LARGEST_BLOCK:
            raise blame.error(f"block_size is {self.block_size}, which no disk can be given in")

    def check(self) -> None:
        """See `Writer.check`."""
        with self._blame.calling("check"):
            self.inner.check()

    def base_problem(self, base: PointDisk) -> str | None:
        """See `Writer.base_problem`."""
        with self._blame.calling("base_problem"):
            problem: object = self.inner.base_problem(base)
        if problem is not None and not isinstance(problem, str):
            raise self._blame.error(f"base_problem gave {kind_of(problem)}, not a text or None")
        return problem

    def disk(self, size: int, base: PointDisk | None) -> DiskWriter:
        """See `Writer.disk`."""
        with self._blame.calling("disk"):
            return GuardedDiskWriter(self.inner.disk(size, base), self._blame)

    def file(self, data: bytes) -> dict[str, Any]:
        """See `Writer.file`."""
        with self._blame.calling("file"):
            return checked(self.inner.file(data), dict, "file", self._blame)

    @property
    def notes(self) -> Sequence[str]:
        """See `Writer.notes`."""
        with self._blame.calling("notes"):
            return listed(self.inner.notes, str, "notes", self._blame)

    def commit(self, point: Point, description: MachineDescription) -> None:
        """See `Writer.commit`."""
        with self._blame.calling("commit", point.machine):
            self.inner.commit(point, description)


class GuardedDiskWriter:
    """Holds a `DiskWriter` to its promises; what is called for each block is called directly."""

    def __init__(self, inner: DiskWriter, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame
        self.write = inner.write
        self.zero = inner.zero
        self.unchanged = inner.unchanged
        self.same = inner.same
        self.last_data = inner.last_data
        self.progress = inner.progress

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """See `DiskWriter.finish`."""
        with self._blame.calling("finish of a disk"):
            answer: object = self._inner.finish()
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._blame.error(f"finish of a disk gave {kind_of(answer)}, not the content and counts")
        content, counts = answer
        return (
            checked(content, dict, "finish of a disk", self._blame),
            checked(counts, DiskCounts, "finish of a disk", self._blame),
        )
