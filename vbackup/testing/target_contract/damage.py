"""Damage: it is found, named, and never read back as if it were right; and it goes no further."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from vbackup.api import CheckOrder, Corrupt, Kind, Range, Target, split
from vbackup.testing.equal import assert_equal
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import as_made, assert_whole, unheard
from vbackup.testing.target_contract.machines import READ, SIZE, Kept, commit, keep, noise, write

Harm = Callable[[], None]


class DamageContract(OneTarget):
    """What becomes of a target some of whose bytes are wrong or gone.

    The tests have made one point of a machine ``web`` last, with a disk ``vda`` and a file ``nvram`` whose bytes are
    nowhere else, and nothing is open; before it one of a machine ``db``.
    """

    @pytest.fixture
    def harm_data(self) -> Harm:
        """Override: changes, or takes away, some stored bytes of the last point's disk, and nothing of other points."""
        raise NotImplementedError

    @pytest.fixture
    def harm_point(self) -> Harm:
        """Override: does so to what says that the last point is there, so that it cannot be read any more."""
        raise NotImplementedError

    def test_damaged_data_is_found(self, target: Target, target_factory: Opens, harm_data: Harm) -> None:
        """Verify names the point, its disk and where; check finds it, too. Other points have none of it."""
        web, db = _both(target, harm_data)
        opened = target_factory()
        found = opened.verify(opened.points(), unheard)
        assert any((each.point, each.machine, each.disk) == (web.point.id, "web", "vda") for each in found), found
        assert all(each.reason and each.offset >= 0 and each.length >= 0 for each in found)
        assert not [each for each in found if each.point == db.point.id]
        report = target_factory().check(CheckOrder(read_data=True), unheard)
        assert report.wrong or report.damage
        assert_whole(target_factory(), db)

    def test_damaged_data_is_never_read(self, target: Target, target_factory: Opens, harm_data: Harm) -> None:
        """Each range is what was written, or `Corrupt` naming the disk; at least one is that."""
        web, _ = _both(target, harm_data)
        opened = target_factory()
        refusals: list[Corrupt] = []
        try:
            extents = [extent for extent in opened.extents(web.point, "vda") if extent.kind is Kind.DATA]
        except Corrupt as error:
            refusals, extents = [error], []
        for offset, length in split((Range(extent.offset, extent.length) for extent in extents), READ // 64):
            try:
                (block,) = opened.read(web.point, "vda", [Range(offset, length)])
            except Corrupt as error:
                refusals.append(error)
            else:
                assert_equal(f"vda from {offset} on", block.data, web.disks["vda"][offset : offset + length])
        assert refusals
        assert all("vda" in str(error) for error in refusals)

    def test_damage_does_not_spread(self, target: Target, target_factory: Opens, harm_data: Harm) -> None:
        """When it was found, the next run is whole: it does not build on the damaged point, or on what is damaged."""
        web, db = _both(target, harm_data)
        opened = target_factory()
        assert opened.verify([web.point], unheard)
        data = web.disks["vda"][:-500] + noise(500, 7)
        with opened.writer() as writer:
            kept = None
            if writer.base_problem(web.point.disks[0]) is None:
                with suppress(Corrupt):  # the framework then reads the disk in full, too
                    kept = write(writer, {"vda": data}, web)
            kept = commit(writer, kept or write(writer, {"vda": data}, sequence=2))
        opened = target_factory()
        assert opened.verify([kept.point, db.point], unheard) == []
        assert_whole(opened, kept)

    def test_what_is_damaged_can_be_deleted(self, target: Target, target_factory: Opens, harm_data: Harm) -> None:
        """And then nothing is damaged any more that anybody needs."""
        web, db = _both(target, harm_data)
        target_factory().delete([web.point])
        opened = target_factory()
        assert [point.id for point in opened.points()] == [db.point.id]
        assert opened.verify(opened.points(), unheard) == []
        assert_whole(opened, db)

    def test_a_damaged_point_is_told_of(self, target: Target, target_factory: Opens, harm_point: Harm) -> None:
        """It is not listed as a good one, nor is it silently missing; and it can be given up."""
        _, db = _both(target, harm_point)
        opened = target_factory()
        assert [as_made(point) for point in opened.points()] == [as_made(db.point)]
        damaged = opened.damaged_points()
        assert len(damaged) == 1
        assert damaged[0].point
        assert damaged[0].reason
        assert_whole(opened, db)
        opened.forget([damaged[0].point])
        assert target_factory().damaged_points() == []
        assert_whole(target_factory(), db)


def _both(target: Target, harm: Harm) -> tuple[Kept, Kept]:
    db = keep(target, {"vda": noise(SIZE, 1)}, machine="db", files={"nvram": b"of db"})
    web = keep(target, {"vda": noise(SIZE, 2)}, sequence=1, files={"nvram": b"of web"})
    target.close()
    harm()
    return web, db
