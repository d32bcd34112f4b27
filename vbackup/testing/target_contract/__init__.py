"""What every target must do, as tests that a plugin's own tests subclass.

`TargetContract` is for all of them. It needs one fixture, ``target_factory``. The others need more than a place that
works, and are subclassed beside it by whoever can make that:

==================  ===============================================================================================
`DamageContract`    ``harm_data`` and ``harm_point``: what is stored is damaged
`DyingContract`     ``target_on``: the target on any transport (not where `Target.needs_files` is set); writers die
`OutageContract`    ``target_on``, too: the store is away, for a moment or for good
`ExchangeContract`  ``two_factories``: only for an `Exchanger`
==================  ===============================================================================================

A fixture that is not overridden is an error of its test, never a test that passes::

    class TestMine(TargetContract):
        @pytest.fixture
        def target_factory(self, tmp_path):
            store = MemoryTransport()
            return lambda: Mine(MyOptions(), context(store, tmp_path))

What the API leaves to a target is left to it here: whether it knows what two points share (`Target.extents`), whether
deleting gives back space at once or prune does, whether a point can be deleted while it is read (else `Busy`), and
whether a check can repair. All methods must be there, and those of a target with nothing to do have nothing to do.
"""

from __future__ import annotations

from vbackup.testing.target_contract.base import context
from vbackup.testing.target_contract.care import CareContract
from vbackup.testing.target_contract.damage import DamageContract
from vbackup.testing.target_contract.disks import DiskContract
from vbackup.testing.target_contract.dying import DyingContract
from vbackup.testing.target_contract.exchanging import ExchangeContract
from vbackup.testing.target_contract.outage import OutageContract
from vbackup.testing.target_contract.points import PointContract
from vbackup.testing.target_contract.reading import ReadingContract
from vbackup.testing.target_contract.writing import WritingContract

__all__ = ["DamageContract", "DyingContract", "ExchangeContract", "OutageContract", "TargetContract", "context"]


class TargetContract(PointContract, WritingContract, DiskContract, ReadingContract, CareContract):
    """The contract of `vbackup.api.Target`. Override the fixture ``target_factory``."""
