"""Disks that a capture leaves out, and whether its notes say so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vbackup.engine.backup import _unsaid


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("disk disk1 is not captured: it is read-only", True),
        ("disk1: it is read-only", True),
        ("it is a cdrom ('disk1').", True),
        ("left out: disk0, disk1.", True),
        ("disk10 is read-only", False),
        ("mydisk1, disk1a", False),
        ("disk1:0 and x:disk1 are shared", False),
    ],
)
def test_a_note_is_on_a_disk_whose_key_is_a_word_of_it(note: str, said: bool) -> None:
    machine: Any = SimpleNamespace(name="web", disks=[SimpleNamespace(key="disk1"), SimpleNamespace(key="disk2")])
    capture: Any = SimpleNamespace(machine=machine, disks=[SimpleNamespace(key="disk2")], notes=[note])
    told = list(_unsaid(capture, machine, exclude=()))
    assert told == ([] if said else ["disk disk1 is not captured, and the hypervisor plugin does not say why"])
