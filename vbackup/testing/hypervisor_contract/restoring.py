"""A machine is put back whole, or nothing is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vbackup.api import (
    AlreadyExists,
    Busy,
    Hypervisor,
    RestoreRequest,
    Run,
    Unsupported,
)
from vbackup.testing.hypervisor_contract.backups import Backups, assert_same, contents
from vbackup.testing.hypervisor_contract.base import BLOCK, GuestUnderTest, Leftovers, OneGuest, pattern, ref
from vbackup.testing.hypervisor_contract.listing import is_running
from vbackup.testing.hypervisor_contract.saved import Find, Saved, assert_like, changed, runs, save

NEW = "contract-restored"
"""The name that machines are restored as."""


class _Expected(Exception):  # noqa: N818 - an error of nobody's
    """What the tests leave restores with."""


class RestoreContract(OneGuest):
    """`Hypervisor.restore`, `RestoreRequest`, `Restoration` and `SinkDisk`."""

    @pytest.fixture
    def find(self) -> Find:
        """Override: returns a machine of ``hypervisor`` that was restored as new, by its name, and reads its disks.

        When the test ends it is off and removed, as is whatever else is called `NEW`.
        """
        raise NotImplementedError("override the fixture find")

    def test_as_a_new_machine(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers, find: Find
    ) -> None:
        """With `RestoreRequest.name` there is a new machine, bit for bit, and the old one is as it was."""
        before, now, saved = sorted(leftovers()), contents(guest), save(hypervisor, guest)
        said = saved.restore(hypervisor, RestoreRequest(name=NEW))
        assert said, "Restoration.finish says what there is now"
        assert_like(find(NEW), saved)
        assert_same(contents(guest), now)
        assert sorted(leftovers()) == before
        if self.lists_new_machines:
            assert ref(hypervisor, NEW).id != ref(hypervisor, guest.name).id, "an identity of its own"
            assert not ref(hypervisor, NEW).running, "it is started only if asked for"
            assert_same(save(hypervisor, find(NEW)).disks, contents(find(NEW)))

    def test_a_new_machine_takes_nobodys_name(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers, find: Find
    ) -> None:
        """A name that is taken is `AlreadyExists` as the context is entered, before a byte (`Hypervisor.restore`)."""
        saved = save(hypervisor, guest)
        saved.restore(hypervisor, RestoreRequest(name=NEW))
        before = sorted(leftovers())
        with pytest.raises(AlreadyExists), changed(saved).open(hypervisor, RestoreRequest(name=NEW)):
            pass
        assert_like(find(NEW), saved)
        assert sorted(leftovers()) == before

    def test_in_its_own_place(self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers) -> None:
        """Without a name it is the same machine again, with its disks and files, over the one that is there and off."""
        identity, saved = ref(hypervisor, guest.name), save(hypervisor, guest)
        guest.stop()
        before = sorted(leftovers())
        self._spoil(guest)
        saved.restore(hypervisor, RestoreRequest(overwrite=True))
        assert_same(contents(guest), saved.disks)
        assert ref(hypervisor, guest.name).id == identity.id
        assert save(hypervisor, guest).files == saved.files
        assert sorted(leftovers()) == before

    def test_nothing_is_replaced_unasked(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers
    ) -> None:
        """A machine that is there is `AlreadyExists` without `RestoreRequest.overwrite`, before a byte."""
        saved = save(hypervisor, guest)
        guest.stop()
        self._spoil(guest)
        before, spoilt = sorted(leftovers()), contents(guest)
        with pytest.raises(AlreadyExists), saved.open(hypervisor, RestoreRequest()):
            pass
        assert_same(contents(guest), spoilt)
        assert sorted(leftovers()) == before

    def test_a_running_machine_is_not_replaced(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers
    ) -> None:
        """Not even with `RestoreRequest.overwrite`: it is `Busy`, before a byte, and goes on."""
        if not is_running(hypervisor, guest):
            pytest.skip("the guest of these tests does not run")
        saved, before = save(hypervisor, guest), sorted(leftovers())
        now = contents(guest)
        with pytest.raises(Busy), changed(saved).open(hypervisor, RestoreRequest(overwrite=True)):
            pass
        assert is_running(hypervisor, guest)
        assert_same(contents(guest), now)
        assert sorted(leftovers()) == before

    def test_tracking_does_not_outlive_a_restore(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """After a restore the marker from before may know nothing, but says nothing wrong: the next copy is right."""
        backups = Backups(hypervisor, guest)
        backups.run()
        saved = save(hypervisor, guest)
        self._spoil(guest)
        backups.run()
        guest.stop()
        saved.restore(hypervisor, RestoreRequest(overwrite=True))
        backups.run()
        assert_same(backups.disks, saved.disks)
        assert backups.run().is_full == (not self.tracks)

    def test_left_unfinished(self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers) -> None:
        """A restore that is left without `Restoration.finish` removes all that it made, in order or by an error."""
        saved = save(hypervisor, guest)
        guest.stop()
        before, machines = sorted(leftovers()), {machine.name for machine in hypervisor.machines()}
        now = contents(guest)
        for request in (RestoreRequest(name=NEW), RestoreRequest(overwrite=True)):
            with changed(saved).open(hypervisor, request) as restoration:
                changed(saved).write(restoration.disks)
            with pytest.raises(_Expected):
                _tear(hypervisor, saved, request)
            assert_same(contents(guest), now)
            assert {machine.name for machine in hypervisor.machines()} == machines
            assert sorted(leftovers()) == before
        saved.restore(hypervisor, RestoreRequest(overwrite=True))
        assert_same(contents(guest), saved.disks)

    def test_zeros_are_zeros(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A run without data is zeros, over whatever the disk had (`Run`, `SinkDisk.write`)."""
        saved = save(hypervisor, guest)
        guest.stop()
        self._spoil(guest)
        empty = Saved(saved.machine, {key: bytes(len(data)) for key, data in saved.disks.items()}, saved.files)
        empty.restore(hypervisor, RestoreRequest(overwrite=True))
        assert_same(contents(guest), empty.disks)

    def test_starts_what_it_restored(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """With `RestoreRequest.start` it runs in the end; where none can be started it is `Unsupported` at once."""
        saved = save(hypervisor, guest)
        guest.stop()
        request = RestoreRequest(overwrite=True, start=True)
        if not self.starts:
            with pytest.raises(Unsupported), saved.open(hypervisor, request):
                pass
            return
        saved.restore(hypervisor, request)
        assert is_running(hypervisor, guest)
        guest.stop()
        assert_same(contents(guest), saved.disks)

    def test_with_its_memory(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """The memory is put back in place, or left out with a note; the disks are put back in either case."""
        if not self.captures_memory:
            pytest.skip("this hypervisor says that it captures no memory of the guest")
        saved = save(hypervisor, guest, memory=True)
        guest.stop()
        with saved.open(hypervisor, RestoreRequest(overwrite=True)) as restoration:
            assert restoration.disks.keys() >= saved.disks.keys()
            assert "memory" in restoration.disks or restoration.notes
            saved.write(restoration.disks)
            restoration.finish()
        assert_same(contents(guest), saved.disks)

    @staticmethod
    def _spoil(guest: GuestUnderTest) -> None:
        for key in guest.disks:
            guest.write(key, 0, pattern(200))
            guest.write(key, 5 * BLOCK, pattern(201))


def _tear(hypervisor: Hypervisor, saved: Saved, request: RestoreRequest) -> None:
    """Fail in the middle of a disk, as when the store goes away."""

    def torn(content: bytes) -> Iterator[Run]:
        yield next(runs(pattern(8) + content[BLOCK:]))
        raise _Expected

    with saved.open(hypervisor, request) as restoration:
        for key, sink in restoration.disks.items():
            sink.write(torn(saved.disks[key]))
