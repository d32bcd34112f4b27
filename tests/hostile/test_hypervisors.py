"""Hypervisors that raise, lie, and give something else than they should."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Fault, Place, faults


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
