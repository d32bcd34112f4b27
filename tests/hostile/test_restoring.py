"""Hypervisors that do something wrong when a machine is put back."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.conftest import Fault, Place, faults

FAULTS = [fault for fault in faults("restoring") if fault.role == "hypervisors"]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_machine_that_is_not_put_back_is_no_success(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("restore", "web@latest", "--to", "lab", "--as", "again")
    assert fault.told in outcome.err, outcome.err
    assert "plugin 'wild'" in outcome.err or "the hypervisor plugin" in outcome.err
    assert outcome.code == 1
    sys.modules["stranger_tame"].GUESTS.pop("again", None)
    place.prove()
