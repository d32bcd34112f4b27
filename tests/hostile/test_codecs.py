"""Codecs that raise, cannot undo what they did, and give something else than they should."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.conftest import Fault, Place, faults

WRITING = [fault for fault in faults("codecs") if not fault.name.startswith("Decode")]
READING = [fault for fault in faults("codecs") if fault.name.startswith("Decode")]


@pytest.mark.parametrize("fault", WRITING, ids=str)
def test_what_cannot_be_undone_is_found_before_a_point_needs_it(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("run")
    assert f"plugin 'wild', codec wild: {fault.told}" in outcome.err, outcome.err
    assert outcome.code == fault.ends
    place.calm()
    assert len(place.points()) == 1
    place.prove()


@pytest.mark.parametrize("fault", READING, ids=str)
def test_what_a_codec_decodes_is_looked_at(place: Place, fault: Fault) -> None:
    """It was good when it encoded."""
    place.let_loose(fault)
    assert place.vbackup("run").code in (0, 3)
    wild = vars(sys.modules["stranger_wild"])[fault.name]
    wild.broken = True
    outcome = place.vbackup("verify")
    assert fault.told in outcome.out + outcome.err
    assert outcome.code == 1
    wild.broken = False
    assert place.vbackup("verify").code == 0


def test_a_codec_that_is_gone_is_named_and_its_data_stays(place: Place) -> None:
    place.wild("codecs", "Zlib", "")
    assert place.vbackup("run").code in (0, 3)
    made = max(place.points(), key=lambda point: point.time)
    place.calm()
    outcome = place.vbackup("verify")
    assert "data was encoded with wild, which no installed plugin knows" in outcome.out + outcome.err
    assert outcome.code == 1
    assert place.vbackup("delete", made.id).code == 0
    assert place.vbackup("verify").code == 0  # the others need nothing of it


def test_a_point_after_a_codec_is_gone_is_full_and_tells_what_it_builds_on(place: Place) -> None:
    place.wild("codecs", "Zlib", "")
    assert place.vbackup("run").code in (0, 3)
    place.calm()
    assert place.vbackup("run").code == 3
    later = max(place.points(), key=lambda point: point.time)
    assert "encoded with wild, which no installed plugin knows" in (later.disks[0].full_reason or "")
    assert any("packs were encoded with wild" in warning for warning in later.warnings)


def test_a_codec_that_does_not_come_up_any_more_is_as_one_that_is_gone(place: Place) -> None:
    body = """
        broken = False
        def __init__(self, options):
            if self.broken:
                raise RuntimeError("no")
    """
    place.wild("codecs", "Zlib", body)
    assert place.vbackup("run").code in (0, 3)
    place.config["targets"]["main"]["codecs"] = []
    vars(sys.modules["stranger_wild"])["Wild"].broken = True
    assert place.vbackup("run").code == 3
    later = max(place.points(), key=lambda point: point.time)
    reason = "plugin 'wild', codec wild: its constructor raised RuntimeError: no"
    assert later.disks[0].full_reason == f"the restore point before cannot be read here: {reason}"
    assert any("which no installed plugin decodes" in warning for warning in later.warnings)
