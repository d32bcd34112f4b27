"""A capture is one moment of a machine, and leaves nothing."""

from __future__ import annotations

import contextlib
from datetime import UTC

import pytest
from pydantic import TypeAdapter

from vbackup.api import (
    Busy,
    CaptureRequest,
    GuestError,
    Hypervisor,
    Interrupted,
    Key,
    Quiesce,
    Range,
    Unsupported,
    VBackupError,
    clock,
)
from vbackup.testing.equal import assert_equal
from vbackup.testing.hypervisor_contract.backups import Backups, assert_same, contents, copy_disk
from vbackup.testing.hypervisor_contract.base import (
    BLOCK,
    MIB,
    OWNER,
    GuestUnderTest,
    Leftovers,
    OneGuest,
    pattern,
    ref,
)
from vbackup.testing.hypervisor_contract.listing import is_running

_MOST = 64 * MIB
"""Bytes that a file beside the disks may have at most."""


class _Expected(Exception):  # noqa: N818 - an error of nobody's
    """What the tests leave captures with."""


class CaptureContract(OneGuest):
    """`Hypervisor.capture`, `CaptureRequest` and `Capture`."""

    def test_the_copy_is_the_machine(self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers) -> None:
        """All disks, bit for bit, each read by a thread of its own; nothing is left (`Capture`, `SourceDisk`)."""
        before = sorted(leftovers())
        Backups(hypervisor, guest).run()
        assert sorted(leftovers()) == before

    def test_describes_the_machine(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Capture.machine` has the name and the identity as listed, and all disks with their sizes in bytes."""
        listed = ref(hypervisor, guest.name)
        sizes = {key: len(guest.read(key)) for key in guest.disks}
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
            assert (capture.machine.name, capture.machine.id) == (listed.name, listed.id)
            assert {disk.key: disk.size for disk in capture.machine.disks} == sizes
            assert len(capture.machine.disks) == len(sizes), "keys are unique"
            assert {disk.key: disk.size for disk in capture.disks} == sizes
            assert all(isinstance(note, str) and note for note in capture.notes)
            for name, data in capture.files.items():
                assert TypeAdapter(Key).validate_python(name) == name
                assert len(bytes(data)) < _MOST

    def test_says_when(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Capture.time` is the moment: aware, in UTC, by `vbackup.api.clock`, behind `CaptureRequest.moment`."""
        moments = []
        request = CaptureRequest(OWNER, quiesce=Quiesce.NO, moment=lambda: moments.append(clock.now()))
        with hypervisor.capture(guest.name, request) as capture:
            opened = clock.now()
            assert capture.time.utcoffset() == UTC.utcoffset(None)
            assert moments[0] <= capture.time <= opened

    def test_waits_for_its_moment_once(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`CaptureRequest.moment` is called once. Until it returns the guest goes on, and what it writes counts."""
        backups, calls = Backups(hypervisor, guest), []

        def moment() -> None:
            calls.append(1)
            guest.write(guest.disks[0], BLOCK, pattern(77))

        with hypervisor.capture(guest.name, backups.request(moment=moment)) as capture:
            assert calls == [1]
            copies, _ = backups.copy(capture)
        assert_same(copies, contents(guest))
        assert_equal("what was written", copies[guest.disks[0]][BLOCK : 2 * BLOCK], pattern(77))
        assert calls == [1]

    def test_a_moment_that_does_not_come(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers
    ) -> None:
        """`CaptureRequest.moment` may raise: that error ends the capture as it is, and nothing is left."""
        before = sorted(leftovers())

        def moment() -> None:
            raise Busy("another machine of the group is not ready")

        with (
            pytest.raises(Busy, match="another machine of the group"),
            hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO, moment=moment)),
        ):
            pass
        assert sorted(leftovers()) == before
        Backups(hypervisor, guest).run()

    def test_writes_during_the_capture_are_not_seen(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Reads see the moment of the capture, wherever they are, changed or not (`SourceDisk.read`)."""
        backups, now = Backups(hypervisor, guest), contents(guest)
        with hypervisor.capture(guest.name, backups.request()) as capture:
            self._write(guest, 1)
            first = {disk.key: copy_disk(disk)[0] for disk in capture.disks}
            self._write(guest, 2)
            copies, seen = backups.copy(capture)
        assert_same(first, now)
        assert_same(copies, now)
        backups.commit(seen, copies)
        backups.run()

    def test_writes_during_a_read_are_not_seen(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Nor are those that come between two blocks of one read (`SourceDisk.read`)."""
        now = contents(guest)
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
            for disk in capture.disks:
                ranges = (Range(offset, BLOCK) for offset in range(0, disk.size - BLOCK + 1, BLOCK))
                for number, block in enumerate(disk.read(ranges)):
                    expected = now[disk.key][block.offset : block.offset + BLOCK]
                    assert_equal(f"{disk.key} at {block.offset}", bytes(block.data), expected)
                    if number % 8 == 0:
                        self._write(guest, number)
            capture.check()

    def _write(self, guest: GuestUnderTest, number: int) -> None:
        """Write at several places of each disk, or be refused."""
        for key in guest.disks:
            for offset in (0, (number * 5 + 1) * BLOCK % MIB, MIB - BLOCK):
                if self.writes_while_captured:
                    guest.write(key, offset, pattern(number + 100))
                    continue
                with pytest.raises(Busy):
                    guest.write(key, offset, pattern(number + 100))

    def test_quiesce_no(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Quiesce.NO` does not touch a running guest; that is said (`Capture.quiesced`)."""
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
            assert capture.quiesced is False or not is_running(hypervisor, guest)

    def test_quiesce_try(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Quiesce.TRY` always captures: frozen if the guest can, else with a note that says why not."""
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.TRY)) as capture:
            if self.quiesces:
                assert capture.quiesced is True
            elif is_running(hypervisor, guest):
                assert capture.quiesced is False
                assert capture.notes, "say why it was not frozen"

    def test_quiesce_yes(self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers) -> None:
        """`Quiesce.YES` freezes, or fails the capture by `GuestError` or `Unsupported` and leaves nothing."""
        before = sorted(leftovers())
        request = CaptureRequest(OWNER, quiesce=Quiesce.YES)
        if self.quiesces:
            with hypervisor.capture(guest.name, request) as capture:
                assert capture.quiesced is True
        else:
            with pytest.raises((GuestError, Unsupported)), hypervisor.capture(guest.name, request):
                pass
        assert sorted(leftovers()) == before
        guest.write(guest.disks[0], 0, pattern(3))  # thawed
        Backups(hypervisor, guest).run()

    def test_disks_that_are_left_out(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Those of `CaptureRequest.exclude` are described and not captured."""
        left_out = guest.disks[0]
        request = CaptureRequest(OWNER, quiesce=Quiesce.NO, exclude=frozenset({left_out}))
        now = contents(guest)
        with hypervisor.capture(guest.name, request) as capture:
            assert [disk.key for disk in capture.disks] == [key for key in guest.disks if key != left_out]
            assert sorted(disk.key for disk in capture.machine.disks) == sorted(guest.disks)
            for disk in capture.disks:
                assert_equal(disk.key, copy_disk(disk)[0], now[disk.key])
            capture.check()

    def test_no_memory_unasked(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Capture.memory` is None unless `CaptureRequest.memory` asks for it."""
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
            assert capture.memory is None

    def test_memory(self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers) -> None:
        """What is asked for by `CaptureRequest.memory` has the key ``memory`` and is read in full; the disks are there.

        A hypervisor that cannot, and a machine that is off, give None: the backup is made without it.
        """
        before, backups, now = sorted(leftovers()), Backups(hypervisor, guest), contents(guest)
        with hypervisor.capture(guest.name, backups.request(memory=True)) as capture:
            copies, _ = backups.copy(capture)
            assert (capture.memory is not None) == self.captures_memory
            if capture.memory is not None:
                assert capture.memory.key == "memory"
                assert capture.memory.key not in copies
                data, unchanged = copy_disk(capture.memory)
                assert (len(data), unchanged) == (capture.memory.size, 0)
                assert any(data)
        assert_same(copies, now)
        assert sorted(leftovers()) == before

    def test_an_error_leaves_nothing_and_goes_on(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers
    ) -> None:
        """A capture that is left by an error is undone, and the error is not swallowed (`Hypervisor.capture`)."""
        before, backups = sorted(leftovers()), Backups(hypervisor, guest)
        backups.run()
        with pytest.raises(_Expected):
            _fail(hypervisor, guest.name, backups.request())
        assert sorted(leftovers()) == before
        guest.write(guest.disks[0], 2 * BLOCK, pattern(5))
        seen = backups.run()
        assert seen.is_full == (not self.tracks), "a capture that failed costs the next one nothing"

    def test_whoever_is_stopped_does_not_wait(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers
    ) -> None:
        """When `CaptureRequest.is_stopped` says so, who waits for long raises `Interrupted`; who does not, captures."""
        before = sorted(leftovers())
        request = CaptureRequest(OWNER, quiesce=Quiesce.NO, is_stopped=lambda: True)
        with contextlib.suppress(Interrupted), hypervisor.capture(guest.name, request) as capture:
            capture.check()
        assert sorted(leftovers()) == before
        Backups(hypervisor, guest).run()

    def test_a_machine_that_is_captured_already(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A second capture of a machine is refused by a transient error (`Busy`), or is as good as the first."""
        backups, other, now = Backups(hypervisor, guest), Backups(hypervisor, guest), contents(guest)
        with hypervisor.capture(guest.name, backups.request()) as capture:
            try:
                with hypervisor.capture(guest.name, other.request()) as second:
                    assert_same(other.copy(second)[0], now)
            except VBackupError as error:
                if not error.transient:
                    raise
            copies, seen = backups.copy(capture)
        assert_same(copies, now)
        backups.commit(seen, copies)
        backups.run()


def _fail(hypervisor: Hypervisor, name: str, request: CaptureRequest) -> None:
    """Leave a capture in the middle of a read."""
    with hypervisor.capture(name, request) as capture:
        next(iter(capture.disks[0].read([Range(0, BLOCK)])))
        raise _Expected
