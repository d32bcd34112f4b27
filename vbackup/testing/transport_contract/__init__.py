"""What every transport must do, as tests that a plugin's own tests subclass.

`TransportContract` is for all of them. It needs one fixture, ``transport``. The others need more than a place that
works, and are subclassed beside it by whoever can make that:

=====================  =================================================================================
`HostsContract`        ``opens``: several processes at one place, one of them killed while it puts
`LockContract`         ``lockable``: a place whose objects can be locked
`ServerContract`       ``server``: one that can be killed and started again
`SilentContract`       ``silent``: a server that takes connections and never answers
`MissingPlaceContract` ``missing``: a place that is not there
`DeniedContract`       ``denied``: credentials that are refused
`ReadOnlyContract`     ``read_only``: a place where nothing may be written
`FullContract`         ``full``: a place of a few MiB
`FailureContract`      the last four together
=====================  =================================================================================

A fixture that is not overridden is an error of its test, never a test that passes::

    class TestMine(HostsContract, TransportContract):
        @pytest.fixture
        def opens(self, tmp_path):
            return partial(Mine, MyOptions(path=tmp_path))

        @pytest.fixture
        def transport(self, opens):
            return opens()
"""

from __future__ import annotations

from vbackup.testing.transport_contract.capabilities import CapabilityContract, LockContract
from vbackup.testing.transport_contract.failures import (
    DeniedContract,
    FailureContract,
    FullContract,
    MissingPlaceContract,
    ReadOnlyContract,
)
from vbackup.testing.transport_contract.hosts import HostsContract
from vbackup.testing.transport_contract.listing import ListingContract
from vbackup.testing.transport_contract.objects import ObjectContract
from vbackup.testing.transport_contract.races import RaceContract
from vbackup.testing.transport_contract.server import Server, ServerContract, SilentContract

__all__ = [
    "DeniedContract",
    "FailureContract",
    "FullContract",
    "HostsContract",
    "LockContract",
    "MissingPlaceContract",
    "ReadOnlyContract",
    "Server",
    "ServerContract",
    "SilentContract",
    "TransportContract",
]


class TransportContract(ObjectContract, ListingContract, CapabilityContract, RaceContract):
    """The contract of `vbackup.api.Transport`. Override the fixture ``transport``."""
