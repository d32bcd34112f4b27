"""Hypervisors that raise, lie, and give something else than they should."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.conftest import Fault, Place, faults
from tests.support import restored


@pytest.mark.parametrize("fault", faults("hypervisors"), ids=str)
def test_what_a_hypervisor_does_wrong_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("run")
    assert fault.told in outcome.err, outcome.err
    assert "plugin 'wild'" in outcome.err or "the hypervisor plugin" in outcome.err
    assert outcome.code == fault.ends
    assert "\x1b" not in outcome.out + outcome.err
    assert len(place.points()) == (1 if fault.ends == 1 else 2)
    place.prove()


RING = """
class Disk(Source):
    def extents(self, *, full):
        yield Extent(0, self.size, Kind.DATA)

    def read(self, ranges):
        ring = [bytearray(4 << 20) for _ in range(2)]
        for number, block in enumerate(self.inner.read(ranges)):
            memory = memoryview(ring[number % 2])[: len(block.data)]
            memory[:] = block.data
            yield Block(block.offset, memory)
"""


def test_memory_that_is_used_again_is_copied_first(place: Place) -> None:
    """Two buffers in turn: what was read is hashed and stored by other threads, while the next is read."""
    place.wild("hypervisors", "Lab", RING)
    assert place.vbackup("run").code in (0, 3)
    place.calm()
    with place.site() as site:
        target = site.target("main")
        guest = sys.modules["stranger_tame"].GUESTS["web"]
        assert restored(target, target.points()[-1]) == {"vda": bytes(guest.disks["vda"].data)}
    place.prove()
