"""From real images into the target, by the engine; what is there then is compared by qemu-img alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from threading import Event

import pytest

from vbackup.api import HypervisorContext, PruneOrder, RestoreRequest
from vbackup.engine.restore import Restore
from vbackup_image.plugin import ImageHypervisor
from vbackup_image.points.target import ImageTarget

from .plain import FORMS, back_up, image, leftovers, target_at

MIB = 1 << 20


def same(one: Path, other: Path) -> bool:
    argv = ["qemu-img", "compare", "-f", one.suffix[1:], "-F", other.suffix[1:], one, other]
    return subprocess.run(argv, check=False).returncode == 0


@pytest.mark.parametrize("form", FORMS)
def test_images_of_a_real_hypervisor(site, helpers, form: str) -> None:
    disk = site.directory / "web.qcow2"
    root = site.directory / "plain"
    target: ImageTarget = target_at(root, **FORMS[form])
    target.init()
    site.state.mkdir(mode=0o700, exist_ok=True)
    hypervisor = ImageHypervisor(
        ImageHypervisor.options.model_validate(site.options), HypervisorContext("files", site.state)
    )
    copies = []
    for number in range(4):
        helpers.qemu_io(disk, f"write -P {number + 50} {number * 300}k 100k", f"write -z -u {number}M 64k")
        helpers.qemu_io(disk, "discard 2M 1M")
        point = back_up(target, hypervisor, "web")
        assert (point.disks[0].full_reason is None) == (number > 0)
        copy = site.directory / f"copy{number}.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, copy], check=True)
        copies.append((point, copy))
    assert target.verify(target.points(), lambda size: None) == []
    for kept in (copies, copies[1:], copies[1::2]):
        target.delete([point for point in target.points() if point.id not in {kept_point.id for kept_point, _ in kept}])
        assert all(same(image(root, point, "disk0"), copy) for point, copy in kept)
    assert target.prune(PruneOrder()).freed == 0
    assert leftovers(root) == []
    last, copy = copies[-1]
    Restore(target, hypervisor, Event(), lambda key, done, size: None).run(last, RestoreRequest(name="again"))
    assert same(site.directory / "storage" / "again-disk0.qcow2", copy)
