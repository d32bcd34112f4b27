"""What the processes do, over and over, until they are killed."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.content import VERSION, Content
from tests.chaos.journal import Journal, Journals
from tests.chaos.setting import Chances, Place
from tests.support import restored
from vbackup.api import CheckOrder, Corrupt, Interrupted, NotFound, Point, PruneOrder, Quiesce, Unavailable, Writer
from vbackup.engine.backup import BackUp
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor


class BrokenPromiseError(AssertionError):
    """A promise was broken."""


@dataclass
class Worker:
    """One process's life."""

    place: Place
    name: str
    seed: int
    rng: random.Random
    chances: Chances
    machines: tuple[str, ...] = ()
    cache: str | None = None

    def __post_init__(self) -> None:
        self.content = Content(self.seed)
        self.journal = Journal(self.place.journals, self.name)
        self.journals = Journals(self.place.journals)

    def live(self, role: str) -> None:
        """Play a role for ever."""
        turn: Callable[[Repository], None] = getattr(self, role)
        while True:
            if self.rng.random() < 0.1:
                shutil.rmtree(self.place.root / "cache" / (self.cache or self.name), ignore_errors=True)
            repository = self.place.repository(self.name, self.chances, self.rng, cache=self.cache)
            try:
                for _ in range(self.rng.randint(1, 6)):
                    self._attempt(turn, repository)
            finally:
                repository.close()

    def _attempt(self, turn: Callable[[Repository], None], repository: Repository) -> None:
        try:
            turn(repository)
        except Unavailable as error:
            print(f"{self.name}: {error}", flush=True)
        except Interrupted as error:
            if "took this run for dead" not in str(error):
                raise
            print(f"{self.name}: {error}", flush=True)

    # -- writers --------------------------------------------------------------------------------------------------

    def write(self, repository: Repository) -> None:
        """One session, with points of some of our machines, several of one at times."""
        latest = self._latest(repository)
        with repository.writer() as writer:
            for machine in self.rng.choices(self.machines, k=self.rng.choice([1, 2, 3, 8])):
                time.sleep(self.rng.choice([0, 0, 0.2]))  # a session goes on while prunes begin and end
                latest[machine] = point = self._capture(repository.id, writer, machine, latest.get(machine))
                self.journal.note("committed", point=point.id, machine=machine, version=version_of(point))

    def _latest(self, repository: Repository) -> dict[str, Point]:
        ordered = sorted(repository.points(), key=lambda point: point.sequence)
        return {point.machine: point for point in ordered if point.machine in self.machines}

    def _capture(self, owner: str, writer: Writer, machine: str, previous: Point | None) -> Point:
        version = self.journals.version(machine)
        self.journal.note("capturing", machine=machine, version=version)
        since = {previous.marker["name"]: version_of(previous)} if previous and previous.marker else {}
        hypervisor = FakeHypervisor()
        hypervisor.guests[machine] = self.content.guest(machine, version, since)
        hypervisor.captures = version - 1  # the marker is named after the version
        stop = threading.Event()
        work = BackUp(hypervisor, "lab", "nightly", owner, writer, Quiesce.TRY, stop, lambda progress: None)
        (ref,) = hypervisor.machines()
        return work.run(ref, previous).point

    # -- the others -----------------------------------------------------------------------------------------------

    def delete(self, repository: Repository) -> None:
        """Retention, with no mercy: any points may go, the newest and all of a machine's included."""
        time.sleep(self.rng.uniform(0, 1))
        points = repository.points()
        surplus = len(points) - self.rng.choice([2, 4, 8, 12, 30])
        chosen = self.rng.sample(points, max(surplus, min(len(points), self.rng.randint(0, 2))))
        if chosen:
            self.journal.note("deleting", points=[point.id for point in chosen])
            repository.delete(chosen)

    def prune(self, repository: Repository) -> None:
        """Prune in all manners, when some garbage is there that writers may find again."""
        time.sleep(self.rng.uniform(0, 1))
        order = PruneOrder(
            dry_run=self.rng.random() < 0.1,
            rewrite=self.rng.choice([None, None, None, 0, 200_000]),
            end_silent=self.rng.random() < 0.5,
        )
        report = repository.prune(order)
        self.journal.note("pruned", freed=report.freed, rewritten=report.rewritten, waiting=report.waiting)
        for note in report.notes:
            if "missing from the store" not in note:  # two prunes at once may list what is gone; the next one heals it
                raise BrokenPromiseError(f"prune says: {note}")

    def check(self, repository: Repository) -> None:
        """Everything that is listed is whole, and so is the store."""
        if self.rng.random() < 0.5:
            damage = [*repository.damaged_points(), *repository.verify(repository.points(), lambda done: None)]
        else:
            order = CheckOrder(read_data=self.rng.random() < 0.5, repair=self.rng.random() < 0.3)
            report = repository.check(order, lambda done: None)
            damage = [*report.damage]
            # Two prunes at once may list packs again that are gone and that nothing needs; the next one heals it.
            if any(not each.endswith("is missing") for each in report.wrong):
                raise BrokenPromiseError(f"check says: {report}")
        for each in damage:
            if not each.point or not self._is_gone(repository, each.point):
                raise BrokenPromiseError(f"verify says: {each}")
            print(f"{self.name}: {each}", flush=True)

    def restore(self, repository: Repository) -> None:
        """A point gives back its moment, unless it was deleted meanwhile."""
        points = repository.points()
        for point in self.rng.sample(points, min(len(points), 3)):
            try:
                compare(self.content, repository, point)
            except (NotFound, Corrupt) as error:
                if not self._is_gone(repository, point.id):
                    raise
                print(f"{self.name}: {error}", flush=True)

    def _is_gone(self, repository: Repository, point: str) -> bool:
        return point in self.journals.doomed() or all(each.id != point for each in repository.points())


def version_of(point: Point) -> int:
    """Return the version that a point's marker is named after."""
    return int(str(point.marker["name"]).rpartition("-")[2]) if point.marker else -1


def compare(content: Content, repository: Repository, point: Point) -> None:
    """Restore a point and compare every byte with what the machine held; raise `BrokenPromiseError` at the first."""
    version = version_of(point)
    expected = content.images(point.machine, version)
    disks = restored(repository, point)
    if repository.file(point, VERSION) != str(version).encode():
        raise BrokenPromiseError(f"{point.machine}@{point.id}: the file {VERSION} is wrong")
    if disks.keys() != expected.keys():
        raise BrokenPromiseError(f"{point.machine}@{point.id}: disks {sorted(disks)} instead of {sorted(expected)}")
    for key, data in disks.items():
        if data != expected[key]:
            at = next((i for i, (a, b) in enumerate(zip(data, expected[key], strict=False)) if a != b), -1)
            raise BrokenPromiseError(
                f"{point.machine}@{point.id} version {version}: disk {key} differs from byte {at} on"
            )
