"""What every hypervisor must do, as tests that a plugin's own tests subclass.

`HypervisorContract` is for all of them. It needs four fixtures: ``hypervisor`` (the plugin's, with options that work),
``guest`` (a machine of it, see `GuestUnderTest`), ``leftovers`` (what must be gone after each capture and restore) and
``find`` (a machine that was restored as new). What the hypervisor can do is said by class attributes, see `OneGuest`::

    class TestMine(HypervisorContract):
        quiesces = True

        @pytest.fixture
        def hypervisor(self, tmp_path):
            return Mine(MyOptions(url="..."), HypervisorContext("mine", tmp_path / "state"))

        @pytest.fixture
        def guest(self, hypervisor): ...

        @pytest.fixture
        def leftovers(self, tmp_path):
            return lambda: [path.name for path in (tmp_path / "state").iterdir()]

        @pytest.fixture
        def find(self): ...

The others need more than that, and are subclassed beside it by whoever can make it:

=====================  ==============================================================================
`TwoGuestsContract`    ``second``: another machine; both are captured at once
`MarkersContract`      ``markers``: the change markers that the machine has
`LostGuestContract`    ``lose``: makes the machine disappear
`ProcessContract`      ``opens``: other processes at the same place, one of them killed
`UnreachableContract`  ``unreachable``: a hypervisor at an address where nobody listens
=====================  ==============================================================================

`Backups` and `save` are for tests of your own: the first copies captures as the engine does, each with its marker, and
the second gives what a restore needs.

A fixture that is not overridden is an error of its test, never a test that passes. Each test says in its docstring what
is asked, and where in `vbackup.api` it is written. There are a few hundred captures in it: small disks make it quick.
"""

from __future__ import annotations

from vbackup.testing.hypervisor_contract.backups import Backups, assert_same, contents, copy_disk
from vbackup.testing.hypervisor_contract.base import GuestUnderTest, Leftovers
from vbackup.testing.hypervisor_contract.capturing import CaptureContract
from vbackup.testing.hypervisor_contract.files import FilesContract
from vbackup.testing.hypervisor_contract.listing import ListingContract, UnreachableContract
from vbackup.testing.hypervisor_contract.processes import Opens, ProcessContract
from vbackup.testing.hypervisor_contract.reading import ReadContract
from vbackup.testing.hypervisor_contract.restoring import NEW, RestoreContract
from vbackup.testing.hypervisor_contract.saved import Find, Saved, save
from vbackup.testing.hypervisor_contract.several import LostGuestContract, MarkersContract, TwoGuestsContract
from vbackup.testing.hypervisor_contract.tracking import TrackingContract

__all__ = [
    "NEW",
    "Backups",
    "Find",
    "GuestUnderTest",
    "HypervisorContract",
    "Leftovers",
    "LostGuestContract",
    "MarkersContract",
    "Opens",
    "ProcessContract",
    "Saved",
    "TwoGuestsContract",
    "UnreachableContract",
    "assert_same",
    "contents",
    "copy_disk",
    "save",
]


class HypervisorContract(
    ListingContract, CaptureContract, ReadContract, TrackingContract, RestoreContract, FilesContract
):
    """The contract of `vbackup.api.Hypervisor`. Override ``hypervisor``, ``guest``, ``leftovers`` and ``find``."""
