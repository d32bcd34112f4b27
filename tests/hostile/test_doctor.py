"""What is wrong with plugins is found by ``vbackup doctor``, which goes on to the end."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Place
from vbackup.jobs.doctor import examine
from vbackup.registry import Registry

CHECKS = {
    "raises": ("def check(self): raise RuntimeError('no')", "check raised RuntimeError: no"),
    "exits": ("def check(self): raise SystemExit(0)", "check raised SystemExit: 0"),
    "nothing": ("def check(self): return None", "check gave nothing (None), not several of Finding"),
    "text": ("def check(self): return 'fine'", "check gave a value of type str, not several of Finding"),
    "texts": ("def check(self): return ['fine']", "check gave a value of type str among what must be of type Finding"),
}


@pytest.mark.parametrize(("body", "said"), CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize(("role", "base"), [("hypervisors", "Lab"), ("transports", "Disk")])
def test_a_check_that_fails_is_a_finding(place: Place, role: str, base: str, body: str, said: str) -> None:
    place.wild(role, base, body)
    outcome = place.vbackup("doctor")
    assert said in outcome.out
    assert "plugin 'wild', " in outcome.out
    assert "target main" in outcome.out  # it went on
    assert outcome.code == 1


def test_a_plugin_that_is_not_configured_is_looked_at_all_the_same(place: Place) -> None:
    place.wild("hypervisors", "Lab", "def __init__(self, options, context): raise RuntimeError('no')")
    said = [finding.detail for finding in examine(None, Registry.load())]
    assert "plugin 'wild', hypervisor type wild: its constructor raised RuntimeError: no" in said
