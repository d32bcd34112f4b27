"""Check: whether a repository is whole, and with a repair, how it becomes so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from vbackup.api import CheckOrder, CheckReport, Corrupt, Interrupted, Transport
from vbackup.repository.presence import latest_beats, list_verdicts
from vbackup.repository.records import Records, count_and_check, wrong_slots
from vbackup.repository.repair import Repair
from vbackup.repository.sealing import Keys
from vbackup.repository.survey import Found, Place, Survey


class Check:
    """One check of one repository."""

    def __init__(self, place: Place, order: CheckOrder, progress: Callable[[int], None], stop: threading.Event) -> None:
        self._place = place
        self._order = order
        self._progress = progress
        self._stop = stop
        self._lock = threading.Lock()
        self._read = 0
        self.broken: set[bytes] = set()
        """Packs that were found damaged."""

    def run(self) -> CheckReport:
        """Check, and repair. Raises what the store raises: what could not be asked is no damage."""
        transport, keys = self._place.transport, self._place.keys
        slots, wrong = wrong_slots(transport, keys)
        records, damaged = count_and_check(transport, keys)
        with Survey(self._place, self._count) as survey:
            repaired: list[str] = []
            if self._order.repair and damaged:
                repaired += Records(transport, keys, survey.catalogue.sessions).repair(damaged)
                damaged = count_and_check(transport, keys)[1]
            wrong += [f"object {key} is damaged" for key in damaged]
            try:
                found = survey.look(self._order)
                if self._order.repair and (found.wrong or found.damage or survey.broken or survey.healed):
                    repaired += Repair(self._place, survey, found, self._order).run()
                    found = survey.again()
            except Corrupt as error:
                # A record that everybody must read first. With a repair it is set right before; nothing else is lost.
                if not damaged or not any(key in error.message for key in damaged):
                    raise
                return CheckReport(
                    wrong=tuple(wrong),
                    repaired=tuple(repaired),
                    notes=("nothing else could be checked: repair that first",),
                )
            self.broken = set(survey.broken)
        found.notes += _sessions(transport, keys, damaged)
        objects = 1 + slots + records + found.points + found.indexes + found.packs
        return _report(found, wrong, repaired, objects, self._read)

    def _count(self, size: int) -> None:
        if self._stop.is_set():
            raise Interrupted("check was stopped: what was read well is remembered")
        with self._lock:
            self._read += size
        self._progress(size)


def _report(found: Found, wrong: Iterable[str], repaired: Iterable[str], objects: int, read: int) -> CheckReport:
    return CheckReport(
        wrong=(*wrong, *found.wrong),
        damage=tuple(found.damage),
        repaired=tuple(repaired),
        notes=tuple(found.notes),
        objects=objects,
        stored=found.stored,
        read=read,
    )


def _sessions(transport: Transport, keys: Keys, damaged: Iterable[str]) -> list[str]:
    """Say which writers are there: under way, or left by the dead."""
    if any(key.startswith("sessions/") for key in damaged):
        return []
    over = list_verdicts(transport)
    beats = latest_beats(transport, keys)
    return [
        f"a run on {beat.host} (process {beat.process}) is under way, or died: its last sign of life is of {beat.time}"
        for session, (_, beat) in sorted(beats.items())
        if session not in over
    ]
