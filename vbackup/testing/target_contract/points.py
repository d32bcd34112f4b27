"""The points of a target: which there are, in what order, and what becomes of the others when some are deleted."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from vbackup.api import (
    AlreadyExists,
    Busy,
    Corrupt,
    DiskDescription,
    MachineDescription,
    NativeDocument,
    NotFound,
    PruneOrder,
    Range,
    Target,
    VBackupError,
)
from vbackup.testing.equal import assert_equal
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import as_made, assert_holds, assert_whole, unheard
from vbackup.testing.target_contract.machines import SIZE, Kept, commit, keep, noise, write, write_disk


class PointContract(OneTarget):
    """What there is."""

    def test_says_what_it_is(self, target: Target) -> None:
        """A name, options, and what it needs of the configuration and of a transport."""
        assert target.name
        assert target.options.model_fields is not None
        assert isinstance(target.encodes, bool)
        assert isinstance(target.needs_files, bool)

    def test_a_place_without_a_target_is_no_empty_one(self, target_factory: Opens) -> None:
        """Making an instance touches nothing; all that is asked of a target that never was is `NotFound`."""
        target = target_factory()
        with pytest.raises(NotFound):
            _ = target.id
        with pytest.raises(NotFound):
            target.points()
        with pytest.raises(NotFound), target.writer():
            pass
        target.close()
        target_factory().init()

    def test_made_once(self, target: Target, target_factory: Opens) -> None:
        """It has an id for ever, and is never made anew over what is there."""
        assert re.fullmatch("[0-9a-f]{32}", target.id)
        kept = keep(target, {"vda": noise(1000, 1)})
        for each in (target, target_factory()):
            with pytest.raises(AlreadyExists):
                each.init()
        assert target_factory().id == target.id
        assert_holds(target_factory(), kept)

    def test_empty(self, target: Target) -> None:
        """A new target has nothing, and nothing is wrong with it."""
        assert target.points() == []
        assert target.damaged_points() == []
        assert dict(target.protected()) == {}
        assert target.verify([], unheard) == []
        target.delete([])
        target.forget([])

    def test_oldest_first(self, target: Target, target_factory: Opens) -> None:
        """By the time of the capture, whatever was committed first; of all machines."""
        order = [3, 1, 4, 2]
        kept = [keep(target, {"vda": noise(100, n)}, machine=f"web{n % 2}", sequence=n) for n in order]
        for each in (target, target_factory()):
            assert [point.sequence for point in each.points()] == sorted(order)
        assert_holds(target_factory(), *kept)

    def test_all_that_a_point_says_is_kept(self, target: Target, target_factory: Opens) -> None:
        """What it is told of the machine and of the run, it tells again."""
        with target.writer() as writer:
            disk = write_disk(writer, "vda", noise(SIZE, 1))
            disk = disk.model_copy(update={"format": "qcow2", "full_reason": "über", "read": 7, "samples": (0, 65536)})
            memory = write_disk(writer, "memory", noise(1000, 2)).model_copy(update={"is_memory": True})
            kept = write(writer, {}, files={"nvram": b"vars"}, machine="über & co")
            said = {
                "disks": (disk, memory), "job": "nightly", "group": "shop", "together": "ab" * 16,
                "members": ("lab:web", "vc:db"), "seconds": 1.5, "quiesced": True,
                "marker": {"checkpoint": "vbackup-1", "vda": [1, None]}, "warnings": ("100 % {0}\n", "ü" * 3000),
            }  # fmt: skip
            point = kept.point.model_copy(update=said)
            native = NativeDocument(kind="libvirt-domain-xml", text="<domain>ü</domain>")
            description = MachineDescription(
                name=point.machine, id="id", cpus=4, disks=(DiskDescription(key="vdz", size=5),), native=native
            )
            writer.commit(point, description)
        for each in (target, target_factory()):
            assert [as_made(found) for found in each.points()] == [point]
            assert each.description(point) == description

    @pytest.mark.parametrize(
        "machine", ["..a", "a b", "-rf", "$(reboot)", "a\\b", "~", "x" * 255, "ü" * 255, "*", "CON"]
    )
    def test_machines_of_any_name(self, target: Target, machine: str) -> None:
        """They come from outside: none leads anywhere else, and no two are one."""
        kept = keep(target, {"vda": noise(1000, 1)}, machine=machine, files={"nvram": b"vars"})
        other = keep(target, {"vda": noise(1000, 2)}, machine=machine.swapcase() + "_" if len(machine) < 255 else "x")
        assert_holds(target, kept, other)

    @pytest.mark.parametrize("gone", [(0,), (1,), (2,), (3,), (0, 1), (1, 3), (0, 1, 2, 3)], ids=str)
    def test_any_point_can_be_deleted(self, target: Target, target_factory: Opens, gone: tuple[int, ...]) -> None:
        """Whatever is built on it or it is built on: the others stay whole, also when the space is given back."""
        kept = three_and_one(target)
        target.delete([kept[number].point for number in gone])
        left = [each for number, each in enumerate(kept) if number not in gone]
        assert_holds(target, *left)
        assert_holds(target_factory(), *left)
        target.prune(PruneOrder())
        assert_holds(target_factory(), *left)
        assert target.verify(target.points(), unheard) == []

    def test_what_is_deleted_is_gone(self, target: Target, target_factory: Opens) -> None:
        """It is not found, and deleting it again, verifying it, or giving it up, is no error: others delete, too."""
        first, *left = three_and_one(target)
        other = target_factory()
        assert len(other.points()) == 4
        target.delete([first.point])
        for each in (target, other):
            with pytest.raises((NotFound, Corrupt)):
                each.description(first.point)
            each.delete([first.point])
            each.forget([first.point.id])
            assert each.verify([first.point], unheard) == []
            assert_holds(each, *left)

    def test_deleting_beside_a_reader(self, target: Target, target_factory: Opens) -> None:
        """Whoever reads a point that others delete gets its bytes, or an error; or it is `Busy` and stays meanwhile."""
        first, *left = three_and_one(target)
        blocks = target_factory().read(first.point, "vda", [Range(0, 1000), Range(SIZE - 1000, 1000)])
        with suppress(NotFound, Corrupt):
            assert_equal("the first bytes", next(blocks).data, first.disks["vda"][:1000])
            deletes_or_is_busy(target, first)
            assert_equal("the last bytes", next(blocks).data, first.disks["vda"][-1000:])
            list(blocks)
        target.delete([first.point])
        assert_holds(target, *left)

    def test_deleting_what_is_built_on(self, target: Target, target_factory: Opens) -> None:
        """The run that builds on it fails, or its point is whole; or the delete is `Busy`."""
        first, *left = three_and_one(target)
        data = first.disks["vda"][:-100] + noise(100, 77)
        with suppress(VBackupError), target_factory().writer() as writer:
            assert writer.base_problem(first.point.disks[0]) is None
            kept = write(writer, {"vda": data}, first, sequence=9)
            deletes_or_is_busy(target, first)
            target.prune(PruneOrder())
            left.append(commit(writer, kept))
        target.delete([first.point])
        assert_holds(target_factory(), *left)
        assert target.verify(target.points(), unheard) == []

    def test_protected(self, target: Target, target_factory: Opens) -> None:
        """A point and why, for all that open the target; undone it is as any."""
        first, second, *_ = three_and_one(target)
        target.unprotect(first.point)
        target.protect(first.point, "before the upgrade")
        target.protect(second.point, "für immer")
        target.protect(second.point, "100 % {sure}")
        reasons = {first.point.id: "before the upgrade", second.point.id: "100 % {sure}"}
        for each in (target, target_factory()):
            assert dict(each.protected()) == reasons
        target.prune(PruneOrder())
        target.unprotect(first.point)
        target.unprotect(first.point)
        assert dict(target_factory().protected()) == {second.point.id: "100 % {sure}"}
        target.delete([second.point])
        assert dict(target.protected()) == {}
        assert_whole(target, first)


def three_and_one(target: Target) -> list[Kept]:
    """Keep three points of a machine, each built on the one before, and one of another machine with equal bytes."""
    data = noise(SIZE, 1)
    kept = [keep(target, {"vda": data}, files={"nvram": b"vars"})]
    for number in (1, 2):
        data = data[: number * 100_000] + noise(10, number) + data[number * 100_000 + 10 :]
        kept.append(keep(target, {"vda": data}, kept[-1], files={"nvram": b"vars"}))
    return [*kept, keep(target, {"vda": data}, machine="db", sequence=4)]


def deletes_or_is_busy(target: Target, kept: Kept) -> None:
    """Delete a point; a target may refuse while somebody needs it, if it says that this passes."""
    refusals: list[Busy] = []
    try:
        target.delete([kept.point])
    except Busy as error:
        refusals.append(error)
    assert all(error.transient for error in refusals)
