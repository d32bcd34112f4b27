"""What needs more than one machine, or one that may be lost, or a look at the markers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import Hypervisor, RestoreRequest
from vbackup.testing.hypervisor_contract.backups import Backups, assert_same, contents
from vbackup.testing.hypervisor_contract.base import (
    BLOCK,
    OTHER_OWNER,
    GuestUnderTest,
    OneGuest,
    pattern,
    ref,
)
from vbackup.testing.hypervisor_contract.saved import save


class TwoGuestsContract(OneGuest):
    """Two machines of one hypervisor at once. Subclass it beside `HypervisorContract`."""

    patience = 120.0
    """Seconds after which a capture that waits for another one counts as stuck."""

    @pytest.fixture
    def second(self) -> GuestUnderTest:
        """Override: another machine of ``hypervisor``, with disks of its own."""
        raise NotImplementedError("override the fixture second")

    def test_two_at_one_moment(self, hypervisor: Hypervisor, guest: GuestUnderTest, second: GuestUnderTest) -> None:
        """Two captures meet at `CaptureRequest.moment`: neither holds what the other one needs to come so far."""
        meeting = threading.Barrier(2, timeout=self.patience)

        def run(backups: Backups) -> None:
            backups.run(moment=lambda: _meet(meeting))

        both = Backups(hypervisor, guest), Backups(hypervisor, second)
        for number in range(2):
            with ThreadPoolExecutor(2) as pool:
                for done in [pool.submit(run, backups) for backups in both]:
                    done.result()
            guest.write(guest.disks[0], number * BLOCK, pattern(number + 30))
        assert_same(both[1].disks, contents(second))

    def test_each_has_its_own(self, hypervisor: Hypervisor, guest: GuestUnderTest, second: GuestUnderTest) -> None:
        """While one machine is captured another one is as well, and one is restored: nothing of them is mixed up."""
        ours, others = Backups(hypervisor, guest), Backups(hypervisor, second)
        ours.run()
        others.run()
        saved = save(hypervisor, second)
        guest.write(guest.disks[0], BLOCK, pattern(40))
        second.write(second.disks[0], 2 * BLOCK, pattern(41))
        now = contents(guest)
        with hypervisor.capture(guest.name, ours.request()) as capture:
            others.run()
            second.stop()
            saved.restore(hypervisor, RestoreRequest(overwrite=True))
            copies, seen = ours.copy(capture)
        assert_same(copies, now)
        assert_same(contents(second), saved.disks)
        ours.commit(seen, copies)
        guest.write(guest.disks[0], 3 * BLOCK, pattern(42))
        others.run()
        ours.run()


class MarkersContract(OneGuest):
    """That change markers do not pile up: each costs the machine something. Subclass it beside `HypervisorContract`."""

    @pytest.fixture
    def markers(self) -> Callable[[], Collection[str]]:
        """Override: names the change markers (bitmaps, checkpoints ...) that ``guest`` has now, of whichever owner."""
        raise NotImplementedError("override the fixture markers")

    def test_one_is_kept(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, markers: Callable[[], Collection[str]]
    ) -> None:
        """After `Hypervisor.commit` that marker is the only one of its owner, whatever failed before."""
        before, backups = set(markers()), Backups(hypervisor, guest)
        backups.run()
        most = len(set(markers()) - before)
        assert most, "a marker was made"
        for _ in range(3):
            for _ in range(2):
                backups.run(commit=False)
            backups.run()
            assert len(set(markers()) - before) == most
        assert before <= set(markers()), "those of others stay"

    def test_those_of_others_stay(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, markers: Callable[[], Collection[str]]
    ) -> None:
        """Captures, commits and sweeps of one owner touch no marker of another (`CaptureRequest.owner`)."""
        others = Backups(hypervisor, guest, OTHER_OWNER)
        others.run()
        theirs, ours = set(markers()), Backups(hypervisor, guest)
        for _ in range(2):
            ours.run()
            ours.run(commit=False)
            hypervisor.sweep(ours.owner)
        assert theirs <= set(markers())
        assert not others.run().is_full


class LostGuestContract(OneGuest):
    """The day that backups are for. Subclass it beside `HypervisorContract`."""

    @pytest.fixture
    def lose(self) -> Callable[[], None]:
        """Override: makes ``guest`` disappear from the hypervisor, running or not, with all its disks."""
        raise NotImplementedError("override the fixture lose")

    def test_the_machine_comes_back(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, lose: Callable[[], None]
    ) -> None:
        """Where nothing is in the way nothing has to be overwritten: the same machine is there, bit for bit."""
        listed, saved = ref(hypervisor, guest.name), save(hypervisor, guest)
        backups = Backups(hypervisor, guest)
        backups.run()
        lose()
        saved.restore(hypervisor, RestoreRequest())
        assert_same(contents(guest), saved.disks)
        assert ref(hypervisor, guest.name).id == listed.id
        backups.run()
        assert backups.run().is_full == (not self.tracks)


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait()
