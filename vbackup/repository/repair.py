"""Repair: the index from the packs, chunks from wherever there is another copy.

It is a writer session like any other, so everything of PRUNE.md holds for it. It deletes no pack. What is whole in a
damaged pack is copied into new ones, what is lost is brought back from other copies, and then everybody is told of the
damaged packs (see `damaged`): they are garbage from then on, and the next prune collects them. A damaged pack that has
something that is needed and nowhere else stays: a store that fails now may read better another day.

It can die anywhere: new packs are found by the next session, and nothing is removed before what replaces it is there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from vbackup.api import AccessDenied, CheckOrder, Corrupt, Locked, NotFound, Unavailable
from vbackup.repository.bounded import bounded
from vbackup.repository.condemned import packs_of
from vbackup.repository.damaged import publish, withdraw
from vbackup.repository.index import read_index, write_index
from vbackup.repository.layout import pack_key
from vbackup.repository.look import MAX_INDEX
from vbackup.repository.mending import Mending
from vbackup.repository.packs import Pack
from vbackup.repository.session import Session
from vbackup.repository.survey import Found, Place, Survey

log = logging.getLogger(__name__)


class Repair:
    """One repair, after a survey."""

    def __init__(self, place: Place, survey: Survey, found: Found, order: CheckOrder) -> None:
        self._place = place
        self._survey = survey
        self._found = found
        self._order = order

    def run(self) -> list[str]:
        """Do what can be done; return it as sentences. Raises what the store raises."""
        survey, place = self._survey, self._place
        survey.cache.suspect(survey.broken)  # nothing that is copied or brought back may count on them
        done: list[str] = []
        session = Session(survey.store, survey.catalogue, place.codecs, place.chunk_size, place.locks)
        try:
            before = survey.cache.packs().keys()
            moved = self._move(session)
            mended = self._mend(session)
            session.flush()
            place.locks.extend(pack_key(name) for name in survey.cache.packs().keys() - before)
            publish(place.transport, survey.broken)
            with contextlib.suppress(AccessDenied, Locked):
                withdraw(place.transport, survey.healed)
            if moved:
                done.append(f"{moved} chunks were copied out of damaged packs")
            if mended:
                done.append(f"{mended} lost chunks were brought back from other copies")
            done += self._indexes()
        except BaseException:
            session.close(keep=False)
            raise
        session.close(keep=True)
        return done

    def _move(self, session: Session) -> int:
        """Copy what is needed and whole out of damaged packs."""
        moved: set[bytes] = set()
        for name in sorted(self._survey.broken):
            for place in self._survey.lost.movable(name):
                if place.id in moved:
                    continue
                try:
                    blob = self._place.transport.get(pack_key(name), place.offset, place.length)
                except NotFound:
                    break  # a prune has collected it: nothing needs it
                if not self._survey.is_good(place, blob):
                    raise Unavailable(f"pack {pack_key(name)} reads in different ways: look after the store first")
                session.copy(place.origin, place.id, place.kind, blob, place.size)
                moved.add(place.id)
        return len(moved)

    def _mend(self, session: Session) -> int:
        if self._order.elsewhere is None or not self._found.damage:
            return 0
        mending = Mending(self._survey.lost, session, self._order.elsewhere, self._place.chunk_size)
        mending.mend(reversed(self._survey.points))
        return mending.mended

    # -- the index ------------------------------------------------------------------------------------------------

    def _indexes(self) -> Iterator[str]:
        """The session has listed all packs that no index did: damaged objects can go."""
        for key in self._found.bad_indexes:
            if self._survey.is_bad_index(key) and self._delete(key):
                yield f"object {key} was damaged: it was made again from the packs"
        missing = set(self._found.missing)
        if missing:
            condemned = packs_of(self._survey.store.condemnations.load())
            for key in sorted(self._survey.cache.indexes_of(missing)):
                if self._without(key, missing, condemned):
                    yield f"object {key} listed packs that are missing: it was made again without them"

    def _without(self, key: str, missing: set[bytes], condemned: set[bytes]) -> bool:
        """Put an index object again without packs; one with condemned packs is left to the prune that deletes them."""
        transport, keys = self._place.transport, self._place.keys
        try:
            packs = list(read_index(keys, key, bounded(transport, key, MAX_INDEX)))
        except (NotFound, Corrupt):
            return False  # a prune has done it, or the next check tells
        if any(pack.name in condemned for pack in packs):
            return False
        staying: Sequence[Pack] = [pack for pack in packs if pack.name not in missing]
        if staying:
            new, sealed = write_index(keys, staying)
            transport.put(new, sealed)
        return self._delete(key)

    def _delete(self, key: str) -> bool:
        """Delete what is not needed any more, if this credential may."""
        try:
            self._place.transport.delete(key)
        except (AccessDenied, Locked) as error:
            log.warning("object %s stays: %s", key, error)
            return False
        return True
