"""Several processes at one hypervisor, and one of them that dies."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

import pytest

from vbackup.api import Busy, CaptureRequest, Hypervisor, Marker, Quiesce, RestoreRequest, Run
from vbackup.testing.hypervisor_contract.backups import Backups, assert_same, contents, copy_disk
from vbackup.testing.hypervisor_contract.base import (
    BLOCK,
    OTHER_OWNER,
    OWNER,
    GuestUnderTest,
    Leftovers,
    OneGuest,
    pattern,
    ref,
)
from vbackup.testing.hypervisor_contract.restoring import NEW
from vbackup.testing.hypervisor_contract.saved import Saved, runs, save
from vbackup.testing.transport_contract.base import patiently

Opens = Callable[[], Hypervisor]
_spawn = multiprocessing.get_context("spawn")


class ProcessContract(OneGuest):
    """What becomes of captures and restores whose process is killed. Subclass it beside `HypervisorContract`."""

    patience = 60.0
    """Seconds that servers of a killed process may take to go: until then a write or a capture may be `Busy`."""

    @pytest.fixture
    def opens(self) -> Opens:
        """Override: makes another instance of ``hypervisor``, with the same options and the same state directory.

        Other processes call it: it must be picklable, as ``functools.partial(Mine, options, context)`` is.
        """
        raise NotImplementedError("override the fixture opens")

    def test_another_process_goes_on(self, hypervisor: Hypervisor, guest: GuestUnderTest, opens: Opens) -> None:
        """All that the next run needs is in the marker, the machine and the state directory: nothing in memory."""
        backups = Backups(hypervisor, guest)
        backups.run()
        for number in range(2):
            guest.write(guest.disks[0], number * BLOCK, pattern(number))
            backups.hypervisor = opens()
            assert backups.run().is_full == (not self.tracks)
            backups.hypervisor.close()

    def test_a_living_capture_of_another_process(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, opens: Opens
    ) -> None:
        """`Hypervisor.sweep` does not touch what a living process holds; a second capture is `Busy` or as good."""
        now = contents(guest)
        with _child(_capture, opens, guest.name, None) as child:
            child.receive()
            assert hypervisor.sweep(OWNER) == []
            assert hypervisor.sweep(OTHER_OWNER) == []
            with suppress(Busy):
                Backups(hypervisor, guest).run(commit=False)
            child.send("read")
            assert_same(child.receive(), now)

    def test_killed_while_it_captures(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, opens: Opens, leftovers: Leftovers
    ) -> None:
        """What a killed capture left is gone after `Hypervisor.sweep`; the machine goes on, and can be captured again.

        Its marker was never committed, and does not count.
        """
        before, backups = sorted(leftovers()), Backups(hypervisor, guest)
        backups.run()
        with _child(_capture, opens, guest.name, backups.request().since) as child:
            child.receive()
            child.kill()
        told = hypervisor.sweep(OWNER)
        assert all(isinstance(phrase, str) and phrase for phrase in told)
        assert sorted(leftovers()) == before
        assert hypervisor.sweep(OWNER) == []
        patiently(lambda: guest.write(guest.disks[0], BLOCK, pattern(61)), self.patience)
        patiently(backups.run, self.patience)
        assert backups.run().is_full == (not self.tracks)
        assert sorted(leftovers()) == before

    def test_killed_and_not_swept(self, hypervisor: Hypervisor, guest: GuestUnderTest, opens: Opens) -> None:
        """A capture does not need the sweep: it makes its way past what a dead one left (`CaptureRequest.since`)."""
        backups = Backups(hypervisor, guest)
        backups.run()
        with _child(_capture, opens, guest.name, backups.request().since) as child:
            child.receive()
            child.kill()
        patiently(lambda: guest.write(guest.disks[0], BLOCK, pattern(62)), self.patience)
        patiently(backups.run, self.patience)
        backups.run()

    def test_killed_while_it_restores(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, opens: Opens, leftovers: Leftovers
    ) -> None:
        """After `Hypervisor.sweep` nothing of it is there, and the machine to be replaced is as it was."""
        saved = save(hypervisor, guest)
        guest.stop()
        guest.write(guest.disks[0], 0, pattern(63))
        before, now = sorted(leftovers()), contents(guest)
        for request in (RestoreRequest(name=NEW), RestoreRequest(overwrite=True)):
            with _child(_restore, opens, saved, request) as child:
                child.receive()
                assert hypervisor.sweep(OWNER) == []
                child.kill()
            hypervisor.sweep(OWNER)
            assert sorted(leftovers()) == before
            assert NEW not in {machine.name for machine in hypervisor.machines()}
            assert ref(hypervisor, guest.name)
            assert_same(contents(guest), now)
        patiently(lambda: saved.restore(hypervisor, RestoreRequest(overwrite=True)), self.patience)
        assert_same(contents(guest), saved.disks)


class _Process(Protocol):
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class _Child:
    """Another process, and our end of the pipe to it."""

    def __init__(self, end: Connection, process: _Process) -> None:
        self._end = end
        self._process = process

    def send(self, word: str) -> None:
        """Let it go on."""
        self._end.send(word)

    def receive(self) -> Any:
        """Return what it says next; fail if that is an error."""
        word = self._end.recv()
        assert not isinstance(word, Exception), f"in another process: {word!r}"
        return word

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.join()


@contextmanager
def _child(work: Callable[..., None], *arguments: object) -> Iterator[_Child]:
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_told, args=(theirs, work, *arguments), daemon=True)
    process.start()
    theirs.close()
    child = _Child(ours, process)
    try:
        yield child
    finally:
        child.kill()
        ours.close()


def _told(end: Connection, work: Callable[..., None], *arguments: object) -> None:
    """Do the work; what it raises is told to whoever waits for a word."""
    try:
        work(end, *arguments)
    except Exception as error:  # noqa: BLE001 - a plugin's own, which the test shows
        end.send(AssertionError(f"{type(error).__name__}: {error}"))


def _capture(end: Connection, opens: Opens, name: str, since: Marker | None) -> None:
    """Hold a capture open; when asked to, read all of it and tell."""
    with opens().capture(name, CaptureRequest(OWNER, since, Quiesce.NO)) as capture:
        end.send("open")
        end.recv()
        copies = {disk.key: copy_disk(disk)[0] for disk in capture.disks}
        capture.check()
        end.send(copies)
        end.recv()


def _restore(end: Connection, opens: Opens, saved: Saved, request: RestoreRequest) -> None:
    """Write a part of a restore, and wait in the middle of it."""
    with saved.open(opens(), request) as restoration:
        key, content = next(iter(saved.disks.items()))
        restoration.disks[key].write(_in_two(end, content))


def _in_two(end: Connection, content: bytes) -> Iterator[Run]:
    parts = runs(pattern(64) + content[BLOCK:])
    yield next(parts)
    end.send("written in part")
    end.recv()
    yield from parts
