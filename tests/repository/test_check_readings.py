"""Which data a check reads when: what was unread for longest comes first, and a killed reading goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.repository.check_place import CHUNK, Died, Place
from tests.support import noise, repository
from vbackup.api import CheckOrder
from vbackup.testing.transports import FaultyTransport


class Reads:
    """Runs checks of one host, and says which packs were read, in order."""

    def __init__(self, place, monkeypatch):
        self.place = place
        self.now = datetime(2026, 11, 22, tzinfo=UTC)
        self.host = place.tmp_path / "reads"
        self.dies_at = 0
        monkeypatch.setattr("vbackup.repository.survey.clock.now", lambda: self.now)
        monkeypatch.setattr("vbackup.repository.packcheck._AT_ONCE", 1)

    def __call__(self, **order):
        self.now += timedelta(hours=1)
        read: list[str] = []

        def note(number, operation, key):
            if operation == "get" and key.startswith("packs/"):
                read.append(key)
                if len(read) == self.dies_at:
                    raise Died

        target = repository(FaultyTransport(self.place.store, note), self.host, chunk_size=CHUNK)
        try:
            target.check(CheckOrder(read_data=True, **order), lambda size: None)
        except Died:
            pass
        finally:
            target.close()
        return read


@pytest.fixture
def many(tmp_path):
    """Ten packs of one size, listed in the index, that no point needs: they are read for nothing but their bytes."""
    place = Place(tmp_path)
    for info in list(place.store.list()):
        if info.key.startswith(("points", "packs", "index")):
            place.store.delete(info.key)
    place.bytes.clear()
    for number in range(10):
        with place.open().writer() as writer:
            disk = writer.disk(CHUNK, None)
            disk.write(0, noise(CHUNK, 100 + number))
            disk.finish()
    assert len({place.store.size(key) for key in place.packs()}) == 1
    return place


def test_a_percentage_reads_what_was_unread_for_the_longest_time(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    read: list[str] = []
    for _ in range(7):
        read += reads(percent=29)
        reads.now += timedelta(days=1)
    assert set(read[:10]) == set(many.packs())
    assert len(set(read[10:19])) == 9


def test_since_reads_what_was_not_read_in_that_time(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())
    reads.now += timedelta(days=29)
    assert reads(since=timedelta(days=30)) == []
    reads.now += timedelta(days=2)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())
    reads.now -= timedelta(days=100)  # the clock was ahead: what was read in the future was not read
    assert set(reads(since=timedelta(days=30))) == set(many.packs())


def test_a_reading_that_was_killed_goes_on(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    reads.dies_at = 6
    begun = reads()
    reads.dies_at = 0
    rest = reads()
    assert set(many.packs()) == set(begun) | set(rest)
    assert len(set(begun) & set(rest)) <= 2
    assert set(reads()) == set(many.packs())  # complete: the next one begins anew


def test_a_lost_memory_of_readings_is_no_harm(many, monkeypatch):
    reads = Reads(many, monkeypatch)
    reads()
    (file,) = (reads.host).glob("readings-*.sqlite")
    file.write_bytes(b"rotten" * 1000)
    assert set(reads(since=timedelta(days=30))) == set(many.packs())
