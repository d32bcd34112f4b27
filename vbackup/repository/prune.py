"""Prune: the space of what no point needs comes back, while others write, read and prune. PRUNE.md has the rules.

First packs that nothing needs go; that takes no space. Then packs with much garbage, and small ones, are
written anew in rounds of `ROUND` bytes, each round's old packs being deleted before the next begins: that is all the
free space that a prune needs, beside its index.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from vbackup.api import Corrupt, Interrupted, Locked, NoSpace, NotFound, PruneOrder, PruneReport, clock
from vbackup.repository.bounded import bounded
from vbackup.repository.catalogue import Catalogue
from vbackup.repository.condemned import Condemnation, packs_of
from vbackup.repository.index import read_index, write_index
from vbackup.repository.layout import INDEX, INDEX_ENTRIES, PACK_SIZE, PACKS, pack_key, pack_name
from vbackup.repository.look import MAX_INDEX
from vbackup.repository.needs import Needs, Place
from vbackup.repository.packcheck import PackCheck
from vbackup.repository.packs import Pack
from vbackup.repository.presence import (
    BEAT_SECONDS,
    Beat,
    blocking,
    end_session,
    latest_beats,
    list_sessions,
    list_verdicts,
    remove_beats,
)
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.session import Session
from vbackup.repository.store import ChunkStore

log = logging.getLogger(__name__)

ROUND = 1 << 30
"""Bytes that are written at most before what they replace is deleted."""
SILENT_SECONDS = 3600.0
"""A session whose last sign of life is older than this, by the clocks, is watched, and ended if it stays silent."""
_WATCH_BEATS = 3
_WASTE = 0.25
"""Packs of which more than this part is garbage are written anew."""
_SMALL = PACK_SIZE // 8
_SMALL_INDEX = 256 << 10
_SMALL_PACKS = 32
"""Packs below `_SMALL` bytes, and index objects below `_SMALL_INDEX`, are joined when there are so many."""


@dataclass
class Prune:
    """One prune of one repository."""

    store: ChunkStore
    catalogue: Catalogue
    session: Session | None
    """None: nothing is written, the order is a dry run."""
    chunk_size: int
    order: PruneOrder
    stop: threading.Event
    locks: Mapping[str, float]
    """Until when objects are locked, as far as this host has done it; seconds since 1970."""
    notes: list[str] = field(default_factory=list)
    freed: int = 0
    rewritten: int = 0
    waiting: int = 0
    locked: int = 0
    """Of what waits, what the store keeps from being deleted."""

    def run(self) -> PruneReport:
        """Do what can be done now. Raises: `Corrupt` when it cannot be told what is needed: nothing is done then."""
        with self._needs() as needs:
            self._end_silent()
            self._clear_leftovers()
            self._clear_index(needs)
            self._carry_out(needs)
            while self._another_round(needs):
                if self.stop.is_set():
                    raise Interrupted("prune was stopped: what it did so far is complete")
        sizes = self._sizes()
        return PruneReport(self.freed, self.rewritten, self.waiting, sum(sizes.values()), tuple(self.notes))

    def _needs(self) -> Needs:
        return Needs(self.store.cache, self.chunk_size, lambda ids: self.store.read(ChunkKind.NODE, ids))

    def _list(self, needs: Needs) -> None:
        listing = self.catalogue.load()
        if listing.damage:
            first = listing.damage[0]
            raise Corrupt(
                f"{len(listing.damage)} restore points cannot be read, so what they need cannot be told "
                f"({first.point[:8]}: {first.reason})",
                hint="nothing was deleted; mend that, bring them back from a copy, or give them up: `vbackup delete`",
            )
        try:
            needs.add(head.point for point, head in listing.heads.items() if point not in self.order.without)
        except Corrupt:
            if listing.heads.keys() <= self.catalogue.sessions().keys():
                raise
            self._list(needs)  # some point was deleted since it was listed, and another prune took what it needed

    def _sizes(self) -> dict[bytes, int]:
        listed = ((pack_name(info.key), info.size) for info in self.store.transport.list(PACKS))
        return {name: size for name, size in listed if name is not None}

    # -- phase one ------------------------------------------------------------------------------------------------

    def _another_round(self, needs: Needs) -> bool:
        """Choose packs, save what is needed of them, condemn them, and delete them if nobody is in the way."""
        self._list(needs)
        condemned = packs_of(self.store.condemnations.load())
        sizes = self._sizes()
        live = latest_beats(self.store.transport, self.store.keys).keys()
        self._look()
        lost = needs.lost() and self._believe_the_store(needs)
        known = self.store.cache.packs()
        kept = condemned | {name for name in known if known[name].writer.hex() in live}
        if lost:  # what cannot be read may hold it
            kept |= sizes.keys() - known.keys()
        free = {name: size for name, size in sizes.items() if name not in kept}
        cut = {name for name in free.keys() & known.keys() if known[name].size != free[name]}
        needs.set_alive(free.keys() - cut)
        if cut and needs.only_in(cut):  # what is left of them may be all that there is
            free = {name: size for name, size in free.items() if name not in cut}
        avoided = {name for name in known if known[name].suspect} | self._locked(free)
        use, held = needs.use(), needs.held()
        if self.order.dry_run:
            self._foresee(free, use, held, avoided)
            return False
        chosen, rewrite = {name for name in free if not use.get(name)}, 0
        if not chosen:
            chosen, rewrite = self._choose(free, use, held, avoided, ROUND)
        if not chosen:
            return False
        try:
            if rewrite and (self.waiting > self.locked or not self._save(needs, chosen)):
                return False
        except Corrupt as error:
            self._note(error.message)
            return True  # the pack is suspect now: the next round goes around it
        self.store.condemnations.put(chosen)
        return self._carry_out(needs)

    def _locked(self, packs: Collection[bytes]) -> set[bytes]:
        """Return the packs that the store would not delete yet, as far as this host has locked them.

        To write them anew would give back no space. Those that nothing needs are condemned all the same: writers
        extend the locks of all packs that are not.
        """
        now = clock.now().timestamp()
        return {name for name in packs if self.locks.get(pack_key(name), 0) > now}

    def _believe_the_store(self, needs: Needs) -> int:
        """Some chunk is nowhere: that must be the store's fault, and not the cache's, before anything is condemned."""
        self.store.cache.clear()
        while True:
            needs.clear()  # of points that were deleted meanwhile another prune may have taken what they needed
            self._list(needs)
            self._look()
            lost = needs.lost()
            if not lost or needs.points <= self.catalogue.sessions().keys():
                break
        if lost:
            self.notes.append(f"{lost} chunks that restore points need are in no pack: run `vbackup check`")
        return lost

    def _foresee(
        self, free: Mapping[bytes, int], use: Mapping[bytes, int], held: Mapping[bytes, int], avoided: Collection[bytes]
    ) -> None:
        """Say what all rounds together would come to."""
        useless = {name for name in free if not use.get(name)}
        rest = {name: size for name, size in free.items() if name not in useless}
        chosen, self.rewritten = self._choose(rest, use, held, avoided, sum(rest.values()))
        self.freed = sum(free[name] for name in useless | chosen)

    def _choose(
        self, free: Mapping[bytes, int], use: Mapping[bytes, int], held: Mapping[bytes, int],
        avoided: Collection[bytes], most: int,
    ) -> tuple[set[bytes], int]:  # fmt: skip
        """Return packs to be written anew, and the bytes that takes, ``most`` at the most."""
        small = {name for name, size in free.items() if size < _SMALL}
        worth = {name for name in free if use[name] < (1 - _WASTE) * held[name]}
        if len(small) >= _SMALL_PACKS:
            worth |= small
        left = most if self.order.rewrite is None else min(most, self.order.rewrite - self.rewritten)
        chosen: set[bytes] = set()
        total = 0
        for name in sorted(worth - set(avoided), key=lambda name: use[name] / free[name]):
            if total + use[name] > left:
                break
            chosen.add(name)
            total += use[name]
        return chosen, total

    def _save(self, needs: Needs, packs: Collection[bytes]) -> bool:
        """Copy what is needed of packs, and is nowhere else; False when there is no room for it."""
        before = self.rewritten
        try:
            self._copy(needs.only_in(packs))
        except NoSpace as error:
            self.rewritten = before
            self.notes.append(f"there is no room to write packs anew: {error.message}")
            return False
        except NotFound:  # another prune deletes them just now
            return False
        return True

    def _copy(self, places: Sequence[Place]) -> None:
        """Copy blobs as they are into new packs. Raises `Corrupt` for one that is not what was stored.

        Packs are read whole: one request each, and their names tell whether all of it is as it was written. Where a
        name does not, each blob must show it: what is read wrong once must not be wrong for ever.
        """
        if self.session is None:
            raise ValueError("a dry run copies nothing")
        packs = PackCheck(self.store, lambda _: None)
        for name, group in itertools.groupby(places, lambda place: place.pack):
            data = self.store.transport.get(pack_key(name))
            whole = blake3(data).digest() == name
            for place in group:
                blob = data[place.offset : place.offset + place.length]
                if not whole and not packs.verdict(place, blob):
                    self.store.cache.suspect([name])
                    raise Corrupt(f"pack {pack_key(name)} is not what was stored", hint="run `vbackup check --repair`")
                self.session.copy(place.origin, place.id, place.kind, blob, place.size)
                self.rewritten += place.length
        self.session.flush()

    # -- phase two ------------------------------------------------------------------------------------------------

    def _carry_out(self, needs: Needs) -> bool:
        """Delete all packs that are condemned, by whomever, as far as nobody may build on them; say if all are gone."""
        self.waiting = self.locked = 0
        if self.order.dry_run:
            return True
        for name, condemnation in self.store.condemnations.load().items():
            if self._is_blocked(name):
                self.waiting += self._size_of(condemnation)
            else:
                self._delete(needs, name, condemnation)
        return not self.waiting

    def _delete(self, needs: Needs, name: str, condemnation: Condemnation) -> None:
        condemned = packs_of(self.store.condemnations.load())
        going = packs_of({name: condemnation})
        self._list(needs)  # before the packs: what a point needs was put before it
        sizes = self._sizes()
        self._look()
        known = self.store.cache.packs()
        sound = {
            pack for pack in sizes if pack in known and known[pack].size == sizes[pack] and not known[pack].suspect
        }
        needs.set_alive(sound - condemned)
        try:
            self._copy(needs.only_in(going & sizes.keys()))
        except NotFound:
            return  # another prune carries this out just now
        except Corrupt as error:  # it stays until what it holds was stored again, or is not needed any more
            self._note(error.message)
            self.waiting += self._size_of(condemnation)
            return
        self._rewrite_indexes(going)
        locked = 0
        for pack in sorted(going & sizes.keys()):
            try:
                self.store.transport.delete(pack_key(pack))
                self.freed += sizes[pack]
            except Locked:
                locked += sizes[pack]
        self.waiting += locked
        self.locked += locked
        if not locked:
            self.store.condemnations.remove(name)

    def _look(self) -> None:
        for note in self.store.look().notes:
            self._note(note)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _size_of(self, condemnation: Condemnation) -> int:
        sizes = self._sizes()
        return sum(sizes.get(pack, 0) for pack in packs_of({"": condemnation}))

    def _rewrite_indexes(self, going: Collection[bytes]) -> None:
        """List what stays of the index objects that name ``going`` in new ones, then delete the old ones.

        Small ones are joined on the way.
        """
        transport, keys = self.store.transport, self.store.keys
        sizes = {info.key: info.size for info in transport.list(INDEX)}
        old = self.store.cache.indexes_of(going) & sizes.keys()
        small = [key for key, size in sizes.items() if size < _SMALL_INDEX]
        if len(small) >= _SMALL_PACKS:
            old |= set(small)
        staying: list[Pack] = []
        gone: list[str] = []
        for key in sorted(old):
            try:
                packs = list(read_index(keys, key, bounded(transport, key, MAX_INDEX)))
            except NotFound:
                continue
            except Corrupt as error:
                self.notes.append(error.message)
                continue
            gone.append(key)
            staying += [pack for pack in packs if pack.name not in going]
            if sum(len(pack.entries) for pack in staying) >= INDEX_ENTRIES:
                self._put_index(staying)
        self._put_index(staying)
        for key in gone:
            transport.delete(key)

    def _clear_index(self, needs: Needs) -> None:
        """Take out of the index what is gone and what nothing needs.

        Two prunes at once, each of which keeps what the other takes out, and sessions that stood still until after
        their end, list packs again that were deleted.
        """
        if self.order.dry_run:
            return
        self._list(needs)
        missing = set(self.store.look().missing)
        sizes = self._sizes()
        needs.set_alive(sizes.keys() - packs_of(self.store.condemnations.load()))
        gone = missing - sizes.keys() - {place.pack for place in needs.only_in(missing)}
        if gone:
            self._rewrite_indexes(gone)

    def _put_index(self, packs: list[Pack]) -> None:
        if packs:
            key, sealed = write_index(self.store.keys, packs)
            self.store.transport.put(key, sealed)
            packs.clear()

    # -- sessions -------------------------------------------------------------------------------------------------

    def _is_blocked(self, condemned: str) -> bool:
        """Whether any session may still build on the packs of a condemnation."""
        beats = self._blocking(condemned)
        if beats:
            names = ", ".join(sorted({f"{beat.host} (process {beat.process})" for _, beat in beats.values()}))
            log.info("garbage waits for the writers that run on %s", names)
        return bool(beats)

    def _blocking(self, condemned: str) -> dict[str, tuple[int, Beat]]:
        beats = latest_beats(self.store.transport, self.store.keys)
        over = list_verdicts(self.store.transport)
        return {session: beat for session, beat in beats.items() if session not in over and blocking([beat], condemned)}

    def _looks_silent(self, beat: Beat) -> bool:
        return self.order.end_silent or abs((clock.now() - beat.time).total_seconds()) > SILENT_SECONDS

    def _end_silent(self) -> None:
        """End all sessions that seem dead, those of prunes, too: what they stored is kept for them until then."""
        if self.session is None:
            return
        beats = latest_beats(self.store.transport, self.store.keys)
        beats.pop(self.session.id, None)
        self._watch({session: count for session, (count, beat) in beats.items() if self._looks_silent(beat)})

    def _watch(self, silent: Mapping[str, int]) -> None:
        """Watch sessions by our own monotonic clock, whatever others' clocks say, and end those that stay silent."""
        deadline = time.monotonic() + _WATCH_BEATS * BEAT_SECONDS
        left = dict(silent)
        while left and time.monotonic() < deadline:
            if self.stop.wait(BEAT_SECONDS / 2):
                raise Interrupted("prune was stopped")
            now = latest_beats(self.store.transport, self.store.keys)
            left = {session: count for session, count in left.items() if session in now and now[session][0] == count}
        for session in left:
            log.warning("session %s shows no sign of life: it is ended", session[:8])
            end_session(self.store.transport, self.store.keys, session, self.catalogue.sessions)

    def _clear_leftovers(self) -> None:
        """Remove points that do not count, and what sessions that have ended left."""
        if self.order.dry_run:
            return
        transport = self.store.transport
        self.catalogue.give_up(self.catalogue.load().late)
        listed = list_sessions(transport).keys()
        live = latest_beats(transport, self.store.keys).keys() - list_verdicts(transport).keys()
        for session in listed - live:
            remove_beats(transport, session)
