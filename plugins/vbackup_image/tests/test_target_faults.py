"""What is damaged, missing, full or forged: it is said of what, and nothing wrong is ever restored."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from vbackup.api import AccessDenied, AlreadyExists, Corrupt, NoSpace, NotFound, Point, Unsupported, VBackupError
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup_image.points.chain import backing
from vbackup_image.points.layout import point_directory
from vbackup_image.points.target import ImageTarget

from .plain import BLOCK, FORMS, back_up, guest, image, leftovers, noise, restored, target_at

SIZE = 40 * BLOCK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "plain"


@pytest.fixture
def lab() -> FakeHypervisor:
    lab = FakeHypervisor()
    guest(lab, "web", noise(SIZE // 2, 1) + bytes(SIZE // 2)).files["nvram"] = b"vars"
    return lab


Made = Callable[[str], tuple[ImageTarget, Point]]


@pytest.fixture
def made(root: Path, lab: FakeHypervisor) -> Made:
    """A target of some form with two points; the newest one."""

    def make(form: str) -> tuple[ImageTarget, Point]:
        target = target_at(root, **FORMS[form])
        target.init()
        back_up(target, lab, "web")
        lab.guests["web"].disks["vda"].write(3 * BLOCK, noise(BLOCK, 3))
        return target, back_up(target, lab, "web")

    return make


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def place_in_file(path: Path, data: bytes) -> int:
    found = path.read_bytes().find(data)
    assert found >= 0
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_byte_is_found_where_it_is(made: Made, root: Path, form: str) -> None:
    target, point = made(form)
    path = image(root, point)
    flip(path, place_in_file(path, noise(BLOCK, 3)) + 77)
    counted: list[int] = []
    (damage,) = target.verify(target.points(), counted.append)
    assert (damage.point, damage.machine, damage.disk) == (point.id, "web", "vda")
    assert (damage.offset, damage.length) == (3 * BLOCK, BLOCK)
    assert str(path) in damage.reason
    assert sum(counted) == 2 * SIZE
    with pytest.raises(Corrupt, match=rf"disk vda of restore point web@{point.id[:8]} at {3 * BLOCK}"):
        restored(target, point)


def test_what_is_written_to_a_hole_is_found(made: Made, root: Path) -> None:
    target, point = made("raw")
    flip(image(root, point), SIZE - 5)
    (damage,) = target.verify([point], lambda size: None)
    assert (damage.offset, damage.length) == (SIZE - BLOCK, BLOCK)


def test_damage_in_a_chain_is_that_of_every_point_that_needs_it(made: Made, root: Path) -> None:
    target, point = made("backing")
    first = target.points()[0]
    flip(image(root, first), place_in_file(image(root, first), noise(SIZE // 2, 1)[5 * BLOCK : 6 * BLOCK]))
    damage = target.verify(target.points(), lambda size: None)
    assert [(d.point, d.offset, d.length) for d in damage] == [(p.id, 5 * BLOCK, BLOCK) for p in (first, point)]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "harm", [Path.unlink, truncate, lambda path: path.write_bytes(b"")], ids=["gone", "cut", "empty"]
)
@pytest.mark.parametrize(
    ("name", "disk", "length"),
    [
        ("vda.*[qr][ca][ow]*", "vda", SIZE),
        ("vda.sums", "vda", SIZE),
        ("machine.json", "", 0),
        ("files/nvram", "nvram", 0),
    ],
)
def test_every_file_is_missed(made: Made, root: Path, form: str, harm, name: str, disk: str, length: int) -> None:
    target, point = made(form)
    (path,) = point_directory(root, point).glob(name)
    harm(path)
    damage = target.verify([point], lambda size: None)
    assert {(d.point, d.machine, d.disk) for d in damage} == {(point.id, "web", disk)}
    assert sum(d.length for d in damage) <= length
    assert all(str(path) in d.reason for d in damage)
    if disk == "vda":
        with pytest.raises(Corrupt):
            restored(target, point)


def test_a_qcow2_file_that_makes_no_sense_is_corrupt_and_not_unavailable(made: Made, root: Path) -> None:
    target, point = made("qcow2")
    path = image(root, point)
    (l1,) = struct.unpack_from(">Q", path.read_bytes(), 40)
    with path.open("r+b") as file:
        file.seek(l1)
        file.write(struct.pack(">Q", (1 << 63) | 0x1234600))  # an L2 table that is not aligned
    (damage,) = target.verify([point], lambda size: None)
    assert (damage.disk, damage.offset, damage.length) == ("vda", 0, SIZE)
    with pytest.raises(Corrupt):
        restored(target, point)


@pytest.mark.parametrize(
    "edit", [lambda t: t.replace('"web"', '"wob"'), lambda t: t[:-50], lambda t: "[]", lambda t: ""]
)
def test_a_point_that_was_edited_is_damaged_and_the_others_are_not(made: Made, root: Path, lab, edit) -> None:
    target, point = made("qcow2")
    path = point_directory(root, point) / "point.json"
    path.write_text(edit(path.read_text()))
    assert [p.id for p in target.points()] == [target.points()[0].id] != [point.id]
    (damage,) = target.damaged_points()
    assert (damage.point, damage.machine) == (point.id[:8], "web")
    assert str(path) in damage.reason
    again = back_up(target, lab, "web")
    assert restored(target, again) == {"vda": bytes(lab.guests["web"].disks["vda"].data)}


def test_a_directory_in_the_wrong_place_and_links_are_no_points(made: Made, root: Path) -> None:
    target, point = made("qcow2")
    directory = point_directory(root, point)
    shutil.copytree(directory, root / "other" / directory.name)
    (root / "linked").symlink_to(directory.parent)
    (root / "lost+found").mkdir()
    assert len(target.points()) == 2
    (damage,) = target.damaged_points()
    assert "of another directory" in damage.reason


def test_no_backing_file_but_ours_is_followed(made: Made, root: Path, tmp_path: Path) -> None:
    target, point = made("backing")
    secret = tmp_path / "secret.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", secret, str(SIZE)], check=True)
    path = image(root, point)
    for name in (str(secret), "../../../secret.qcow2", "../../web/../../secret.qcow2", "json:{}", "nbd://x/y"):
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name, path], check=True)
        with pytest.raises(Corrupt, match="never gave"):
            backing(path)
        (damage,) = target.verify([point], lambda size: None)
        assert damage.length == SIZE
    own = f"../../web/{path.parent.name}/vda.qcow2"
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", own, path], check=True)
    (damage,) = target.verify([point], lambda size: None)
    assert "circle" in damage.reason
    path.unlink()
    path.symlink_to(secret)
    (damage,) = target.verify([point], lambda size: None)
    assert "is no file" in damage.reason
    target.delete([point])
    assert secret.exists()


@pytest.mark.parametrize("form", FORMS)
def test_damage_that_was_found_is_healed_by_the_next_run(
    made: Made, root: Path, lab: FakeHypervisor, form: str
) -> None:
    target, point = made(form)
    path = image(root, point)
    flip(path, place_in_file(path, noise(BLOCK, 3)))
    assert len(target.verify([point], lambda size: None)) == 1
    assert "vda" in (path.parent / "damaged.txt").read_text()
    healed = back_up(target, lab, "web")
    assert "found the restore point before damaged" in (healed.disks[0].full_reason or "")
    assert restored(target, healed) == {"vda": bytes(lab.guests["web"].disks["vda"].data)}
    flip(path, place_in_file(path, bytes([noise(BLOCK, 3)[0] ^ 1]) + noise(BLOCK, 3)[1:]))
    assert target.verify(target.points(), lambda size: None) == []
    assert not (path.parent / "damaged.txt").exists()


def test_damage_that_the_next_run_meets_makes_it_read_all(made: Made, root: Path, lab: FakeHypervisor) -> None:
    target, point = made("qcow2")
    flip(image(root, point), place_in_file(image(root, point), noise(BLOCK, 3)))
    healed = back_up(target, lab, "web")
    assert "is damaged" in (healed.disks[0].full_reason or "")
    assert restored(target, healed) == {"vda": bytes(lab.guests["web"].disks["vda"].data)}
    assert leftovers(root) == []


@pytest.mark.parametrize("name", ["vda.qcow2", "vda.sums", "point.json"])
def test_a_base_that_is_missing_makes_the_next_run_read_all(
    made: Made, root: Path, lab: FakeHypervisor, name: str
) -> None:
    target, point = made("backing")
    before = target.points
    points = before()
    (point_directory(root, point) / name).unlink()
    target.points = lambda: points  # type: ignore[method-assign]  # as they were when the run began
    healed = back_up(target, lab, "web")
    target.points = before  # type: ignore[method-assign]
    assert "the restore point before" in (healed.disks[0].full_reason or "")
    assert restored(target, healed) == {"vda": bytes(lab.guests["web"].disks["vda"].data)}


# -- stores that do not take it -----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("form", FORMS)
def test_a_full_store_is_said_and_harms_nothing(small: Path, lab: FakeHypervisor, form: str) -> None:
    root = small / "plain"
    target = target_at(root, **FORMS[form])
    target.init()
    point = back_up(target, lab, "web")
    before = dict(lab.guests["web"].disks)
    guest(lab, "large", noise(5 << 20, 5))
    with pytest.raises(NoSpace, match="No space"):
        back_up(target, lab, "large")
    assert leftovers(root) == []
    assert [p.id for p in target.points()] == [point.id]
    assert restored(target, point) == {"vda": bytes(before["vda"].data)}
    filler = small / "filler"
    fill(filler)
    target._context = replace(target._context, state_dir=small.parent / "state")  # it is elsewhere, in life
    with pytest.raises(NoSpace):
        back_up(target, lab, "web")
    filler.unlink()
    assert [p.id for p in target.points()] == [point.id]
    again = back_up(target, lab, "web")
    target.delete([point])
    assert restored(target, again) == {"vda": bytes(before["vda"].data)}


def test_a_store_that_is_read_only_can_be_restored_and_verified(made: Made, root: Path, lab: FakeHypervisor) -> None:
    target, point = made("backing")
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
    try:
        assert restored(target, point) == {"vda": bytes(lab.guests["web"].disks["vda"].data)}
        assert target.verify(target.points(), lambda size: None) == []
        for call in (
            lambda: back_up(target, lab, "web"),
            lambda: target.delete([point]),
            lambda: target.protect(point, "x"),
        ):
            with pytest.raises(AccessDenied, match="Read-only"):
                call()
        assert lab.open_captures == 0
    finally:
        subprocess.run(["umount", root], check=True)
    assert len(target.points()) == 2


@pytest.mark.parametrize(
    ("text", "error"), [("{}", Corrupt), ("", Corrupt), ('{"format": 2, "id": "%s", "created": ""}', Unsupported)]
)
def test_a_target_of_a_newer_format_or_a_damaged_one(
    made: Made, root: Path, text: str, error: type[VBackupError]
) -> None:
    target, _ = made("qcow2")
    (root / "vbackup-images.json").write_text(text.replace("%s", "0" * 32))
    with pytest.raises(error):
        target.points()
    (root / "vbackup-images.json").unlink()
    with pytest.raises(NotFound):
        target.points()
    with pytest.raises(AlreadyExists, match="restore that file"):
        target.init()
