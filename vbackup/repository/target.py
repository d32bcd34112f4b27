"""The target role over a repository: opening it with a key, and what others may ask of it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    AccessDenied,
    Block,
    CheckOrder,
    CheckReport,
    Codec,
    ConfigError,
    Corrupt,
    Damage,
    DiskProgress,
    Extent,
    Locked,
    MachineDescription,
    NotFound,
    PluginError,
    Point,
    PruneOrder,
    PruneReport,
    Range,
    TakenOver,
    Target,
    TargetContext,
    Unsupported,
    VBackupError,
    Writer,
)
from vbackup.repository import keys as slots
from vbackup.repository.anchor import Anchor, Deleted
from vbackup.repository.cache import Cache
from vbackup.repository.catalogue import Catalogue
from vbackup.repository.check import Check
from vbackup.repository.decoded import Decoded
from vbackup.repository.documents import get_document, put_document
from vbackup.repository.exchange import Exchange
from vbackup.repository.founding import RepositoryObject, RepositoryOptions, describe, found
from vbackup.repository.keyring import KeySlots, need_read
from vbackup.repository.layout import (
    DELETIONS,
    PROTECTED,
    REPOSITORY,
)
from vbackup.repository.locks import Locks
from vbackup.repository.points import point_key
from vbackup.repository.prune import Prune
from vbackup.repository.reader import DiskReader, read_file
from vbackup.repository.records import Deletion, Protection
from vbackup.repository.sealing import Keys, Ring
from vbackup.repository.session import Session
from vbackup.repository.store import ChunkStore
from vbackup.repository.survey import Place
from vbackup.repository.verify import Verifier

log = logging.getLogger(__name__)


class _Open:
    """An open repository: its object checked, its key unlocked."""

    def __init__(self, context: TargetContext, description: RepositoryObject, lock_days: int | None) -> None:
        repository = bytes.fromhex(description.id)
        self.slot, ring = slots.unlock(context.transport, context.secret(), repository)
        keys = Keys(ring, repository)
        if keys.mac_differs(description.sign(keys), description.mac):
            raise Corrupt(f"object {REPOSITORY} of {context.alias} is not what was stored")
        self.chunk_size = description.chunk_size
        self.keys = keys
        anchor = Anchor(context.state_dir / "seen", keys, self._deleted)
        anchor.check()
        self.anchor = anchor
        self.cache = _open_cache(context, description.id)
        self.locks = Locks(context.transport, self.cache, lock_days)
        conditional = context.transport.can_put_if_absent and description.conditional_put
        self.store = ChunkStore(context.transport, keys, context.codec, self.cache, conditional=conditional)
        self.catalogue = Catalogue(self.store, anchor)
        self.decoded = Decoded()

    def _deleted(self) -> Deleted:
        deleted = Deleted(set(), [])
        for info in self.store.transport.list(DELETIONS):
            try:
                record = get_document(self.store.transport, self.keys, info.key, Deletion)
                deleted.points.update(record.points)
            except Corrupt:
                deleted.damaged.append(info.key)
            except NotFound:
                continue  # a repair has removed it
        return deleted

    def session(self, codecs: Sequence[Codec]) -> Session:
        """Begin to write."""
        return Session(self.store, self.catalogue, codecs, self.chunk_size, self.locks)


class Repository:
    """``type: repository``: chunks, packs, index and points on any transport."""

    name: ClassVar[str] = "repository"
    options: ClassVar[type[BaseModel]] = RepositoryOptions
    encodes: ClassVar[bool] = True
    needs_files: ClassVar[bool] = False

    def __init__(self, options: RepositoryOptions, context: TargetContext) -> None:
        self._options = options
        self._context = context
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._described: RepositoryObject | None = None
        self._opened: _Open | None = None

    @property
    def id(self) -> str:
        """The repository's id."""
        return self._describe().id

    def init(self) -> None:
        """Make a new repository. Raises `AlreadyExists`."""
        self._found(Ring.new())

    def init_with_keys_of(self, other: Target) -> None:
        """Make a new repository of the family of another one; see `Exchanger`."""
        if not isinstance(other, Repository):
            raise Unsupported(f"target {self._context.alias} can share keys with another repository only")
        opened = other._open()  # noqa: SLF001 - of this class
        need_read(opened.keys, "share its keys")
        if opened.chunk_size != self._options.chunk_size:
            raise ConfigError(
                f"target {self._context.alias} has another chunk_size ({self._options.chunk_size}) than the one whose "
                f"keys it is to share ({opened.chunk_size})",
                hint="set the same chunk_size",
            )
        self._found(opened.keys.ring)

    def _found(self, ring: Ring) -> None:
        self._check_locks()
        found(self._context, self._options, ring)

    def _check_locks(self) -> None:
        if self._options.lock_days is not None and not self._context.transport.can_lock:
            raise ConfigError(
                f"target {self._context.alias}: lock_days needs a store that locks objects, and its transport has none",
                hint="leave lock_days out, or use s3 with object lock",
            )

    def _describe(self) -> RepositoryObject:
        with self._lock:
            if self._described is None:
                self._described = describe(self._context.transport, self._context.alias)
            return self._described

    def _open(self) -> _Open:
        with self._lock:
            if self._opened is None:
                self._check_locks()
                self._opened = _Open(self._context, self._describe(), self._options.lock_days)
            return self._opened

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Take points for the time of the context."""
        opened = self._open()
        session = opened.session(self._context.codecs)
        try:
            yield session
        except BaseException:
            session.close(keep=False)
            raise
        try:
            session.close(keep=True)
        except VBackupError as error:  # all points are durable; what else was stored is found again by its packs
            log.warning("target %s: what the run stored is not indexed yet: %s", self._context.alias, error)

    def points(self) -> list[Point]:
        """All points that can be read, oldest first."""
        return self._points()[0]

    def damaged_points(self) -> list[Damage]:
        """Points that are there but cannot be read."""
        return self._points()[1]

    def _points(self) -> tuple[list[Point], list[Damage]]:
        listing = self._open().catalogue.load()
        points = [head.point for head in listing.heads.values()]
        return sorted(points, key=lambda point: (point.time, point.id)), listing.damage

    def description(self, point: Point) -> MachineDescription:
        """Return the machine as it was."""
        return self._open().catalogue.description(point)

    def extents(self, point: Point, disk: str, since: Point | None = None) -> Iterator[Extent]:
        """What a disk of a point holds."""
        has_base = since is not None and any(each.key == disk for each in since.disks)
        base = self._reader(since, disk).map if since is not None and has_base else None
        return self._reader(point, disk).extents(base)

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges of a disk of a point."""
        return self._reader(point, disk).read(ranges)

    def _reader(self, point: Point, key: str) -> DiskReader:
        opened = self._open()
        for disk in point.disks:
            if disk.key == key:
                return DiskReader(opened.store, opened.chunk_size, point, disk, opened.decoded)
        raise NotFound(f"restore point {point.machine}@{point.id[:8]} has no disk {key}")

    def exchanges_with(self, source: Target) -> bool:
        """Whether chunks mean the same there: of one family, and neither has a key pair that the other has not."""
        if not isinstance(source, Repository):
            return False
        here, there = (
            (each.keys.family, each.keys.ring.generation, each.keys.ring.public, each.chunk_size)
            for each in (self._open(), source._open())  # noqa: SLF001 - of this class
        )
        return here == there

    def take_over(
        self, writer: Writer, source: Target, point: Point, base: Point | None, report: Callable[[DiskProgress], None]
    ) -> TakenOver:
        """Take over a point of another repository of the family; see `Exchanger`."""
        if not isinstance(writer, Session) or not isinstance(source, Repository):
            raise PluginError(f"target {self._context.alias} was asked to take over a point that it cannot")
        opened = source._open()  # noqa: SLF001 - of this class
        return Exchange(opened.store, writer, opened.chunk_size, point, report).take(base)

    def file(self, point: Point, name: str) -> bytes:
        """Read a small file of a point."""
        if name not in point.files:
            raise NotFound(f"restore point {point.machine}@{point.id[:8]} has no file {name}")
        return read_file(self._open().store, point, name)

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """Read and check everything that ``points`` need."""
        opened = self._open()
        need_read(opened.keys, "verify what was written")
        damage = [Damage("", "", "", 0, 0, note) for note in opened.store.look().damaged]
        whole: list[Point] = []
        for point in points:
            try:
                whole.append(opened.catalogue.reread(point.id).point)
            except NotFound:
                continue  # deleted meanwhile
            except Corrupt as error:
                damage.append(Damage(point.id, point.machine, "", 0, 0, error.message))
        damage += Verifier(opened.store, opened.chunk_size, progress).check(whole)
        there = opened.catalogue.ids() if damage else set()
        return [each for each in damage if not each.point or each.point in there]  # others were deleted meanwhile

    def check(self, order: CheckOrder, progress: Callable[[int], None]) -> CheckReport:
        """Check what is stored, from the store alone, and repair it; see `vbackup.repository.survey` and `repair`."""
        opened, context = self._open(), self._context
        doubtful = {name for name, pack in opened.cache.packs().items() if pack.suspect}
        readings = context.state_dir / f"readings-{self.id}.sqlite"
        place = Place(
            context.transport, opened.keys, context.codec, context.codecs, opened.chunk_size, opened.anchor,
            opened.locks, readings, doubtful,
        )  # fmt: skip
        check = Check(place, order, progress, self._stop)
        report = check.run()
        opened.cache.suspect(check.broken)
        if self._is_described_as_before():
            return report
        return replace(report, wrong=(f"object {REPOSITORY} is not what it was when it was opened", *report.wrong))

    def _is_described_as_before(self) -> bool:
        try:
            return describe(self._context.transport, self._context.alias) == self._describe()
        except (Corrupt, NotFound, Unsupported):
            return False

    def delete(self, points: Sequence[Point]) -> None:
        """Delete points' objects, on record; their chunks become garbage."""
        self.forget([point.id for point in points])

    def forget(self, ids: Sequence[str]) -> None:
        """Delete points' objects by their ids, on record, whatever is or was in them.

        The record is there first, so that nothing is ever gone without one. Points that the store does not delete then
        get off it: were they hidden later, nobody would miss them.
        """
        if not ids:
            return
        transport, record = self._context.transport, self._record(ids)
        refused: dict[str, VBackupError] = {}
        for point in ids:
            try:
                transport.delete(point_key(point))
            except (AccessDenied, Locked) as error:
                refused[point] = error
                continue
            transport.delete(f"{PROTECTED}/{point}")
        if refused:
            if gone := [point for point in ids if point not in refused]:
                self._record(gone)
            with contextlib.suppress(AccessDenied, Locked):
                transport.delete(record)
            raise next(iter(refused.values()))

    def _record(self, deleted: Sequence[str]) -> str:
        key = f"{DELETIONS}/{os.urandom(16).hex()}"
        put_document(self._context.transport, self._open().keys, key, Deletion(points=tuple(deleted)))
        return key

    def protected(self) -> Mapping[str, str]:
        """Protected points' ids, and why."""
        keys, transport = self._open().keys, self._context.transport
        found: dict[str, str] = {}
        for info in transport.list(PROTECTED):
            point = info.key.rpartition("/")[2]
            try:
                found[point] = get_document(transport, keys, info.key, Protection).reason
            except NotFound:
                continue
            except Corrupt:  # a point must not go because the reason why it stays is damaged
                found[point] = "the reason cannot be read"
        return found

    def protect(self, point: Point, reason: str) -> None:
        """Keep a point whatever the rules say."""
        document = Protection(reason=reason)
        put_document(self._context.transport, self._open().keys, f"{PROTECTED}/{point.id}", document)

    def unprotect(self, point: Point) -> None:
        """Undo `protect`."""
        self._context.transport.delete(f"{PROTECTED}/{point.id}")

    def prune(self, order: PruneOrder) -> PruneReport:
        """Give back the space of what no point needs; see PRUNE.md."""
        opened = self._open()
        with contextlib.closing(Cache(None)) as cache:  # filled from the store alone: a rotten one must delete nothing
            return self._prune(opened, opened.store.beside(cache), order)

    def _prune(self, opened: _Open, store: ChunkStore, order: PruneOrder) -> PruneReport:
        doubtful = [name for name, pack in opened.cache.packs().items() if pack.suspect]
        locks = opened.cache.locks()
        if order.dry_run:
            store.look()
            store.cache.suspect(doubtful)
            return Prune(store, opened.catalogue, None, opened.chunk_size, order, self._stop, locks).run()
        session = Session(store, opened.catalogue, self._context.codecs, opened.chunk_size, opened.locks, is_prune=True)
        try:
            store.cache.suspect(doubtful)
            report = Prune(store, opened.catalogue, session, opened.chunk_size, order, self._stop, locks).run()
        except BaseException:
            session.close(keep=False)
            raise
        session.close(keep=True)
        return report

    def key_ring(self) -> KeySlots:
        """Its keys; see `KeyHolder`."""
        opened = self._open()
        return KeySlots(self._context.transport, opened.keys, opened.slot, self._context.secret)

    def close(self) -> None:
        """Stop what runs, and close the cache."""
        self._stop.set()
        with self._lock:
            if self._opened is not None:
                self._opened.store.close()
                self._opened.cache.close()
                self._opened = None


def _open_cache(context: TargetContext, repository: str) -> Cache:
    try:
        context.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Cache(None)  # a read-only home: everything works, from a temporary cache that is filled each time
    # Copies of one repository have its id, and their own objects: they must not share a cache.
    return Cache(context.cache_dir / f"{repository}-{sha256(context.alias.encode()).hexdigest()[:8]}.sqlite")
