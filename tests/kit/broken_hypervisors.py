"""Hypervisors that break their contract, one way each. No test module: `test_hypervisor_contract` runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from tests.kit.fakes import Away, FakeContract
from tests.kit.images import ImageContract
from vbackup.api import AccessDenied, Block, CaptureLost, Extent, Finding, Kind, Level, Quiesce, Range, Unsupported
from vbackup.testing.hypervisors import FakeDisk, FakeHypervisor, FakeMachine
from vbackup_image.plugin import ImageHypervisor

Kind_ = TypeVar("Kind_", bound=type)

BROKEN: dict[str, str] = {}
"""Each by its name, and the test of the contract that is meant to find it."""
CHOSEN: set[str] = set()
"""Those tests, each also of what is not broken, as pytest's node ids."""
UNBROKEN = {FakeContract: "TestUnbroken", ImageContract: "TestUnbrokenImages"}


def found_by(test: str, **attributes: Any) -> Callable[[Kind_], Kind_]:
    """Make a class of the contract's tests for a hypervisor."""

    def register(kind: Kind_) -> Kind_:
        base = ImageContract if issubclass(kind, ImageHypervisor) else FakeContract
        assert hasattr(base, test)
        BROKEN[kind.__name__] = test
        CHOSEN.update({f"Test{kind.__name__}::{test}", f"{UNBROKEN[base]}::{test}"})
        own = {"away" if issubclass(kind, Away) else "kind": kind, "__module__": __name__}
        globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", (base,), {**own, **attributes})
        return kind

    return register


class TestUnbroken(FakeContract):
    """What must pass, as must `TestUnbrokenImages`."""


class TestUnbrokenImages(ImageContract):
    """For those that are about images."""


class Meddled(FakeHypervisor):
    """Its captures are changed when they are open, and when they are closed."""

    @contextmanager
    def capture(self, machine, request):
        with super().capture(machine, request) as capture:
            self.opened(capture, request)
            yield capture
            self.left(capture, self.guests[machine])

    def opened(self, capture, request) -> None: ...

    def left(self, capture, guest: FakeMachine) -> None: ...


class Extents(Meddled):
    """Its disks have other extents."""

    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            disk.extents = self.meddle(disk, disk.extents)

    def meddle(self, disk, extents):
        return lambda *, full: iter(self.other(list(extents(full=full))))

    def other(self, extents: list[Extent]) -> list[Extent]:
        return extents


class Reads(Meddled):
    """Its disks are read in another way."""

    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            disk.read = self.meddle(disk, disk.read)

    def meddle(self, disk, read):
        return read


# -- what changed ------------------------------------------------------------------------------------------------------


@found_by("test_nothing_is_forgotten")
class ForgetsAChange(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            if disk._dirty:
                disk._dirty.discard(max(disk._dirty))


@found_by("test_nothing_is_forgotten")
class ForgetsWhatBecameZero(Extents):
    def other(self, extents):
        changed = any(extent.kind is Kind.UNCHANGED for extent in extents)
        return [e._replace(kind=Kind.UNCHANGED) if changed and e.kind is Kind.ZERO else e for e in extents]


@found_by("test_zeros_are_told")
class ForgetsManyZeros(ForgetsWhatBecameZero): ...


@found_by("test_only_what_changed_is_read")
class ReadsEverything(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            if disk._dirty is not None:
                disk._dirty = set(range(1000))


@found_by("test_what_is_written_during_a_capture_is_of_the_next")
class TracksFromTheEnd(Meddled):
    def left(self, capture, guest) -> None:
        for disk in guest.disks.values():
            disk.dirty[capture.marker["name"]].clear()


@found_by("test_a_capture_that_was_never_committed_does_not_count")
class CountsWhatIsPending(FakeHypervisor):
    def capture(self, machine, request):
        newest = list(self.guests[machine].disks["vda"].dirty)[-1:]
        return super().capture(machine, replace(request, since={"name": newest[0]} if newest else None))


@found_by("test_an_error_leaves_nothing_and_goes_on")
class CommitsAtOnce(Meddled):
    def opened(self, capture, request) -> None:
        self.commit(capture.machine.name, request.owner, capture.marker)


@found_by("test_a_point_that_is_older_than_the_last")
class TakesTheNewestMarker(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            if request.since and disk._dirty is None:
                disk._dirty, disk.full_reason = set(), None


@found_by("test_markers_that_nothing_is_known_of")
class KnowsEveryMarker(TakesTheNewestMarker): ...


@found_by("test_markers_that_nothing_is_known_of")
class ChokesOnOtherMarkers(FakeHypervisor):
    def capture(self, machine, request):
        if request.since is not None:
            assert request.since["name"]
        return super().capture(machine, request)


@found_by("test_the_first_capture_is_full_and_says_why")
class GivesNoReason(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            disk.full_reason = disk.full_reason and ""


@found_by("test_the_marker_is_json")
class MarkerThatIsNoJson(Meddled):
    def opened(self, capture, request) -> None:
        capture.marker["sizes"] = (1, 2)


@found_by("test_repositories_do_not_disturb_each_other")
class ForgetsOthers(FakeHypervisor):
    def commit(self, machine, owner, marker) -> None:
        for disk in self.guests[machine].disks.values():
            disk.dirty = {name: grains for name, grains in disk.dirty.items() if name == marker["name"]}


@found_by("test_those_of_others_stay")
class SweepsOthers(FakeHypervisor):
    def sweep(self, owner):
        for guest in self.guests.values():
            for disk in guest.disks.values():
                disk.dirty = {name: grains for name, grains in disk.dirty.items() if name.startswith(owner)}
        return []


@found_by("test_one_is_kept")
class NeverForgets(FakeHypervisor):
    def commit(self, machine, owner, marker) -> None: ...


@found_by("test_a_sweep_leaves_the_living_and_the_markers")
class SweepsMarkers(FakeHypervisor):
    def sweep(self, owner):
        for guest in self.guests.values():
            for disk in guest.disks.values():
                disk.dirty.clear()
        return []


@found_by("test_a_sweep_leaves_the_living_and_the_markers")
class SweepsTheLiving(FakeHypervisor):
    def sweep(self, owner):
        return [f"capture {number} was ended" for number in range(self.open_captures)]


@found_by("test_switched_off_and_on")
class ForgetsWhenSwitchedOff(FakeHypervisor):
    def capture(self, machine, request):
        guest = self.guests[machine]
        for disk in () if guest.running else guest.disks.values():
            for grains in disk.dirty.values():
                grains.clear()
        return super().capture(machine, request)


@found_by("test_any_history")
class ForgetsInTheLongRun(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            if self.captures > 6 and disk._dirty:
                disk._dirty.pop()


# -- one moment --------------------------------------------------------------------------------------------------------


@found_by("test_writes_during_the_capture_are_not_seen")
class ShowsTheLiveDisk(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            disk._data = self.guests[capture.machine.name].disks[disk.key].data


@found_by("test_writes_during_a_read_are_not_seen")
class HoldsOnlyWhatWasThereAtFirst(Reads):
    def meddle(self, disk, read):
        live = self.guests["web"].disks[disk.key].data

        def later(ranges) -> Iterator[Block]:
            for number, block in enumerate(read(ranges)):
                yield block if number < 8 else Block(block.offset, bytes(live[block.offset :][: len(block.data)]))

        return later


@found_by("test_the_copy_is_the_machine")
class LosesTheEnd(Meddled):
    def opened(self, capture, request) -> None:
        for disk in capture.disks:
            disk._data = disk._data[:-1] + b"\0"


@found_by("test_the_copy_is_the_machine")
class LeavesOutADisk(Meddled):
    def opened(self, capture, request) -> None:
        del capture.disks[1:]


@found_by("test_waits_for_its_moment_once")
class NeverWaits(FakeHypervisor):
    def capture(self, machine, request):
        return super().capture(machine, replace(request, moment=None))


@found_by("test_waits_for_its_moment_once")
class WaitsTwice(Meddled):
    def opened(self, capture, request) -> None:
        if request.moment is not None:
            request.moment()


@found_by("test_waits_for_its_moment_once")
class WaitsTooLate(FakeHypervisor):
    @contextmanager
    def capture(self, machine, request):
        with super().capture(machine, replace(request, moment=None)) as capture:
            if request.moment is not None:
                request.moment()
            yield capture


@found_by("test_a_moment_that_does_not_come")
class GoesOnWithoutItsMoment(FakeHypervisor):
    def capture(self, machine, request):
        def patient() -> None:
            try:
                request.moment()
            except Exception as error:  # noqa: BLE001 - that is what is wrong with it
                print(error)

        return super().capture(machine, replace(request, moment=request.moment and patient))


@found_by("test_says_when")
class NaiveTime(Meddled):
    def opened(self, capture, request) -> None:
        capture.time = capture.time.replace(tzinfo=None)


@found_by("test_says_when")
class SaysWhenItBegan(Meddled):
    def opened(self, capture, request) -> None:
        capture.time -= timedelta(seconds=5)


@found_by("test_quiesce_no")
class FreezesUnasked(Meddled):
    def opened(self, capture, request) -> None:
        capture.quiesced = True


@found_by("test_quiesce_yes")
class FreezesOnlyIfItCan(Meddled):
    def opened(self, capture, request) -> None:
        capture.quiesced = False


class Stubborn(FakeHypervisor):
    """Its guests cannot be frozen."""

    def capture(self, machine, request):
        self.guests[machine].freezes = False
        return super().capture(machine, request)


@found_by("test_quiesce_try", quiesces=False)
class SaysNothingOfIt(Stubborn, Meddled):
    def opened(self, capture, request) -> None:
        capture.notes = []


@found_by("test_quiesce_yes", quiesces=False)
class GoesOnUnfrozen(Stubborn):
    def capture(self, machine, request):
        quiesce = Quiesce.TRY if request.quiesce is Quiesce.YES else request.quiesce
        return super().capture(machine, replace(request, quiesce=quiesce))


@found_by("test_no_memory_unasked")
class AlwaysTakesTheMemory(FakeHypervisor):
    def capture(self, machine, request):
        return super().capture(machine, replace(request, memory=True))


@found_by("test_memory")
class MemoryByAnotherName(Meddled):
    def opened(self, capture, request) -> None:
        if capture.memory is not None:
            capture.memory.key = "ram"


@found_by("test_disks_that_are_left_out")
class LeavesNothingOut(FakeHypervisor):
    def capture(self, machine, request):
        return super().capture(machine, replace(request, exclude=frozenset()))


@found_by("test_disks_that_are_left_out")
class DescribesOnlyWhatItCaptures(Meddled):
    def opened(self, capture, request) -> None:
        disks = tuple(disk for disk in capture.machine.disks if disk.key not in request.exclude)
        capture.machine = capture.machine.model_copy(update={"disks": disks})


@found_by("test_describes_the_machine")
class AnotherIdentity(Meddled):
    def opened(self, capture, request) -> None:
        capture.machine = capture.machine.model_copy(update={"id": "another"})


# -- reading -----------------------------------------------------------------------------------------------------------


@found_by("test_extents_cover_the_disk")
class CoversTooLittle(Extents):
    def other(self, extents):
        return extents[:-1]


@found_by("test_extents_cover_the_disk")
class ExtentsOutOfOrder(Extents):
    def other(self, extents):
        return extents[::-1]


@found_by("test_extents_cover_the_disk")
class CallsItZero(Extents):
    def other(self, extents):
        return [extents[0]._replace(kind=Kind.ZERO), *extents[1:]]


@found_by("test_extents_are_lazy_and_come_again")
class ExtentsOnlyOnce(Extents):
    def meddle(self, disk, extents):
        only = extents(full=True)
        return lambda *, full: only


@found_by("test_full_means_data_and_zero_only")
class NeverFull(Extents):
    def meddle(self, disk, extents):
        return lambda *, full: extents(full=False)


@found_by("test_reads_in_the_order_asked_for")
class BlocksInAnotherOrder(Reads):
    def meddle(self, disk, read):
        return lambda ranges: read(sorted(ranges))


@found_by("test_reads_in_the_order_asked_for")
class BlocksThatAreTooShort(Reads):
    def meddle(self, disk, read):
        return lambda ranges: (Block(block.offset, block.data[: 1 << 20]) for block in read(ranges))


@found_by("test_blocks_stay_as_they_are")
class OneBufferForAll(Reads):
    def meddle(self, disk, read):
        buffer = bytearray(4 << 20)

        def blocks(ranges) -> Iterator[Block]:
            for offset, data in read(ranges):
                buffer[: len(data)] = data
                yield Block(offset, memoryview(buffer)[: len(data)])

        return blocks


@found_by("test_an_error_of_who_asks_comes_back")
class SwallowsWhatTheAskerRaises(Reads):
    def meddle(self, disk, read):
        def blocks(ranges) -> Iterator[Block]:
            try:
                yield from read(ranges)
            except Exception as error:  # noqa: BLE001 - that is what is wrong with it
                print(error)

        return blocks


@found_by("test_a_reader_that_goes_away")
class ReadsOnlyToTheEnd(Reads):
    def meddle(self, disk, read):
        reading = []

        def blocks(ranges) -> Iterator[Block]:
            assert not reading, "another read is under way"
            reading.append(1)
            yield from read(ranges)
            reading.clear()

        return blocks


@found_by("test_nothing_asked_nothing_read")
class AlwaysReadsSomething(Reads):
    def meddle(self, disk, read):
        return lambda ranges: read(list(ranges) or [Range(0, 512)])


@found_by("test_a_capture_that_was_read_is_whole")
class WholeOnlyOnce(Meddled):
    def opened(self, capture, request) -> None:
        answers = iter([None])

        def check() -> None:
            if next(answers, 1):
                raise CaptureLost("it was looked at before")

        capture.check = check


# -- what stays --------------------------------------------------------------------------------------------------------


@found_by("test_an_error_leaves_nothing_and_goes_on")
class LeavesItsSnapshot(FakeHypervisor):
    @contextmanager
    def capture(self, machine, request):
        try:
            with super().capture(machine, request) as capture:
                yield capture
        except Exception:
            self.open_captures += 1
            raise


@found_by("test_an_error_leaves_nothing_and_goes_on")
class SwallowsErrors(FakeHypervisor):
    @contextmanager
    def capture(self, machine, request):
        try:
            with super().capture(machine, request) as capture:
                yield capture
        except Exception as error:  # noqa: BLE001 - that is what is wrong with it
            print(error)


@found_by("test_the_copy_is_the_machine")
class AlwaysLeavesItsSnapshot(Meddled):
    def left(self, capture, guest) -> None:
        self.open_captures += 1


@found_by("test_whoever_is_stopped_does_not_wait")
class FailsWhenStopped(FakeHypervisor):
    def capture(self, machine, request):
        if request.is_stopped():
            raise Unsupported("not now")
        return super().capture(machine, request)


@found_by("test_a_machine_that_is_captured_already")
class RefusesForGood(FakeHypervisor):
    def capture(self, machine, request):
        if self.open_captures:
            raise Unsupported("one is enough")
        return super().capture(machine, request)


@found_by("test_two_at_one_moment", patience=0.5)
class OneMomentAtATime(FakeHypervisor):
    @contextmanager
    def capture(self, machine, request):
        if self.open_restores:
            raise AssertionError("another capture has the lock")
        self.open_restores += 1
        try:
            with super().capture(machine, request) as capture:
                yield capture
        finally:
            self.open_restores -= 1


@found_by("test_each_has_its_own")
class MixesMachinesUp(FakeHypervisor):
    def commit(self, machine, owner, marker) -> None:
        for guest in self.guests.values():
            for disk in guest.disks.values():
                for grains in disk.dirty.values():
                    grains.clear()


# -- what it says of itself --------------------------------------------------------------------------------------------


class Anything(BaseModel):
    """Takes all keys."""


@found_by("test_unknown_options_are_refused")
class TakesAnyOptions(FakeHypervisor):
    options = Anything


@found_by("test_a_machine_that_is_not_there_cannot_be_captured")
class TracebackForTheUnknown(FakeHypervisor):
    def capture(self, machine, request):
        assert self.guests[machine]
        return super().capture(machine, request)


@found_by("test_says_what_it_is")
class Nameless(FakeHypervisor):
    name = ""


@found_by("test_close_twice")
class ClosesOnce(FakeHypervisor):
    def close(self) -> None:
        del self.guests


@found_by("test_lists_its_machines")
class ListsTwice(FakeHypervisor):
    def machines(self):
        return super().machines() * 2


@found_by("test_answers_for_machines_that_are_there")
class AnswersForAll(FakeHypervisor):
    def answers(self, machine) -> bool:
        return True


@found_by("test_check_finds_nothing_wrong")
class CriesWolf(FakeHypervisor):
    def check(self):
        return [Finding("fake", Level.ERROR, "it is not real")]


@found_by("test_a_sweep_of_nothing")
class SweepsAlways(FakeHypervisor):
    def sweep(self, owner):
        return ["looked for leftovers"]


# -- putting back ------------------------------------------------------------------------------------------------------


class Restores(FakeHypervisor):
    """Its requests are changed."""

    def restore(self, machine, disks, files, request):
        return super().restore(machine, disks, files, self.other(request))

    def other(self, request):
        return request


@found_by("test_nothing_is_replaced_unasked")
class ReplacesUnasked(Restores):
    def other(self, request):
        return replace(request, overwrite=True)


@found_by("test_a_new_machine_takes_nobodys_name")
class TakesAnyName(Restores):
    def other(self, request):
        return replace(request, overwrite=True)


@found_by("test_a_running_machine_is_not_replaced")
class ReplacesWhatRuns(Restores):
    def other(self, request):
        for guest in self.guests.values():
            guest.running = False
        return request


@found_by("test_as_a_new_machine")
class StartsUnasked(Restores):
    def other(self, request):
        return replace(request, start=True)


@found_by("test_starts_what_it_restored")
class NeverStarts(Restores):
    def other(self, request):
        return replace(request, start=False)


@found_by("test_as_a_new_machine")
class SameIdentity(FakeHypervisor):
    def machines(self):
        return [replace(machine, id="id-web") for machine in super().machines()]


class Kept(FakeHypervisor):
    """Something is done with the machine that was there, or with the new one."""

    @contextmanager
    def restore(self, machine, disks, files, request):
        name = request.name or machine.name
        before = self.guests.get(name)
        with super().restore(machine, disks, files, request) as restoration:
            finish = restoration.finish

            def finished() -> str:
                said = finish()
                self.put_back(before, self.guests[name])
                return said

            restoration.finish = finished
            yield restoration

    def put_back(self, before: FakeMachine | None, now: FakeMachine) -> None: ...


@found_by("test_as_a_new_machine")
class MixesDisksUp(Kept):
    def put_back(self, before, now) -> None:
        now.disks = dict(zip(now.disks, reversed(now.disks.values()), strict=True))


@found_by("test_zeros_are_zeros")
class SkipsZeros(Kept):
    def put_back(self, before, now) -> None:
        if before is not None:
            for key, disk in now.disks.items():
                if not any(disk.data):
                    disk.data = before.disks[key].data


@found_by("test_in_its_own_place")
class PutsBackHalf(Kept):
    def put_back(self, before, now) -> None:
        if before is not None:
            now.disks["vdb"] = before.disks["vdb"]


@found_by("test_in_its_own_place")
class LosesFiles(Kept):
    def put_back(self, before, now) -> None:
        now.files.clear()


@found_by("test_tracking_does_not_outlive_a_restore")
class TrackingOutlives(Kept):
    def put_back(self, before, now) -> None:
        if before is not None:
            for key, disk in now.disks.items():
                disk.dirty = before.disks[key].dirty


@found_by("test_left_unfinished")
class DefinesFirst(FakeHypervisor):
    @contextmanager
    def restore(self, machine, disks, files, request):
        with super().restore(machine, disks, files, request) as restoration:
            empty = {disk.key: FakeDisk(bytearray(disk.size)) for disk in disks}
            self.guests[request.name or machine.name] = FakeMachine(empty, running=False)
            yield restoration


@found_by("test_the_machine_comes_back")
class NeverForgetsAName(FakeHypervisor):
    @contextmanager
    def restore(self, machine, disks, files, request):
        if not request.name and not request.overwrite:
            raise Unsupported("it was here before")
        with super().restore(machine, disks, files, request) as restoration:
            yield restoration


@found_by("test_with_its_memory")
class LosesTheMemory(FakeHypervisor):
    @contextmanager
    def restore(self, machine, disks, files, request):
        with super().restore(machine, disks, files, request) as restoration:
            restoration.disks.pop("memory", None)
            yield restoration


# -- out of reach ------------------------------------------------------------------------------------------------------


@found_by("test_constructing_does_not_connect")
class AwayForGood(Away):
    def machines(self):
        raise AccessDenied("nobody listens")


@found_by("test_a_capture_fails_as_well")
class KnowsNobodyWhenAway(Away):
    def capture(self, machine, request):
        return FakeHypervisor.capture(self, machine, request)


@found_by("test_close")
class CannotLetGo(Away):
    def close(self) -> None:
        self.machines()


@found_by("test_check_tells_and_does_not_raise")
class FallsOverWhenAway(Away):
    def check(self):
        self.machines()


@found_by("test_check_tells_and_does_not_raise")
class FineWhenAway(Away):
    def check(self):
        return FakeHypervisor.check(self)


# -- processes and files -----------------------------------------------------------------------------------------------


@found_by("test_killed_while_it_captures")
class NeverSweeps(ImageHypervisor):
    def sweep(self, owner):
        return []


@found_by("test_killed_while_it_restores")
class NeverSweepsRestores(NeverSweeps): ...


@found_by("test_a_living_capture_of_another_process")
class SweepsWhatLives(ImageHypervisor):
    def sweep(self, owner):
        return [str(path) for path in self._context.state_dir.iterdir()]


@found_by("test_another_process_goes_on")
class KnowsOnlyItsOwnMarkers(ImageHypervisor):
    def __init__(self, options, context) -> None:
        super().__init__(options, context)
        self.own = []

    def capture(self, machine, request):
        return super().capture(machine, replace(request, since=request.since if request.since in self.own else None))

    def commit(self, machine, owner, marker) -> None:
        super().commit(machine, owner, marker)
        self.own.append(marker)


@found_by("test_killed_and_not_swept")
class StopsAtWhatTheDeadLeft(ImageHypervisor):
    def capture(self, machine, request):
        if any(self._context.state_dir.iterdir()):
            raise Unsupported("somebody died here")
        return super().capture(machine, request)


@found_by("test_disks_as_raw_files")
class ReplacesFiles(ImageHypervisor):
    def restore(self, machine, disks, files, request):
        return super().restore(machine, disks, files, replace(request, overwrite=True))


@found_by("test_files_that_were_not_finished")
class WritesInPlace(ImageHypervisor):
    def restore(self, machine, disks, files, request):
        for path in request.disks.values():
            path.write_bytes(b"")
        return super().restore(machine, disks, files, request)
