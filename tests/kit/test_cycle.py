"""The cycle of the kit: it works for what is right, and finds what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vbackup.testing.cycle import run_cycle
from vbackup.testing.images import KEY, ImageMachine, read_image
from vbackup.testing.plugin import MakeSite
from vbackup.testing.site import CommandFailed, Site, configuration

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> ImageMachine:
    return ImageMachine(tmp_path, size=8 * MIB)


@pytest.fixture
def site(vbackup_site: MakeSite, machine: ImageMachine, tmp_path: Path) -> Site:
    """Where new machines are restored to ``restored``."""
    hypervisor = {**machine.hypervisor, "storage": str(tmp_path / "restored")}
    (tmp_path / "restored").mkdir()
    return vbackup_site(configuration(tmp_path, hypervisor, target={"codecs": [{"type": "lz4"}]}))


def test_every_point_gives_back_its_moment(site: Site, machine: ImageMachine, tmp_path: Path) -> None:
    def restored(name: str) -> Mapping[str, bytes]:
        return {KEY: read_image(tmp_path / "restored" / f"{name}-disk0.qcow2")}

    rounds = run_cycle(site, machine.name, change=machine.change, read=machine.read, restored=restored)
    assert len({each.point for each in rounds}) == 3
    assert all(0 < each.stored < rounds[0].stored / 2 for each in rounds[1:])
    assert all(0 < each.read < rounds[0].read / 2 for each in rounds[1:])
    assert [path.name for path in site.directory.glob("restored-*")] == []


def test_a_byte_that_differs_is_found(site: Site, machine: ImageMachine) -> None:
    def read() -> Mapping[str, bytes]:
        content = bytearray(machine.read()[KEY])
        content[MIB + 17] ^= 1
        return {KEY: bytes(content)}

    with pytest.raises(AssertionError, match=f"disk0, against what the machine had: differs from byte {MIB + 17} on"):
        run_cycle(site, machine.name, change=machine.change, read=read, rounds=1)


def test_a_change_that_the_capture_does_not_see_is_found(site: Site, machine: ImageMachine) -> None:
    """The copy of the second run is not what was backed up: the machine was changed only in the test's mind."""
    reads = [machine.read(), {KEY: b"x" + machine.read()[KEY][1:]}]
    with pytest.raises(AssertionError, match="from byte 0 on"):
        run_cycle(site, machine.name, change=lambda number: None, read=lambda: reads.pop(0), rounds=2)


def test_a_store_that_lost_something_is_found(site: Site, machine: ImageMachine, tmp_path: Path) -> None:
    def change(number: int) -> None:
        machine.change(number)
        largest = max(
            (path for path in (tmp_path / "store").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
        )
        largest.write_bytes(largest.read_bytes()[:-100] + bytes(100))

    with pytest.raises(CommandFailed, match="`vbackup verify` ended with 1"):
        run_cycle(site, machine.name, change=change, read=machine.read, rounds=2)


def test_images_change_in_the_same_way_each_time(tmp_path: Path) -> None:
    one, other = (ImageMachine(tmp_path / name, size=2 * MIB) for name in ("one", "other"))
    first = one.read()
    for number in range(1, 4):
        one.change(number)
        other.change(number)
    assert one.read() == other.read() != first
    assert len(one.read()[KEY]) == 2 * MIB
