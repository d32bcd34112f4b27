"""Who may write to a LUN: a record on the LUN itself, counted up by its owner.

As in Lamport's "Fast Mutual Exclusion" and the delta leases of sanlock and Chockler and Malkhi: who wants a record that
is free, or has stood still for long enough, writes its own, waits longer than any other's step from reading to writing
may have taken, and has won if its own is still there. Who needed longer for that step has not won, whatever it reads.

The owner counts its record up. If it could not do so for the time of its lease, or finds another's record, it is cut
off from the LUN before anybody else may have it. Times are those of CLOCK_BOOTTIME, which goes on in suspend.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from vbackup.api import Busy, Unavailable
from vbackup_iscsi.header import Device, Owner
from vbackup_iscsi.options import Timing


class Lease:
    """The right of this host to a LUN. ``cut`` is called, in any thread, when it is lost; nothing may block it.

    ``pause`` waits for some seconds, and raises to give up.
    """

    def __init__(
        self,
        device: Device,
        seat: tuple[str, str],
        timing: Timing,
        pause: Callable[[float], None],
        cut: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        """``seat``: the name of this host, and what tells it and its boot from all others.

        ``beat`` is called as long as the watch goes on: who does not hear it may take us for dead.
        """
        self._device = device
        self._timing = timing
        self._pause = pause
        self._cut = cut
        self._alive = beat
        self._counted = 0
        self._record = Owner(host=seat[0], seat=seat[1], nonce=secrets.token_hex(16), lease=timing.lease)
        self._heard = _clock()
        self._released, self._ended = threading.Event(), threading.Event()
        self._beat_thread = threading.Thread(target=self._beat, name="iscsi-beat", daemon=True)
        self._watch_thread = threading.Thread(target=self._watch, name="iscsi-watch", daemon=True)
        self.lost = ""
        """Why we were cut off; empty while we are not."""

    def watch(self) -> None:
        """From here on, cut us off when the LUN does not answer for the time of the lease."""
        self._heard = _clock()
        self._watch_thread.start()

    def claim(self, place: str) -> None:
        """Become the owner, and stay it until `release`. Raises: `Busy`, `Unavailable`, `OSError`."""
        must_wait = False
        while True:
            before = self._read()
            owner = self._device.owner()
            if must_wait or not self._is_free(before, owner):
                self._watch_stand_still(place, before, owner)
            elif owner is not None and not owner.released:
                # We were killed: what our kernel had still to send could arrive after what we write now.
                self._pause(self._timing.unacknowledged + self._timing.renew)
            started = _clock()
            if self._read() != before:
                continue
            self._write(durably=True)
            if _clock() - started <= self._timing.settle / 2:
                break
            must_wait = True  # another's claim may have been under ours: it has to notice, and to cut itself off
        self._pause(self._timing.settle)
        winner = self._owner()
        if winner is None or winner.nonce != self._record.nonce:
            raise Busy(f"{place} was taken by {_host(winner)} at the same moment", hint="let one host have it")
        self._count()
        self._beat_thread.start()

    def release(self) -> None:
        """Stop counting, and let others have it at once, unless it was lost. To be watched until its end."""
        self._released.set()
        if self._beat_thread.ident is not None:
            self._beat_thread.join()
        if not self.lost:
            with suppress(OSError):  # then they have to wait
                self._record = Owner(self._record.host, "", self._record.nonce, self._record.lease, released=True)
                self._write(durably=True)

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def lose(self, reason: str) -> None:
        """Cut us off now."""
        self.lost = self.lost or reason
        self._released.set()
        self._ended.set()
        self._cut()

    def _is_free(self, block: bytes, owner: Owner | None) -> bool:
        """Whether nobody has it: our own seat's other attachments are dead, or we would not have got here."""
        if owner is None:  # on a LUN that is no store, what is there is no record
            return not any(block) or self._device.label() is None
        return owner.released or (owner.seat == self._record.seat and owner.counter > 0)

    def _watch_stand_still(self, place: str, before: bytes, owner: Owner | None) -> None:
        since = _clock()
        long_enough = max(self._timing.takeover, 2 * owner.lease if owner is not None else 0)
        while _clock() - since < long_enough:
            self._pause(self._timing.renew / 2)
            if self._read() != before:
                raise Busy(
                    f"{place} is in use by {_host(self._device.owner() or owner)}",
                    hint="one host at a time can have a LUN: let it finish, or stop vbackup there",
                )

    def _beat(self) -> None:
        while not self._released.wait(self._timing.renew):
            with suppress(OSError):  # tried again until the watch says otherwise
                self._count()

    def _count(self) -> None:
        owner = self._device.owner()
        if owner is None:
            self.lose("another LUN is there in its place")
        elif owner.nonce != self._record.nonce:
            self.lose(f"{_host(owner)} has taken it")
        elif owner.counter < self._counted:
            self.lose("it holds what it held before: the target has lost what was written")
        if self.lost:
            return
        submitted = _clock()
        self._record = self._record.counted()
        self._device.write_owner(self._record)
        self._counted = self._record.counter
        self._heard = submitted

    def _watch(self) -> None:
        while not self._ended.is_set():
            silent = _clock() - self._heard
            if silent >= self._timing.lease:
                self.lose(f"it did not answer for {silent:.0f} s")
                return
            self._alive()
            # In short steps: a wait does not notice that the host was suspended meanwhile.
            self._ended.wait(min(1.0, self._timing.renew / 4))

    def _read(self) -> bytes:
        block = self._device.owner_block()
        self._heard = _clock()
        return block

    def _owner(self) -> Owner | None:
        self._read()
        return self._device.owner()

    def _write(self, *, durably: bool) -> None:
        submitted = _clock()
        self._device.write_owner(self._record, durably=durably)
        self._heard = submitted

    def raise_if_lost(self, place: str) -> None:
        """Raise `Unavailable` if we were cut off."""
        if self.lost:
            raise Unavailable(f"{place} was lost: {self.lost}", hint="is the target up and reachable?")


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _host(owner: Owner | None) -> str:
    if owner is None:
        return "another host"
    name = "".join(each if each.isprintable() else "?" for each in owner.host[:64])
    return f"host {name or 'unknown'}"
