"""The target role over a directory of image files."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from vbackup.api import (
    AccessDenied,
    Block,
    Busy,
    CheckOrder,
    CheckReport,
    Corrupt,
    Damage,
    Extent,
    MachineDescription,
    NoSpace,
    NotFound,
    Options,
    Point,
    PruneOrder,
    PruneReport,
    Range,
    TargetContext,
    Unsupported,
    Writer,
)
from vbackup_image import journal
from vbackup_image.points import place
from vbackup_image.points.checking import Counted, Readings, structure
from vbackup_image.points.deleting import delete_directories
from vbackup_image.points.layout import (
    DAMAGED,
    MACHINE,
    POINT,
    PROTECTED,
    load,
    point_directory,
    read_document,
)
from vbackup_image.points.session import Form, Session
from vbackup_image.points.staging import staging, sweep, used
from vbackup_image.points.stored import StoredDisk, stored
from vbackup_image.points.verify import Verifier, checked_document, point_file
from vbackup_qemu.host import LocalHost, sync_directory, translated


class ImageTargetOptions(Options):
    """Options of ``type: image``."""

    format: Literal["qcow2", "raw"] = Field(default="qcow2", description="of the files that disks are kept in")
    backing: bool = Field(
        default=False,
        description="keep only what changed, in a qcow2 file with the machine's point before as its backing file",
    )

    @field_validator("backing")
    @classmethod
    def _raw_has_none(cls, backing: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        if backing and info.data.get("format") == "raw":
            raise ValueError("raw files cannot have backing files")
        return backing


class ImageTarget:
    """``type: image``: each point is a directory of image files; see `vbackup_image.points.layout`."""

    name: ClassVar[str] = "image"
    options: ClassVar[type[BaseModel]] = ImageTargetOptions
    encodes: ClassVar[bool] = False
    needs_files: ClassVar[bool] = True

    def __init__(self, options: ImageTargetOptions, context: TargetContext) -> None:
        self._form = Form(options.format, options.backing)
        self._context = context
        self._host = LocalHost()

    @property
    def id(self) -> str:
        """See `Target.id`."""
        return place.identity(self._place(), self._context.alias).id

    def init(self) -> None:
        """See `Target.init`."""
        self._context.transport.create()
        place.make(self._place(), self._context.alias)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """See `Target.writer`."""
        root = self._root()
        sweep(root)
        points = self.points()
        with self._sockets() as sockets, staging(root) as directory:
            session = Session(self._host, root, self._form, directory, sockets, points)
            try:
                yield session
            finally:
                session.close()

    def points(self) -> list[Point]:
        """See `Target.points`."""
        return place.points(self._root())[0]

    def damaged_points(self) -> list[Damage]:
        """See `Target.damaged_points`."""
        return place.points(self._root())[1]

    def description(self, point: Point) -> MachineDescription:
        """See `Target.description`."""
        directory = self._directory(point)
        data = checked_document(directory / MACHINE, load(directory).machine)
        try:
            return MachineDescription.model_validate_json(data)
        except ValidationError as error:
            raise Corrupt(f"{directory / MACHINE} is damaged") from error

    def extents(self, point: Point, disk: str, since: Point | None = None) -> Iterator[Extent]:  # noqa: ARG002
        """See `Target.extents`; what is unchanged is not known without comparing."""
        with self._opened(point, disk) as opened:
            yield from opened.sums.extents()

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `Target.read`."""
        with self._opened(point, disk) as opened:
            yield from opened.read(ranges)

    def file(self, point: Point, name: str) -> bytes:
        """See `Target.file`."""
        if name not in point.files:
            raise NotFound(f"restore point {point.machine}@{point.id[:8]} has no file {name}")
        self._directory(point)
        return point_file(self._root(), point, name)

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """See `Target.verify`. What is found is noted beside the point: the next run then builds nothing on it."""
        damage: list[Damage] = []
        with self._sockets() as sockets:
            verifier = Verifier(self._host, sockets, self._root(), progress)
            for point in points:
                try:
                    found = verifier.check(point)
                except NotFound:
                    continue  # deleted meanwhile
                damage += found
                with suppress(AccessDenied, NoSpace, NotFound):  # it is said in any case
                    self._note(point, found)
        return damage

    def check(self, order: CheckOrder, progress: Callable[[int], None]) -> CheckReport:
        """See `Target.check`; a check that was interrupted begins with what it has not read.

        Nothing is repaired: images are whole files, to be deleted and copied anew.
        """
        root = self._root()
        points, damage = place.points(root)
        read = Counted(progress)
        with self._sockets() as sockets:
            for point in points:
                with suppress(NotFound):  # deleted meanwhile
                    damage += structure(self._host, sockets, root, point)
        sound = [point for point in points if point.id not in {each.point for each in damage}]
        readings = Readings(self._context.state_dir)
        for point in readings.due(sound, order) if order.read_data else ():
            found = self.verify([point], read)
            damage += found
            if not found:
                readings.note(point)
        notes = ("images are not repaired: delete the point and copy it again",) if order.repair and damage else ()
        return CheckReport(
            damage=tuple(damage), notes=notes, objects=len(points) + 1, stored=used(root), read=read.total
        )

    def delete(self, points: Sequence[Point]) -> None:
        """See `Target.delete`; the space is given back at once. Raises: `Busy`."""
        root = self._root()
        delete_directories(self._host, root, [point_directory(root, point) for point in points])

    def forget(self, ids: Sequence[str]) -> None:
        """See `Target.forget`. Raises: `Busy`."""
        root = self._root()
        delete_directories(self._host, root, [path for name, path in place.unreadable(root).items() if name in ids])

    def protected(self) -> Mapping[str, str]:
        """See `Target.protected`; a point that cannot be read goes by what `damaged_points` calls it."""
        root = self._root()
        directories = {point.id: point_directory(root, point) for point in self.points()}
        reasons = {}
        for name, directory in {**place.unreadable(root), **directories}.items():
            with suppress(NotFound):
                reasons[name] = read_document(directory / PROTECTED).decode(errors="replace").rstrip()
        return reasons

    def protect(self, point: Point, reason: str) -> None:
        """See `Target.protect`."""
        self._host.write_file(self._directory(point) / PROTECTED, f"{reason}\n".encode())

    def unprotect(self, point: Point) -> None:
        """See `Target.unprotect`."""
        directory = self._directory(point)
        with translated(f"writing {directory}"):
            (directory / PROTECTED).unlink(missing_ok=True)
            sync_directory(directory)

    def prune(self, order: PruneOrder) -> PruneReport:
        """See `Target.prune`: what dead runs left is removed. Whether one lives its lock tells, at once."""
        root = self._root()
        freed = sweep(root, dry_run=order.dry_run)
        return PruneReport(freed=freed, stored=max(0, used(root) - (freed if order.dry_run else 0)))

    def close(self) -> None:
        """See `Target.close`; nothing is held between calls."""

    def _place(self) -> Path:
        root = self._context.transport.root
        if root is None:
            raise Unsupported(f"target {self._context.alias} needs a transport that keeps files")
        return root

    def _root(self) -> Path:
        root = self._place()
        place.identity(root, self._context.alias)
        return root

    def _place_of(self, point: Point) -> Path:
        return point_directory(self._root(), point)

    def _directory(self, point: Point) -> Path:
        directory = self._place_of(point)
        if not (directory / POINT).exists():
            raise NotFound(f"restore point {point.machine}@{point.id[:8]} is not there any more")
        return directory

    def _note(self, point: Point, damage: Sequence[Damage]) -> None:
        directory = self._directory(point)
        if damage:
            lines = [f"{found.disk or POINT} {found.offset}+{found.length}: {found.reason}\n" for found in damage]
            self._host.write_file(directory / DAMAGED, "".join(lines).encode())
        elif (directory / DAMAGED).exists():
            with translated(f"writing {directory}"):
                (directory / DAMAGED).unlink(missing_ok=True)

    @contextmanager
    def _opened(self, point: Point, disk: str) -> Iterator[StoredDisk]:
        self._directory(point)
        with self._sockets() as sockets, stored(self._host, sockets, self._root(), point, disk) as opened:
            yield opened

    @contextmanager
    def _sockets(self) -> Iterator[Path]:
        """Give a private directory; what a dead process left of its own goes."""
        state = self._context.state_dir
        with translated(f"making {state}"):
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal.sweep(state)
        with ExitStack() as stack:
            yield _new_journal(stack, state).private_dir()


def _new_journal(stack: ExitStack, state: Path) -> journal.Journal:
    while True:
        name = secrets.token_hex(8)
        with suppress(Busy):  # somebody who sweeps just now looks whether this new one is dead
            return stack.enter_context(journal.journal(state, name, name))
