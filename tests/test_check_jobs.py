"""Checking over targets: one is repaired from what the others hold, whatever form, key and chunk size they have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import back_up, guest, noise, restored
from vbackup.api import CheckOrder, ConfigError, Point, PointDisk, Range, Unavailable
from vbackup.cli.main import execute
from vbackup.config import load
from vbackup.jobs.check import CheckResult, check
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.repository.keys import new_key_file
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup_local.transport import Local

MIB = 1 << 20
CHUNK = 64 << 10
CONFIG = """
transports:
  one: {{type: local, path: {0}/one}}
  two: {{type: local, path: {0}/two}}
  three: {{type: local, path: {0}/three}}
targets:
  main:
    type: repository
    transport: one
    chunk_size: 65536
    codecs: [{{type: zstd}}, {{type: aes-256-gcm}}]
    key: {{file: {0}/one.key}}
  offsite:
    type: repository
    transport: two
    chunk_size: 16384
    codecs: [{{type: chacha20-poly1305}}]
    key: {{file: {0}/two.key}}
  plain: {{type: image, transport: three}}
"""


def copy(site: Site, point: Point, alias: str) -> None:
    """Put a point of the main target into another one, under its id."""
    source, target = site.target("main"), site.target(alias)
    with target.writer() as writer:
        disks = []
        for disk in point.disks:
            made = writer.disk(disk.size, None)
            for at in range(0, disk.size, 4 * MIB):
                (block,) = source.read(point, disk.key, [Range(at, min(4 * MIB, disk.size - at))])
                made.write(at, block.data)
            disks.append(PointDisk(key=disk.key, size=disk.size, content=made.finish()[0]))
        files = {name: writer.file(source.file(point, name)) for name in point.files}
        made_point = point.model_copy(update={"disks": tuple(disks), "files": files})
        writer.commit(made_point, source.description(point))


class Place:
    """A main target with two points, the first of which is somewhere else as well."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "vbackup.yaml"
        self.file.write_text(CONFIG.format(directory))
        for name in ("one", "two", "three"):
            (directory / name).mkdir()
            (directory / f"{name}.key").write_bytes(new_key_file())
            (directory / f"{name}.key").chmod(0o600)
        registry = Registry.load()
        self.site = Site(load(self.file, registry), registry, state_dir=directory / "s", cache_dir=directory / "c")
        for alias in ("main", "offsite", "plain"):
            self.site.target(alias).init()
        lab = FakeHypervisor()
        machine = guest(lab, "web", noise(20 * MIB + 512, 1))
        machine.files = {"nvram": noise(100_000, 2)}
        self.first = back_up(self.site.target("main"), lab, "web")
        self.first_bytes = bytes(machine.disks["vda"].data)
        machine.disks["vda"].write(10 * CHUNK, noise(2 * CHUNK, 3))
        self.second = back_up(self.site.target("main"), lab, "web")
        self.store = Local(Local.options(path=directory / "one"))

    def copy(self, *aliases: str) -> None:
        for alias in aliases:
            copy(self.site, self.first, alias)

    def lose_packs(self) -> None:
        """Also those with the maps."""
        for info in list(self.store.list("packs")):
            self.store.delete(info.key)

    def check(self, *aliases: str, **order: Any) -> tuple[CheckResult, ...]:
        return check(self.site, aliases, CheckOrder(**order), lambda size: None)

    def vbackup(self, *args: str) -> int:
        self.site.close()
        return execute(["-c", str(self.file), *args])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "s"))
    monkeypatch.setenv("VBACKUP_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setattr("vbackup.jobs.site.STORE_DEADLINE", 0.0)
    made = Place(tmp_path)
    with made.site:
        yield made


def test_all_targets_are_checked_or_those_that_are_named(place: Place) -> None:
    place.copy("offsite", "plain")
    results = place.check(read_data=True)
    assert [(each.target, each.failed, each.warnings) for each in results] == [
        ("main", False, False),
        ("offsite", False, False),
        ("plain", False, False),
    ]
    assert all(each.report.stored and each.report.read for each in results)
    assert [each.target for each in place.check("offsite")] == ["offsite"]
    with pytest.raises(ConfigError, match="no target named"):
        place.check("nowhere")


@pytest.mark.parametrize("alias", ["offsite", "plain"])
def test_a_target_is_repaired_from_another_one(place: Place, alias: str) -> None:
    place.copy(alias)
    place.lose_packs()
    (result,) = place.check("main", repair=True)
    assert any("brought back" in done for done in result.report.repaired)
    target = place.site.target("main")
    assert restored(target, place.first) == {"vda": place.first_bytes}
    assert target.file(place.first, "nvram") == noise(100_000, 2)
    lost = {(damage.point, damage.disk) for damage in result.report.damage}
    assert lost == {(place.second.id, "vda")}
    copy_of_damage = place.check("main", read_data=True)[0].report.damage
    assert copy_of_damage == result.report.damage


def test_what_no_other_target_has_is_reported_lost(place: Place) -> None:
    place.lose_packs()
    (result,) = place.check("main", repair=True)
    assert {damage.point for damage in result.report.damage} == {place.first.id, place.second.id}
    assert result.failed
    assert result.unasked == ()


def test_a_copy_that_is_damaged_itself_gives_what_it_has(place: Place) -> None:
    place.copy("offsite")
    place.lose_packs()
    other = Local(Local.options(path=place.directory / "two"))
    pack = max(other.list("packs"), key=lambda info: info.size)
    data = bytearray(other.get(pack.key))
    data[pack.size // 2] ^= 1
    other.put(pack.key, bytes(data))
    place.check("main", repair=True)
    # A node of a map covers more than is lost there: it cannot be built again. Nothing wrong comes back.
    (result,) = place.check("main", read_data=True)
    assert result.failed
    for damage in result.report.damage:
        assert damage.point in (place.first.id, place.second.id)


def test_image_files_are_checked_for_being_there_and_for_their_bytes(place: Place) -> None:
    place.copy("plain")
    (image,) = place.directory.glob("three/web/*/vda.qcow2")
    with image.open("r+b") as file:
        file.seek(image.stat().st_size // 2)
        file.write(bytes(4096))
    assert not place.check("plain")[0].failed
    (damage,) = place.check("plain", read_data=True)[0].report.damage
    assert (damage.point, damage.disk) == (place.first.id, "vda")
    image.with_name("vda.sums").unlink()
    (damage,) = place.check("plain", repair=True)[0].report.damage
    assert "vda.sums is missing" in damage.reason


def test_a_target_that_is_away_says_so_and_the_others_go_on(place: Place) -> None:
    place.copy("offsite")
    shutil.move(place.directory / "two", place.directory / "away")
    place.lose_packs()
    results = place.check(repair=True)
    main, offsite, plain = results
    assert isinstance(offsite.error, Unavailable)
    assert offsite.report.damage == ()
    assert any("offsite could not be asked" in text for text in main.unasked)
    assert main.report.damage
    assert not plain.failed


def test_the_command_says_what_is_wrong_and_what_was_done(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.copy("offsite")
    place.lose_packs()
    assert place.vbackup("check", "--read-data", "main") == 1
    told = capsys.readouterr()
    assert "main: not whole: " in told.out
    assert "web vda at 0+20972032: " in told.err
    assert place.vbackup("check", "--repair", "--json") == 1
    report = json.loads(capsys.readouterr().out)["targets"][0]
    assert report["repaired"]
    assert {damage["point"] for damage in report["damage"]} == {place.second.id}
    assert place.vbackup("delete", place.second.id) == 0
    capsys.readouterr()
    assert place.vbackup("check", "--read-data=50%", "--since", "30d") == 0
    assert "main: whole: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [["--read-data=x"], ["--read-data=0%"], ["--read-data=101%"], ["--since", "soon"], ["--since", "9999999d"], ["no"]],
)
def test_bad_arguments_are_refused(place: Place, args: list[str]) -> None:
    assert place.vbackup("check", *args) == 2
