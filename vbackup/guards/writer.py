"""The guard around what a target writes with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vbackup.api import Buffer, DiskCounts, DiskWriter, MachineDescription, Point, PointDisk, Writer
from vbackup.guards.answers import as_json, checked, kind_of, listed, sound
from vbackup.guards.blame import Blame, told_value

_LARGEST_BLOCK = 64 << 20
_MOST_SAMPLES = 64  # as `vbackup.api.PointDisk`


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
            return _content(self.inner.file(data), "file", self._blame)

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
    """Holds a `DiskWriter` to its promises. What is called for each block of a built-in one is called directly."""

    def __init__(self, inner: DiskWriter, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame
        with blame.calling("disk"):
            self.write = blame.often("write of a disk", inner.write)
            self.zero = blame.often("zero of a disk", inner.zero)
            self.unchanged = blame.often("unchanged of a disk", inner.unchanged)
            self._same = blame.often("same of a disk", inner.same)
            self._last_data = blame.often("last_data of a disk", inner.last_data)

    def same(self, offset: int, data: Buffer) -> bool:
        """See `DiskWriter.same`."""
        return checked(self._same(offset, data), bool, "same of a disk", self._blame)

    def last_data(self, offset: int, length: int) -> int | None:
        """See `DiskWriter.last_data`."""
        last: object = self._last_data(offset, length)
        if last is None or (type(last) is int and offset <= last < offset + length):
            return last
        raise self._blame.error(f"last_data of a disk gave {told_value(last)}, which is not in {offset}+{length}")

    def progress(self) -> DiskCounts:
        """See `DiskWriter.progress`."""
        with self._blame.calling("progress of a disk"):
            return sound(self._inner.progress(), DiskCounts, "progress of a disk", self._blame)

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """See `DiskWriter.finish`."""
        with self._blame.calling("finish of a disk"):
            answer: object = self._inner.finish()
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._blame.error(f"finish of a disk gave {kind_of(answer)}, not the content and counts")
        content = _content(answer[0], "finish of a disk", self._blame)
        counts = sound(answer[1], DiskCounts, "finish of a disk", self._blame)
        if len(counts.samples) > _MOST_SAMPLES:
            raise self._blame.error(f"finish of a disk gave {len(counts.samples)} samples, and {_MOST_SAMPLES} is most")
        return content, counts


def _content(value: object, method: str, blame: Blame) -> dict[str, Any]:
    """Return where a target has what it took: a copy, as it is stored."""
    content: dict[str, Any] = json.loads(as_json(checked(value, dict, method, blame), f"what {method} gave", blame))
    return content
