"""Targets that are right but for one thing in how they take points."""

from __future__ import annotations

import json
from contextlib import contextmanager

from tests.kit.broken_targets.points import PrunesRuns
from tests.kit.naive import BLOCK, Naive, NaiveDisk, NaiveWriter
from vbackup.api import DiskCounts, PruneOrder


class ShowsEarly(Naive):
    """A point is there as soon as it is known, and what it needs follows."""

    class writer_type(NaiveWriter):  # noqa: N801
        def file(self, data):
            point = {"id": "ab" * 16, "machine": "web", "hypervisor": "", "hypervisor_type": "", "machine_id": "1"}
            point |= {"time": "2026-01-01T00:00:00Z", "disks": []}
            self.target.store.put("points/early", json.dumps({"point": point, "machine": {}}).encode())
            return super().file(data)


class CommitsAtTheEnd(Naive):
    """Writes points when the run ends: one that dies takes them all."""

    @contextmanager
    def writer(self):
        late = []
        with super().writer() as writer:
            commit, writer.commit = writer.commit, lambda *point: late.append(point)
            yield writer
            for point in late:
                commit(*point)


class CommitsOnError(Naive):
    """What was not committed is made a point, such as it is."""

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            file = writer.file
            writer.file = lambda data: (self.store.put(f"points/{'cd' * 16}", b"{}"), file(data))[1]
            yield writer


class ForgetsTheLastBlock(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def finish(self):
            self.data[-(len(self.data) % BLOCK) or len(self.data) :] = bytes(len(self.data) % BLOCK)
            return super().finish()


class SectorsOnly(Naive):
    """Rounds disks up to whole sectors."""

    class disk_type(NaiveDisk):  # noqa: N801
        def finish(self):
            self.data += bytes(-len(self.data) % 512)
            return super().finish()


class KeepsZerosOfTheBase(Naive):
    """Zeros are what was not written: not where the base has data."""

    class disk_type(NaiveDisk):  # noqa: N801
        def zero(self, offset, length):
            if self.base:
                self.unchanged(offset, length)


class UnchangedIsZero(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def unchanged(self, offset, length):
            pass


class BytesOnly(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def write(self, offset, data):
            super().write(offset, bytes(len(data)) if isinstance(data, memoryview) else data)


class NeverTheSame(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def same(self, offset, data):
            return False


class AlwaysTheSame(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def same(self, offset, data):
            return self.base is not None


class LastByLength(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def last_data(self, offset, length):
            return offset + length - BLOCK if self.base else None


class CountsAll(Naive):
    class disk_type(NaiveDisk):  # noqa: N801
        def progress(self):
            return DiskCounts(len(self.data), 0, self.counts["zero"], 0)


class OddBlocks(Naive):
    class writer_type(NaiveWriter):  # noqa: N801
        block_size = 3 * BLOCK


class TrustsBases(Naive):
    class writer_type(NaiveWriter):  # noqa: N801
        def base_problem(self, base):
            return None


class OneFile(Naive):
    """Keeps the small files of a run under one name."""

    class writer_type(NaiveWriter):  # noqa: N801
        def file(self, data):
            content = super().file(data)
            self.target.store.put("data/file", data)
            return content | {"key": "data/file"}


class Objects(Naive):
    """What it says of a disk is no JSON."""

    def save(self, data):
        return super().save(data) | {"size": (1, 2)}


class SweepsOthers(Naive):
    """Takes what no point needs for what dead runs have left, whenever a run begins."""

    @contextmanager
    def writer(self):
        PrunesRuns.prune(self, PruneOrder())
        with super().writer() as writer:
            yield writer
