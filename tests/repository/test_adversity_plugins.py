"""Plugins that lie: what they say is checked before it is committed, and costs no bytes and no memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.repository.adversity import CHUNK, disks, lab, store
from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import Block, Extent, Kind, PluginError, Range
from vbackup.engine.copy import DiskCopy
from vbackup.testing.hypervisors import FakeCapture, FakeHypervisor, FakeSource

__all__ = ["lab", "store"]  # fixtures


def test_unchanged_in_a_full_read_is_an_error(store, lab, tmp_path, monkeypatch):
    target = repository(store, tmp_path)
    target.init()
    machine = guest(lab, "web", noise(10 * CHUNK, 1))
    back_up(target, lab, "web")
    machine.disks["vda"].lost_reason = "inconsistent"
    everything = [Extent(0, 10 * CHUNK, Kind.UNCHANGED)]
    monkeypatch.setattr(FakeSource, "extents", lambda self, full: iter(everything))
    with pytest.raises(PluginError, match="unchanged"):
        back_up(target, lab, "web")


@pytest.mark.parametrize("size", [100_000, 400_000])
def test_a_new_size_that_tracking_does_not_know_of_is_read_in_full(store, lab, tmp_path, size):
    target = repository(store, tmp_path)
    target.init()
    machine = guest(lab, "web", noise(4 * CHUNK, 1))
    back_up(target, lab, "web")
    data = machine.disks["vda"].data
    del data[size:]
    data.extend(bytes(size - len(data)))
    assert restored(target, back_up(target, lab, "web")) == disks(lab)
    assert back_up(target, lab, "web").disks[0].full_reason is None


def naive_time(capture):
    capture.time = datetime.now()  # noqa: DTZ005


def path_as_name(capture):
    capture.machine = capture.machine.model_copy(update={"name": "../../etc/passwd"})


def no_processors(capture):
    capture.machine = capture.machine.model_copy(update={"cpus": 0})


def surrogate(capture):
    capture.notes = ["disk /srv/\udcff.img was left out"]


def same_key_twice(capture):
    capture.disks = [capture.disks[0], capture.disks[0]]


@pytest.mark.parametrize("change", [naive_time, path_as_name, no_processors, surrogate, same_key_twice])
def test_what_cannot_be_read_back_is_not_committed(store, tmp_path, change):
    class Lab(FakeHypervisor):
        @contextlib.contextmanager
        def capture(self, machine, request) -> Iterator[FakeCapture]:
            with super().capture(machine, request) as capture:
                change(capture)
                yield capture

    target = repository(store, tmp_path)
    target.init()
    lab = Lab()
    guest(lab, "web", noise(CHUNK, 1))
    with pytest.raises(PluginError):
        back_up(target, lab, "web")
    assert list(store.list("points")) == []


def test_extents_that_never_end_to_alternate_do_not_pile_up(store, lab, tmp_path, monkeypatch):
    """Zero and unchanged by turns, behind one read that is under way: some of them are read, so that it goes on."""
    monkeypatch.setattr("vbackup.engine.copy._MOST_WAITING", 50)
    size = 2000 * CHUNK
    content = noise(CHUNK, 1) + bytes(size - CHUNK)
    most = 0

    class Source:
        key, full_reason = "vda", None

        def __init__(self) -> None:
            self.size = size

        def extents(self, *, full: bool) -> Iterator[Extent]:
            yield Extent(0, CHUNK, Kind.DATA)
            for number in range(1, 2000):
                kind = Kind.ZERO if number % 2 or full else Kind.UNCHANGED
                yield Extent(number * CHUNK, CHUNK, kind)

        def read(self, ranges: Iterator[Range]) -> Iterator[Block]:
            nonlocal most
            ahead: list[Range] = []
            for wanted in ranges:
                ahead.append(wanted)
                most = max(most, len(ahead))
                if len(ahead) == 4:
                    first = ahead.pop(0)
                    yield Block(first.offset, content[first.offset : first.offset + first.length])
            for first in ahead:
                yield Block(first.offset, content[first.offset : first.offset + first.length])

    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", content)
    (base,) = back_up(target, lab, "web").disks
    with target.writer() as writer:
        again = DiskCopy(Source(), "raw", base, writer, threading.Event(), lambda progress: None).run()
    assert again.content == base.content
    assert again.read > 20 * CHUNK
