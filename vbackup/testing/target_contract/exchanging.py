"""Points that go from one target to another of its type as they are stored: only for an `Exchanger`."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from vbackup.api import AlreadyExists, DiskProgress, Exchanger, Point, Target
from vbackup.testing.target_contract.base import Opens
from vbackup.testing.target_contract.looking import assert_holds
from vbackup.testing.target_contract.machines import MIB, Kept, keep, noise

_SIZE = 3 * MIB + 1000


class _Enough(Exception):  # noqa: N818 - nothing is wrong
    """What somebody stops a copy with."""


class ExchangeContract:
    """What `vbackup copy` rests on where two targets share their keys."""

    @pytest.fixture
    def two_factories(self) -> tuple[Opens, Opens]:
        """Override: open two targets of one type on two places that were empty when the test began; see `OneTarget`."""
        raise NotImplementedError

    def test_only_those_of_shared_keys_exchange(self, two_factories: tuple[Opens, Opens]) -> None:
        """Both ways, and for ever; one that was made by itself is a stranger to it."""
        source, destination = (opens() for opens in two_factories)
        source.init()
        _exchanger(destination).init_with_keys_of(source)
        assert source.id != destination.id
        for opens, other in zip(two_factories, (destination, source), strict=True):
            assert _exchanger(opens()).exchanges_with(other)
        with pytest.raises(AlreadyExists):
            _exchanger(destination).init_with_keys_of(source)

    def test_targets_made_apart(self, two_factories: tuple[Opens, Opens]) -> None:
        """They have nothing in common but their type."""
        source, destination = (opens() for opens in two_factories)
        source.init()
        destination.init()
        assert not _exchanger(destination).exchanges_with(source)

    def test_points_that_are_taken_over(self, two_factories: tuple[Opens, Opens]) -> None:
        """The same point, all of it: alone, on a base that both have, and when the source has lost it."""
        source, destination = _two(two_factories)
        first, second = _points(source)
        alone = _take(destination, source, second)
        assert_holds(destination, alone)
        destination.delete([alone.point])
        base = _take(destination, source, first)
        built = _take(destination, source, second, base)
        source.delete([first.point, second.point])
        assert_holds(two_factories[1](), base, built)

    def test_a_base_saves_reading(self, two_factories: tuple[Opens, Opens]) -> None:
        """What the point shares with it is not read from the source again."""
        source, destination = _two(two_factories)
        first, second = _points(source)
        base = _take(destination, source, first)
        with destination.writer() as writer:
            taken = _exchanger(destination).take_over(writer, source, second.point, base.point, _unheard)
        assert taken.read < _SIZE // 2

    def test_progress(self, two_factories: tuple[Opens, Opens]) -> None:
        """At the end all of the disk is done."""
        source, destination = _two(two_factories)
        first, _ = _points(source)
        heard: list[DiskProgress] = []
        with destination.writer() as writer:
            _exchanger(destination).take_over(writer, source, first.point, None, heard.append)
        assert heard[-1].key == "vda"
        assert heard[-1].done == heard[-1].size == _SIZE

    def test_a_copy_that_is_stopped(self, two_factories: tuple[Opens, Opens]) -> None:
        """What ``report`` raises comes out; there is no point, and the next try makes it."""
        source, destination = _two(two_factories)
        first, _ = _points(source)
        with pytest.raises(_Enough), destination.writer() as writer:
            _exchanger(destination).take_over(writer, source, first.point, None, _stop)
        assert_holds(two_factories[1]())
        taken = _take(destination, source, first)
        assert_holds(two_factories[1](), taken)


def _two(factories: tuple[Opens, Opens]) -> tuple[Target, Target]:
    source, destination = (opens() for opens in factories)
    source.init()
    _exchanger(destination).init_with_keys_of(source)
    return source, destination


def _exchanger(target: Target) -> Exchanger:
    assert isinstance(target, Exchanger)
    return cast("Exchanger", target)


def _points(source: Target) -> tuple[Kept, Kept]:
    data = noise(_SIZE, 1)
    first = keep(source, {"vda": data}, files={"nvram": b"vars"})
    return first, keep(source, {"vda": b"new" + data[3:]}, first, files={"nvram": b"other"})


def _take(destination: Target, source: Target, kept: Kept, base: Kept | None = None) -> Kept:
    """Take a point over; return it as the destination tells it, which may keep its disks in a way of its own."""
    before = base.point if base else None
    with destination.writer() as writer:
        taken = _exchanger(destination).take_over(writer, source, kept.point, before, _unheard).point
    assert _captured(taken) == _captured(kept.point)
    return replace(kept, point=taken)


def _captured(point: Point) -> Point:
    """Return what a point says of its machine, without how it is kept."""
    kept_anyhow = {"content": {}, "changed": 0, "stored": 0}
    disks = tuple(disk.model_copy(update=kept_anyhow) for disk in point.disks)
    return point.model_copy(update={"disks": disks, "files": dict.fromkeys(point.files), "locked_until": None})


def _unheard(progress: DiskProgress) -> None:
    del progress


def _stop(progress: DiskProgress) -> None:
    del progress
    raise _Enough
