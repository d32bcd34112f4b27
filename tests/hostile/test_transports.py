"""Transports that raise, lie, keep what they were lent, and give something else than they should."""

from __future__ import annotations

import os
import sys

import pytest

from tests.hostile.conftest import Fault, Place, faults


@pytest.mark.parametrize("fault", faults("transports"), ids=str)
def test_what_a_transport_does_wrong_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("run")
    assert fault.told in outcome.err, outcome.err
    # Bytes that are wrong may be those of a plugin or of a store: that is told as damage.
    assert "plugin 'wild', transport disk (type wild): " in outcome.err or fault.name.startswith("Get")
    assert outcome.code == fault.ends
    place.prove()


@pytest.mark.parametrize("size", ["True", "'3'", "-1", "None", "1.5"])
def test_a_size_that_is_none_is_told(place: Place, size: str) -> None:
    place.wild("transports", "Disk", f"def size(self, key): return {size}\ncan_put_if_absent = False")
    place.refused("verify", by=f"gave {size}, which is no number of bytes")
    place.prove()


def test_a_store_that_takes_points_and_has_none_is_told(place: Place) -> None:
    body = """
    def put(self, key, data, *, if_absent=False):
        if not key.startswith("points"):
            super().put(key, data, if_absent=if_absent)
    """
    place.wild("transports", "Disk", body)
    outcome = place.vbackup("run")
    assert "target main (plugin 'repository') does not have the restore point that it took" in outcome.err
    assert "it, or its transport disk (plugin 'wild'), has lost it" in outcome.err
    assert outcome.code == 1
    place.calm()
    (lost,) = [line.split()[-1] for line in outcome.err.splitlines() if "done with" in line or ": done: " in line]
    verified = place.vbackup("verify")
    assert verified.code == 1
    assert "it was seen here before and is gone" in verified.out + verified.err
    assert place.vbackup("delete", lost).code == 0  # given up, on record
    place.prove()


def test_packs_that_were_never_stored_are_found_by_verify_and_healed_by_the_next_run(place: Place) -> None:
    body = """
    def put(self, key, data, *, if_absent=False):
        if not key.startswith("packs"):
            super().put(key, data, if_absent=if_absent)
    """
    place.wild("transports", "Disk", body)
    assert place.vbackup("run").code in (0, 3)  # nothing can tell yet
    place.calm()
    verified = place.vbackup("verify")
    assert verified.code == 1
    assert "is missing" in verified.out + verified.err
    assert place.vbackup("run").code == 3
    place.prove()


def test_memory_that_a_transport_keeps_is_not_used_again(place: Place) -> None:
    body = """
    kept = []
    def put(self, key, data, *, if_absent=False):
        super().put(key, data, if_absent=if_absent)
        self.kept.append((key, data))
    """
    place.wild("transports", "Disk", body)
    for seed in range(3):
        sys.modules["stranger_tame"].GUESTS["web"].disks["vda"].write(0, bytes([seed]) * 1000 + b"new")
        assert place.vbackup("run").code in (0, 3)
    kept = sys.modules["stranger_wild"].Wild.kept
    assert sum(key.startswith("packs/") for key, _ in kept) >= 3
    for key, data in kept:
        path = place.directory / "store" / key
        assert not path.exists() or path.read_bytes() == bytes(data)
    place.prove()


def test_descriptors_that_leak_are_not_fatal(place: Place) -> None:
    body = """
    leaked = []
    def put(self, key, data, *, if_absent=False):
        self.leaked.append(os.open("/dev/null", os.O_RDONLY))
        super().put(key, data, if_absent=if_absent)
    """
    place.wild("transports", "Disk", body)
    assert place.vbackup("run").code in (0, 3)
    for descriptor in sys.modules["stranger_wild"].Wild.leaked:
        os.close(descriptor)
    place.prove()
