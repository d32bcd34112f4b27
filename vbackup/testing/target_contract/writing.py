"""Taking points: whole at once or not at all, and many at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import Target, Writer
from vbackup.testing.equal import assert_equal
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import assert_holds, assert_whole, content, unheard
from vbackup.testing.target_contract.machines import SIZE, Kept, commit, keep, noise, write


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """Ends a run in the middle."""


class WritingContract(OneTarget):
    """What others see of the points of a run, and what is left of it."""

    def test_a_point_is_there_when_it_is_committed_and_not_before(self, target: Target, target_factory: Opens) -> None:
        """Committed it is there for all, whole, though the run goes on; before nobody sees any of it."""
        with target.writer() as writer:
            first = write(writer, {"vda": noise(SIZE, 1), "vdb": noise(SIZE, 2)}, files={"nvram": b"vars"})
            for each in (target, target_factory()):
                assert_holds(each)
            commit(writer, first)
            second = write(writer, {"vda": noise(SIZE, 3)}, machine="db")
            for each in (target, target_factory()):
                assert_holds(each, first)
            commit(writer, second)
        for each in (target, target_factory()):
            assert_holds(each, first, second)
            assert each.verify(each.points(), unheard) == []

    def test_a_run_that_fails_leaves_what_it_had_committed(self, target: Target, target_factory: Opens) -> None:
        """And nothing else: no part of a point that was not, however far it was. The next run is as any."""
        kept: list[Kept] = []

        def run() -> None:
            with target.writer() as writer:
                kept.append(commit(writer, write(writer, {"vda": noise(SIZE, 1)})))
                write(writer, {"vda": noise(SIZE, 2)}, machine="db", files={"nvram": b"vars"})
                begin(writer)
                raise Stopped

        with pytest.raises(Stopped):
            run()
        assert_holds(target, *kept)
        assert_holds(target_factory(), *kept)
        kept.append(keep(target_factory(), {"vda": noise(SIZE, 2)}, machine="db", files={"nvram": b"vars"}))
        assert_holds(target, *kept)
        assert target.verify(target.points(), unheard) == []

    def test_what_is_not_committed_is_no_point(self, target: Target, target_factory: Opens) -> None:
        """Also when the run ends well: a machine failed, the others did not."""
        with target.writer() as writer:
            write(writer, {"vda": noise(SIZE, 1)}, files={"nvram": b"vars"})
            begin(writer)
        assert_holds(target)
        assert_holds(target_factory())

    def test_a_healthy_store_has_nothing_to_say(self, target: Target) -> None:
        """A run is not stopped, and has no notes."""
        with target.writer() as writer:
            writer.check()
            assert list(writer.notes) == []

    def test_many_machines_at_once(self, target: Target, target_factory: Opens) -> None:
        """One writer takes points from many threads, and several disks of each; some are the same."""

        def run(number: int) -> Kept:
            disks = {"vda": noise(SIZE, number // 2), "vdb": bytes(1000) + noise(SIZE, 9)}
            machine = f"web{number}"
            return commit(writer, write(writer, disks, machine=machine, sequence=number + 1, files={"nvram": b"vars"}))

        with target.writer() as writer, ThreadPoolExecutor(4) as pool:
            kept = list(pool.map(run, range(6)))
        assert_holds(target_factory(), *kept)
        assert target.verify(target.points(), unheard) == []

    def test_a_run_within_another(self, target: Target, target_factory: Opens) -> None:
        """What begins, ends or fails while a run is under way takes nothing from it."""

        def fail(opened: Target) -> None:
            with opened.writer() as another:
                begin(another)
                raise Stopped

        with target.writer() as writer:
            first = write(writer, {"vda": noise(SIZE, 1)}, files={"nvram": b"vars"})
            second = keep(target_factory(), {"vda": noise(SIZE, 1)}, machine="db", files={"nvram": b"vars"})
            for opened in (target, target_factory()):
                with pytest.raises(Stopped):
                    fail(opened)
            commit(writer, first)
        assert_holds(target_factory(), first, second)
        assert target.verify(target.points(), unheard) == []

    def test_several_writers_at_once(self, target: Target, target_factory: Opens) -> None:
        """Runs of several processes, of the same bytes in part; one of them fails. None disturbs another."""
        start = threading.Barrier(3)

        def run(number: int) -> Sequence[Kept]:
            opened = target_factory()
            with opened.writer() as writer:
                start.wait()
                first = write(writer, {"vda": noise(SIZE, 9), "vdb": noise(SIZE, number)}, machine=f"web{number}")
                commit(writer, first)
                if number == 1:
                    write(writer, {"vda": noise(SIZE, 8)}, machine="lost")
                    raise Stopped
                return first, commit(writer, write(writer, {"vda": noise(SIZE, 8)}, first))

        with ThreadPoolExecutor(3) as pool:
            runs = [pool.submit(run, number) for number in range(3)]
        with pytest.raises(Stopped):
            runs[1].result()
        kept = [each for number in (0, 2) for each in runs[number].result()]
        points = target_factory().points()
        (stopped,) = (point for point in points if point.machine == "web1")
        assert {point.id for point in points} == {stopped.id, *(each.point.id for each in kept)}
        assert_equal("vdb of the stopped run", content(target, stopped, "vdb"), noise(SIZE, 1))
        for each in kept:
            assert_whole(target, each)
        assert target.verify(points, unheard) == []


def begin(writer: Writer) -> None:
    """Begin a disk that is never finished."""
    writer.disk(SIZE, None).write(0, noise(min(writer.block_size, SIZE), 3))
