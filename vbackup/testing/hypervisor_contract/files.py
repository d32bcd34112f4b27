"""Single disks are put back as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vbackup.api import AlreadyExists, Hypervisor, RestoreRequest
from vbackup.testing.hypervisor_contract.backups import assert_same
from vbackup.testing.hypervisor_contract.base import GuestUnderTest, Leftovers, OneGuest
from vbackup.testing.hypervisor_contract.saved import changed, files_in, save


class FilesContract(OneGuest):
    """`RestoreRequest.disks`: single disks to files, where `Hypervisor.writes_files` says so."""

    def test_disks_as_raw_files(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers, tmp_path: Path
    ) -> None:
        """The files hold the disks bit for bit, and no machine is made; without ``overwrite`` none is replaced."""
        self._needs_files(hypervisor)
        saved, before = save(hypervisor, guest), sorted(leftovers())
        machines = {machine.name for machine in hypervisor.machines()}
        place = tmp_path / "contract-files"
        place.mkdir()
        paths = {key: place / f"{key}.raw" for key in saved.disks}
        for overwrite, point in ((False, saved), (True, changed(saved))):
            point.restore(hypervisor, RestoreRequest(disks=paths, format="raw", overwrite=overwrite))
            assert_same(files_in(place), {f"{key}.raw": data for key, data in point.disks.items()})
            there = files_in(place)
            again = RestoreRequest(disks=paths, format="raw")
            with pytest.raises(AlreadyExists), saved.open(hypervisor, again):
                pass
            assert_same(files_in(place), there)
        assert {machine.name for machine in hypervisor.machines()} == machines
        assert sorted(leftovers()) == before

    def test_files_that_were_not_finished(
        self, hypervisor: Hypervisor, guest: GuestUnderTest, leftovers: Leftovers, tmp_path: Path
    ) -> None:
        """Left without `Restoration.finish` no new file is there, and one to be replaced is as it was."""
        self._needs_files(hypervisor)
        saved, before = save(hypervisor, guest), sorted(leftovers())
        place = tmp_path / "contract-files"
        place.mkdir()
        paths = {key: place / f"{key}.raw" for key in saved.disks}
        next(iter(paths.values())).write_bytes(b"precious")
        request = RestoreRequest(disks=paths, format="raw", overwrite=True)
        with saved.open(hypervisor, request) as restoration:
            saved.write(restoration.disks)
        assert list(files_in(place).values()) == [b"precious"]
        assert sorted(leftovers()) == before

    @staticmethod
    def _needs_files(hypervisor: Hypervisor) -> None:
        if not type(hypervisor).writes_files:
            pytest.skip("this hypervisor says that it writes no files: `image` does so in its place")
