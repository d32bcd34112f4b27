"""The target: every point is a directory of images that open without vbackup, and holds the bytes of its moment."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from vbackup.api import (
    AlreadyExists,
    Busy,
    Extent,
    Kind,
    NativeDocument,
    NotFound,
    PluginError,
    PruneOrder,
    Range,
    Unavailable,
)
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup_image.points import session
from vbackup_image.points.layout import machine_directory, point_directory

from .plain import BLOCK, FORMS, back_up, check_all, guest, image, leftovers, noise, target_at

SIZE = 40 * BLOCK + 1024


def snapshot(machine) -> dict[str, bytes]:
    return {key: bytes(disk.data) for key, disk in machine.disks.items()}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "plain"


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.fixture
def target(root, form):
    made = target_at(root, **form)
    made.init()
    return made


@pytest.fixture
def lab():
    return FakeHypervisor()


def test_every_point_has_the_bytes_of_its_moment(target, root, lab):
    machine = guest(lab, "web", noise(SIZE, 1), bytes(SIZE), b"")
    source, moments = random.Random(5), []
    for number in range(6):
        for disk in list(machine.disks.values())[:2]:
            for _ in range(3):
                offset = source.randrange(SIZE - BLOCK)
                disk.write(offset, source.choice([noise(9000, number), bytes(BLOCK)]))
        if number == 3:
            machine.disks["vda"].resize(SIZE + 5 * BLOCK + 512)
        if number == 5:
            machine.disks["vda"].resize(SIZE - 5 * BLOCK)
        point = back_up(target, lab, "web")
        moments.append((point, snapshot(machine)))
        assert leftovers(root) == []
    check_all(target, root, moments)
    assert [bool(point.disks[0].full_reason) for point, _ in moments] == [True, *[False] * 5]
    assert moments[1][0].changed == sum(
        len(new[key][at : at + BLOCK])
        for (_, old), (_, new) in [moments[:2]]
        for key in new
        for at in range(0, SIZE, BLOCK)
        if old[key][at : at + BLOCK] != new[key][at : at + BLOCK]
    )


def test_a_point_is_a_directory_that_people_can_read(root, lab):
    target = target_at(root)
    target.init()
    machine = guest(lab, "web", noise(SIZE, 1))
    machine.files["nvram"] = b"efi vars"
    point = back_up(target, lab, "web")
    directory = root / "web" / f"{point.time:%Y-%m-%dT%H-%M-%SZ}-{point.id[:8]}"
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert names == {"point.json", "machine.json", "vda.qcow2", "vda.sums", "files/nvram"}
    assert (directory / "files" / "nvram").read_bytes() == b"efi vars" == target.file(point, "nvram")
    assert json.loads((directory / "machine.json").read_text())["disks"][0]["size"] == SIZE
    assert json.loads((directory / "point.json").read_text())["point"]["id"] == point.id
    assert target.description(point).name == "web"
    assert {path.stat().st_mode & 0o077 for path in root.rglob("*")} == {0}
    with pytest.raises(NotFound):
        target.file(point, "tpm")


def test_the_hypervisors_own_document_lies_beside(root, lab):
    target = target_at(root)
    target.init()
    guest(lab, "web", noise(SIZE, 1))
    point = back_up(target, lab, "web")
    machine = target.description(point)
    machine = machine.model_copy(update={"native": NativeDocument(kind="libvirt-domain-xml", text="<domain/>")})
    another = point.model_copy(update={"id": "ab" * 16, "disks": ()})
    with target.writer() as writer:
        writer.commit(another, machine)
    assert (point_directory(root, another) / "hypervisor.xml").read_text() == "<domain/>"
    assert target.description(another) == machine


def test_zeros_take_no_space(target, root, lab):
    machine = guest(lab, "web", noise(BLOCK, 1) + bytes(SIZE - BLOCK))
    first = back_up(target, lab, "web")
    machine.disks["vda"].write(0, bytes(BLOCK))
    second = back_up(target, lab, "web")
    assert image(root, first).stat().st_blocks * 512 < 10 * BLOCK
    assert image(root, second).stat().st_blocks * 512 < 10 * BLOCK
    assert list(target.extents(first, "vda")) == [Extent(0, BLOCK, Kind.DATA), Extent(BLOCK, SIZE - BLOCK, Kind.ZERO)]
    assert list(target.extents(second, "vda")) == [Extent(0, SIZE, Kind.ZERO)]
    check_all(target, root, [(first, {"vda": noise(BLOCK, 1) + bytes(SIZE - BLOCK)}), (second, {"vda": bytes(SIZE)})])


def test_where_blocks_can_be_shared_the_file_before_is_cloned(root, lab, monkeypatch):
    """File systems that can are rare in tests: a copy stands in for the sharing, all else is as it is."""
    monkeypatch.setattr(session, "clone", lambda source, path: bool(shutil.copyfile(source, path)))
    for name, options in (("a", {}), ("b", {"format": "raw"})):
        target = target_at(root / name, **options)
        root.mkdir(exist_ok=True)
        target.init()
        machine = guest(lab, "web", noise(SIZE, 1))
        moments = [(back_up(target, lab, "web"), snapshot(machine))]
        machine.disks["vda"].write(3 * BLOCK, noise(BLOCK, 9) + bytes(BLOCK))
        moments.append((back_up(target, lab, "web"), snapshot(machine)))
        assert (moments[1][0].disks[0].stored, moments[1][0].disks[0].changed) == (BLOCK, 2 * BLOCK)
        machine.disks["vda"].lost_reason = "asked for"
        moments.append((back_up(target, lab, "web"), snapshot(machine)))
        assert moments[2][0].disks[0].read == SIZE - BLOCK  # the zeros are known as such
        assert moments[2][0].disks[0].stored == 0
        check_all(target, root / name, moments)


def test_reading_gives_any_range(target, lab):
    data = noise(SIZE, 3)
    guest(lab, "web", data)
    point = back_up(target, lab, "web")
    ranges = [Range(5, 10), Range(BLOCK - 1, 2), Range(SIZE - 3, 3), Range(0, SIZE)]
    blocks = list(target.read(point, "vda", ranges))
    assert [(block.offset, bytes(block.data)) for block in blocks] == [
        (r.offset, data[r.offset :][: r.length]) for r in ranges
    ]
    with pytest.raises(NotFound):
        list(target.read(point, "vdx", ranges))


# -- backing files ------------------------------------------------------------------------------------------------


def chain(root: Path, lab: FakeHypervisor, length: int):
    target = target_at(root, backing=True)
    target.init()
    machine = guest(lab, "web", noise(SIZE, 1))
    moments = []
    for number in range(length):
        if number:
            machine.disks["vda"].write(number * 2 * BLOCK, noise(BLOCK // 2, number) + bytes(BLOCK))
        moments.append((back_up(target, lab, "web"), snapshot(machine)))
    return target, moments


def backing_of(path: Path) -> str | None:
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    return info.get("backing-filename")


def test_a_chain_keeps_only_what_changed_and_can_be_moved(root, lab):
    _, moments = chain(root, lab, 3)
    files = [image(root, point) for point, _ in moments]
    assert backing_of(files[0]) is None
    assert [backing_of(file) for file in files[1:]] == [f"../../web/{file.parent.name}/vda.qcow2" for file in files[:2]]
    assert all(file.stat().st_size < 10 * BLOCK for file in files[1:])
    moved = root.with_name("elsewhere")
    root.rename(moved)
    check_all(target_at(moved, backing=True), moved, moments)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_any_point_of_a_chain_can_be_deleted_alone(root, lab, order):
    target, moments = chain(root, lab, 3)
    left = list(moments)
    for index in order:
        target.delete([moments[index][0]])
        left.remove(moments[index])
        check_all(target, root, left)
        assert leftovers(root) == []
    assert target.prune(PruneOrder()).stored < BLOCK


def test_several_are_deleted_at_once_and_the_next_run_builds_on_what_is_left(root, lab):
    target, moments = chain(root, lab, 5)
    target.delete([moments[i][0] for i in (0, 2, 3)])
    assert backing_of(image(root, moments[4][0])) == f"../../web/{image(root, moments[1][0]).parent.name}/vda.qcow2"
    assert backing_of(image(root, moments[1][0])) is None
    lab.guests["web"].disks["vda"].write(0, noise(70, 8))
    last = back_up(target, lab, "web"), snapshot(lab.guests["web"])
    assert last[0].disks[0].full_reason is None
    check_all(target, root, [moments[1], moments[4], last])
    target.delete([point for point, _ in moments])  # most are gone already
    check_all(target, root, [last])


def test_a_chain_ends_before_it_is_too_long(root, lab, monkeypatch):
    monkeypatch.setattr(session, "LONGEST", 3)
    target, moments = chain(root, lab, 5)
    assert [backing_of(image(root, point)) is None for point, _ in moments] == [True, False, False, True, False]
    assert [point.disks[0].full_reason is None for point, _ in moments] == [False, *[True] * 4]
    check_all(target, root, moments)


def test_a_disk_that_was_resized_begins_a_new_chain(root, lab):
    target, moments = chain(root, lab, 2)
    machine = lab.guests["web"]
    machine.disks["vda"].resize(SIZE + BLOCK)
    moments.append((back_up(target, lab, "web"), snapshot(machine)))
    assert backing_of(image(root, moments[2][0])) is None
    check_all(target, root, moments)


def test_the_form_can_change_between_runs(root, lab):
    target, moments = chain(root, lab, 2)
    machine = lab.guests["web"]
    for options in FORMS.values():
        machine.disks["vda"].write(0, noise(10, len(moments)))
        moments.append((back_up(target_at(root, **options), lab, "web"), snapshot(machine)))
        assert moments[-1][0].disks[0].full_reason is None
    check_all(target, root, moments)


# -- at once ------------------------------------------------------------------------------------------------------


def test_what_is_read_or_built_on_is_not_deleted(root, lab):
    target, moments = chain(root, lab, 3)
    first, second, third = (point for point, _ in moments)
    blocks = target.read(second, "vda", [Range(0, BLOCK)])
    next(blocks)
    for point in (second, first):  # the other one lies below it
        with pytest.raises(Busy, match=r"is being (read|deleted)"):
            target.delete([point])
    blocks.close()
    with target.writer() as writer:
        writer.disk(SIZE, third.disks[0])
        for point in (third, first):
            with pytest.raises(Busy):
                target.delete([point])
    target.delete([third, first])
    check_all(target, root, [moments[1]])


def test_one_run_takes_many_machines_at_once_and_leaves_what_failed(target, root, lab):
    from concurrent.futures import ThreadPoolExecutor

    machines = {name: guest(lab, name, noise(SIZE, seed), noise(SIZE, -seed)) for seed, name in enumerate("abcd", 1)}
    with ThreadPoolExecutor(4) as pool:
        points = list(pool.map(lambda name: back_up(target_at(root, **FORMS["qcow2"]), lab, name), machines))
    check_all(
        target, root, sorted([(p, snapshot(machines[p.machine])) for p in points], key=lambda m: (m[0].time, m[0].id))
    )
    assert leftovers(root) == []


def test_a_run_that_lives_is_left_alone(target, root, lab):
    guest(lab, "web", noise(SIZE, 1))
    with target.writer() as writer:
        disk = writer.disk(SIZE, None)
        disk.write(0, noise(BLOCK, 1))
        assert target.prune(PruneOrder()).freed == 0
        back_up(target_at(root), lab, "web")
        assert len(list((root / ".writing").iterdir())) == 2
        disk.write(BLOCK, noise(BLOCK, 2))
    assert list((root / ".writing").iterdir()) == []
    assert len(target.points()) == 1


# -- names and places ---------------------------------------------------------------------------------------------

HOSTILE = [
    "..a", ".writing", "a b", "über", "x" * 255, "x" * 254 + "y", "$(reboot)", "-rf", "a\\b", "~", "web:1", "json:{}",
    "vbackup-images.json", "a\u202eb", "\U0001d54f" * 255, "*", "WEB", "web", "web ",
]  # fmt: skip


def test_no_name_leads_anywhere_else_and_no_two_to_one_place():
    names = [machine_directory(name) for name in HOSTILE]
    assert len({name.lower() for name in names}) == len(HOSTILE) - 1  # WEB and web are both harmless
    assert all(len(name.encode()) <= 100 and "/" not in name and name[0].isalnum() for name in names)
    assert machine_directory("web~0123456789abcdef") != "web~0123456789abcdef"


@pytest.mark.parametrize("name", [name for name in HOSTILE if len(name) < 20])
def test_machines_of_any_name(root, lab, name):
    target = target_at(root, backing=True)
    target.init()
    machine = guest(lab, name, noise(4 * BLOCK, 1))
    moments = [(back_up(target, lab, name), snapshot(machine))]
    machine.disks["vda"].write(0, b"x")
    moments.append((back_up(target, lab, name), snapshot(machine)))
    check_all(target, root, moments)
    assert {path.name for path in root.iterdir()} == {machine_directory(name), ".writing", "vbackup-images.json"}


def test_init_makes_one_target_only(target, root):
    assert target.id == target_at(root).id
    with pytest.raises(AlreadyExists, match="there already"):
        target.init()
    assert {path.name for path in root.iterdir()} == {"vbackup-images.json"}


def test_a_place_that_is_missing_or_empty_is_no_empty_target(target, root, lab):
    (root / "vbackup-images.json").unlink()
    with pytest.raises(NotFound, match="vbackup init plain"):
        target.points()
    shutil.rmtree(root)
    for call in (target.points, lambda: target.id, lambda: target.prune(PruneOrder()), lambda: target.delete([])):
        with pytest.raises(Unavailable, match="mounted"):
            call()


def test_points_are_protected_beside_themselves(target, root, lab):
    guest(lab, "web", noise(SIZE, 1))
    point = back_up(target, lab, "web")
    assert target.protected() == {}
    target.unprotect(point)
    target.protect(point, "before the upgrade")
    assert target.protected() == {point.id: "before the upgrade"}
    assert (point_directory(root, point) / "protected.txt").read_text() == "before the upgrade\n"
    target.unprotect(point)
    assert target.protected() == {}
    target.delete([point])
    with pytest.raises(NotFound):
        target.protect(point, "too late")
    for call in (lambda: target.description(point), lambda: list(target.extents(point, "vda"))):
        with pytest.raises(NotFound):
            call()
    assert target.verify([point], lambda size: None) == []


def test_a_writer_takes_a_disk_in_order_only(target, lab):
    with target.writer() as writer:
        disk = writer.disk(SIZE, None)
        for offset, length in ((BLOCK, BLOCK), (0, 100), (0, SIZE + BLOCK), (0, 0)):
            with pytest.raises(PluginError, match="out of order"):
                disk.zero(offset, length)
        with pytest.raises(PluginError, match="without a base"):
            disk.unchanged(0, BLOCK)
        with pytest.raises(PluginError, match="up to 0 only"):
            disk.finish()
        assert disk.last_data(0, SIZE) is None
        assert not disk.same(0, bytes(BLOCK))
