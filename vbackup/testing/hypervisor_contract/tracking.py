"""What changed since a marker: never less than what did."""

from __future__ import annotations

import json
import random

import pytest

from vbackup.api import Hypervisor
from vbackup.testing.hypervisor_contract.backups import Backups, Seen, assert_same, contents
from vbackup.testing.hypervisor_contract.base import (
    BLOCK,
    MIB,
    OTHER_OWNER,
    OWNER,
    GuestUnderTest,
    OneGuest,
    pattern,
)
from vbackup.testing.hypervisor_contract.listing import is_running


class TrackingContract(OneGuest):
    """`CaptureRequest.since`, `Capture.marker`, `SourceDisk.full_reason`, `Hypervisor.commit` and `sweep`."""

    def test_the_first_capture_is_full_and_says_why(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Without a marker nothing is known: `SourceDisk.full_reason` is a phrase for the user."""
        seen = Backups(hypervisor, guest).run()
        assert all(isinstance(reason, str) and reason for reason in seen.full_reasons.values())

    def test_the_marker_is_json(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Capture.marker` is stored as JSON and comes back equal; None where the next capture must be a full one."""
        marker = Backups(hypervisor, guest).run().marker
        assert (marker is not None) == self.tracks
        assert json.loads(json.dumps(marker)) == marker

    def test_only_what_changed_is_read(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """After a commit the next capture knows what changed since: that, and hardly more."""
        backups = Backups(hypervisor, guest)
        backups.run()
        for number in range(3):
            for key in guest.disks:
                guest.write(key, number * BLOCK, pattern(number + 10))
            self._assert_tracked(backups.run())

    def _assert_tracked(self, seen: Seen) -> None:
        """Where changes are tracked no disk is read in full, and not all of it; elsewhere there is a reason."""
        for key, reason in seen.full_reasons.items():
            if self.tracks:
                assert reason is None
                assert seen.unchanged[key], f"{key}: nothing is called unchanged, although hardly anything changed"
            else:
                assert reason

    def test_nothing_is_forgotten(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Whatever is written between two captures is read by the second: small, at the ends, zeros, the same again."""
        backups = Backups(hypervisor, guest)
        backups.run()
        key = guest.disks[0]
        size = len(backups.disks[key])
        for offset in (0, 4096, BLOCK - 4096, BLOCK, 7 * BLOCK + 4096, (size - 4096) // 4096 * 4096):
            guest.write(key, offset, pattern(offset // 4096, 4096))
            self._assert_tracked(backups.run())
        guest.write(key, 0, pattern(1))
        guest.zero(key, 0, BLOCK)
        self._assert_tracked(backups.run())
        guest.write(key, 0, pattern(2))
        self._assert_tracked(backups.run())

    def test_what_is_written_during_a_capture_is_of_the_next(
        self, hypervisor: Hypervisor, guest: GuestUnderTest
    ) -> None:
        """Tracking begins at the moment of the capture, not when it ends: no write falls between two captures."""
        if not self.writes_while_captured:
            pytest.skip("the guest of these tests cannot be written to while it is captured")
        backups = Backups(hypervisor, guest)
        for number in range(3):
            now = contents(guest)
            with hypervisor.capture(guest.name, backups.request()) as capture:
                guest.write(guest.disks[0], number * BLOCK, pattern(number + 20))
                copies, seen = backups.copy(capture)
                guest.write(guest.disks[-1], (number + 3) * BLOCK, pattern(number + 30))
            assert_same(copies, now)
            guest.write(guest.disks[0], (number + 6) * BLOCK, pattern(number + 40))
            backups.commit(seen, copies)
        self._assert_tracked(backups.run())

    def test_a_capture_that_was_never_committed_does_not_count(
        self, hypervisor: Hypervisor, guest: GuestUnderTest
    ) -> None:
        """A marker is pending until `Hypervisor.commit`: unchanged is relative to `CaptureRequest.since`, not to it."""
        backups = Backups(hypervisor, guest)
        backups.run()
        for number in range(3):
            guest.write(guest.disks[0], number * BLOCK, pattern(number + 50))
            self._assert_tracked(backups.run(commit=False))
        self._assert_tracked(backups.run())
        self._assert_tracked(backups.run())

    def test_a_point_that_is_older_than_the_last(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A marker that another has replaced is read in full or tracked right: a repository may be an older copy."""
        backups = Backups(hypervisor, guest)
        backups.run()
        older, marker = dict(backups.disks), backups.marker
        for number in range(2):
            guest.write(guest.disks[0], number * BLOCK, pattern(number + 60))
            backups.run()
        backups.disks, backups.marker = older, marker
        backups.run()
        self._assert_tracked(backups.run())

    def test_markers_that_nothing_is_known_of(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A marker whose tracking is gone, or that another version made, is no error: the disk is read in full."""
        backups = Backups(hypervisor, guest)
        backups.run()
        for unknown in ({}, {"made by": "another version"}, _altered(backups.marker)):
            seen = backups.run(since=unknown, commit=False)
            assert seen.is_full
            assert not any(seen.unchanged.values())

    def test_repositories_do_not_disturb_each_other(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """Markers belong to `CaptureRequest.owner`; those of another are neither removed nor mistaken for ours."""
        ours, others = Backups(hypervisor, guest, OWNER), Backups(hypervisor, guest, OTHER_OWNER)
        ours.run()
        assert others.run().is_full
        for number in range(3):
            guest.write(guest.disks[0], number * BLOCK, pattern(number + 70))
            self._assert_tracked(ours.run())
            guest.write(guest.disks[0], (number + 4) * BLOCK, pattern(number + 80))
            if number != 1:
                self._assert_tracked(others.run())
            self._assert_tracked(others.run(commit=False))
            hypervisor.sweep(OTHER_OWNER)
        self._assert_tracked(ours.run())

    def test_a_sweep_leaves_the_living_and_the_markers(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Hypervisor.sweep` touches neither a capture that is open nor markers, of whichever owner."""
        backups = Backups(hypervisor, guest)
        backups.run()
        guest.write(guest.disks[0], BLOCK, pattern(90))
        now = contents(guest)
        with hypervisor.capture(guest.name, backups.request()) as capture:
            assert hypervisor.sweep(OWNER) == []
            assert hypervisor.sweep(OTHER_OWNER) == []
            copies, seen = backups.copy(capture)
        assert_same(copies, now)
        self._assert_tracked(seen)
        backups.commit(seen, copies)
        hypervisor.sweep(OWNER)
        self._assert_tracked(backups.run())

    @pytest.mark.parametrize("seed", [1, 2])
    def test_any_history(self, hypervisor: Hypervisor, guest: GuestUnderTest, seed: int) -> None:
        """Writes, zeros, captures that fail, sweeps and other repositories by turns: every copy is the machine."""
        rng = random.Random(seed)  # noqa: S311 - the same history each time
        owners = [Backups(hypervisor, guest, owner) for owner in (OWNER, OTHER_OWNER)]
        for _ in range(8):
            for _ in range(rng.randrange(4)):
                self._change(guest, rng)
            backups = rng.choice(owners)
            backups.run(commit=rng.random() < 0.7)
            if rng.random() < 0.2:
                hypervisor.sweep(rng.choice([OWNER, OTHER_OWNER]))
        for backups in owners:
            backups.run()

    @staticmethod
    def _change(guest: GuestUnderTest, rng: random.Random) -> None:
        key, length = rng.choice(guest.disks), rng.choice([4096, BLOCK, 3 * BLOCK])
        offset = rng.randrange((MIB - length) // 4096) * 4096
        if rng.random() < 0.3:
            guest.zero(key, offset, length)
        else:
            guest.write(key, offset, pattern(rng.randrange(255), length))

    def test_switched_off_and_on(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A machine is captured on and off, and nothing is forgotten; where tracking is lost there is a reason."""
        if not is_running(hypervisor, guest):
            pytest.skip("the guest of these tests does not run")
        backups = Backups(hypervisor, guest)
        backups.run()
        guest.write(guest.disks[0], BLOCK, pattern(91))
        guest.stop()
        assert not is_running(hypervisor, guest)
        backups.run()
        guest.start()
        assert is_running(hypervisor, guest)
        guest.write(guest.disks[0], 2 * BLOCK, pattern(92))
        backups.run()
        self._assert_tracked(backups.run())


def _altered(marker: object) -> object:
    """Return a marker of the same shape whose texts are others."""
    if isinstance(marker, dict):
        return {key: _altered(value) for key, value in marker.items()}
    if isinstance(marker, list):
        return [_altered(value) for value in marker]
    return f"{marker}-altered" if isinstance(marker, str) else marker
