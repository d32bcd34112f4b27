"""Key slots of an open repository: listed, added, removed, and made anew with another key pair.

Nothing that is written here takes anything away before what replaces it is durable, so that dying at any point leaves
a repository that opens with the key in use. A slot that was put is never undone: another process may have opened the
repository with it since, and written what only its key pair opens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vbackup.api import AlreadyExists, Busy, ConfigError, KeyRotation, KeySlot, NotFound, Transport, WrongKey
from vbackup.api.keys import KeyState
from vbackup.repository import keys as stored
from vbackup.repository.keys import MAX_LISTED, MAX_SLOTS, Slot
from vbackup.repository.layout import KEYS
from vbackup.repository.removals import record_removal, removed_macs
from vbackup.repository.sealing import Keys, Ring

_MAX_LABEL = 128

Found = Mapping[str, Slot | None]
"""Slots by object key; None for what cannot be read."""


def fingerprint(public: bytes) -> str:
    """Return what people compare public keys by."""
    return hashlib.sha256(public).hexdigest()[:16] if public else ""


class KeySlots:
    """See `vbackup.api.KeyRing`."""

    def __init__(self, transport: Transport, keys: Keys, in_use: str, secret: Callable[[], bytes]) -> None:
        """``in_use`` is the object key of the slot that ``secret`` opened."""
        self._transport = transport
        self._keys = keys
        self._in_use = in_use
        self._secret = secret

    def slots(self) -> list[KeySlot]:
        """All slots, oldest first."""
        return self._shown(dict(stored.read_slots(self._transport)))

    def add_secret(self, secret: bytes, label: str, *, read: bool) -> KeySlot:
        """Add a passphrase or the content of a key file."""
        ring = self._ring(read=read)
        self._need_room()
        self._need_new(secret)
        return self._put(stored.wrap(ring, secret, self._keys.repository, checked_label(label)))

    def add_recipient(self, public: bytes, label: str, *, read: bool) -> KeySlot:
        """Add a public key, as its file has it."""
        ring = self._ring(read=read)
        key = stored.parse_public_key(public)
        self._need_room()
        for slot in self.slots():
            if slot.fingerprint == fingerprint(key) and slot.state in ("good", "unknown"):
                raise AlreadyExists(f"key slot {slot.id[:8]} is for this public key already")
        return self._put(stored.wrap_to(ring, key, self._keys.repository, checked_label(label)))

    def remove(self, slot: str) -> KeySlot:
        """Remove a slot by the beginning of its id. The one in use stays, so somebody can always read."""
        need_read(self._keys, "remove keys")
        found = dict(stored.read_slots(self._transport))
        hits = [each for each in self._shown(found) if slot and each.id.startswith(slot)]
        if not hits:
            raise NotFound(f"there is no key slot {slot!r}", hint="`vbackup key list` shows all")
        if len(hits) > 1:
            ids = ", ".join(each.id for each in hits[:4])
            raise ConfigError(f"{slot!r} could be several key slots: {ids}", hint="give more digits")
        if hits[0].in_use:
            raise ConfigError(
                f"key slot {hits[0].id[:8]} is the one in use: without it, nobody may be left who can read",
                hint="to remove it, set `key:` to another key that may read: that shows that there is one",
            )
        key = f"{KEYS}/{hits[0].id}"
        if (its := found[key]) is not None:
            record_removal(self._transport, self._keys, its.mac, its.generation)
        self._transport.delete(key)
        return hits[0]

    def rotate(self) -> KeyRotation:
        """Make a new key pair; seal it to the key in use and to all recipients that are genuine."""
        need_read(self._keys, "rotate")
        before = dict(stored.read_slots(self._transport))
        self._need_newest(before)
        ring = self._keys.ring.rotated()
        old = self._shown(before)
        again = [slot for slot in old if not slot.in_use and slot.type == "recipient" and slot.state == "good"]
        if len(before) + len(again) + 1 > MAX_LISTED:
            raise ConfigError(f"there are {len(before)} key slots", hint="remove some, then rotate")
        new = [self._own(ring, before[self._in_use]), *self._anew(ring, before, again)]
        fresh = {stored.put_slot(self._transport, slot): slot for slot in new}
        self._keys = Keys(ring, self._keys.repository)
        self._in_use = next(iter(fresh))
        self._need_no_rival(before, fresh)
        gone = [slot for slot in old if slot.state in ("good", "old")]
        for slot in gone:
            self._transport.delete(f"{KEYS}/{slot.id}")
        return KeyRotation(
            tuple(self._shown(fresh)),
            tuple(slot for slot in gone if not slot.in_use and slot not in again),
            tuple(slot for slot in old if slot not in gone),
        )

    def _own(self, ring: Ring, slot: Slot | None) -> Slot:
        """Make the slot in use anew, from the secret and not from what the store has of it."""
        secret, repository = self._secret(), self._keys.repository
        label = slot.label if slot else ""
        if stored.type_of(secret) == "recipient":
            return stored.wrap_to(ring, stored.public_of(secret), repository, label)
        return stored.wrap(ring, secret, repository, label)

    def _anew(self, ring: Ring, before: Found, again: list[KeySlot]) -> list[Slot]:
        made: list[Slot] = []
        for slot in (before[f"{KEYS}/{each.id}"] for each in again):
            if slot is not None:
                its = ring if slot.may_read else ring.for_writing()
                made.append(stored.wrap_to(its, bytes.fromhex(slot.public), self._keys.repository, slot.label))
        return made

    def _need_newest(self, before: Found) -> None:
        if self._in_use not in before:
            raise WrongKey("the key in use was removed meanwhile", hint="check `key:`")
        for key, slot in before.items():
            if slot is not None and slot.generation > self._keys.ring.generation:
                raise WrongKey(
                    f"{key} has key pair {slot.generation}, which the key in use does not have: another key was used "
                    "to rotate, or it is forged",
                    hint="rotate with that key, or remove the slot if nobody knows it",
                )

    def _need_no_rival(self, before: Found, fresh: Found) -> None:
        for key, slot in stored.read_slots(self._transport):
            if key not in before and key not in fresh and slot and slot.generation >= self._keys.ring.generation:
                raise Busy(
                    f"somebody else rotates the keys at the same time ({key}): nothing was removed",
                    hint="agree on one of you, who runs it again",
                    transient=False,
                )

    def _ring(self, *, read: bool) -> Ring:
        if not read:
            return self._keys.ring.for_writing()
        need_read(self._keys, "make keys that read")
        return self._keys.ring

    def _need_room(self) -> None:
        count = sum(1 for _ in stored.read_slots(self._transport))
        if count >= MAX_SLOTS:
            raise ConfigError(f"there are {count} key slots, and may be {MAX_SLOTS}", hint="remove one first")

    def _need_new(self, secret: bytes) -> None:
        if stored.type_of(secret) == "recipient":
            return  # `wrap` says what to do instead
        try:
            key, ring = stored.unlock(self._transport, secret, self._keys.repository)
        except WrongKey:
            return
        if ring.generation == self._keys.ring.generation:
            raise AlreadyExists(f"the secret opens key slot {_id(key)[:8]} already", hint="remove that one first")

    def _put(self, slot: Slot) -> KeySlot:
        return self._show(stored.put_slot(self._transport, slot), slot)

    def _shown(self, slots: Found) -> list[KeySlot]:
        removed = removed_macs(self._transport)
        shown = [self._show(key, slot, removed) for key, slot in slots.items()]
        return sorted(shown, key=lambda slot: (slot.created, slot.id))

    def _show(self, key: str, slot: Slot | None, removed: Collection[str] = ()) -> KeySlot:
        state = "removed" if slot is not None and slot.mac in removed else self._state(slot)
        shown: dict[str, Any] = {"id": _id(key), "in_use": key == self._in_use, "state": state}
        if slot is None:
            return KeySlot(type="", label="", created="", may_read=False, **shown)
        public = bytes.fromhex(slot.public)
        return KeySlot(
            type=slot.type, label=slot.label, created=slot.created, may_read=slot.may_read,
            fingerprint=fingerprint(public), **shown,
        )  # fmt: skip

    def _state(self, slot: Slot | None) -> KeyState:
        if slot is None:
            return "damaged"
        genuine = slot.is_genuine(self._keys)
        if genuine is None:
            return "forged" if self._keys.can_read and slot.generation <= self._keys.ring.generation else "unknown"
        if not genuine:
            return "forged"
        return "old" if slot.generation < self._keys.ring.generation else "good"


def need_read(keys: Keys, what: str) -> None:
    """Raise `WrongKey` for keys that only write; ``what`` says what they are not enough for."""
    if not keys.can_read:
        raise WrongKey(f"this key can write and not read: it cannot {what}", hint="set `key:` to one that may read")


def checked_label(label: str) -> str:
    """Return a label as one line. Raises `ConfigError` for a long one."""
    line = " ".join(label.split())
    if len(line) > _MAX_LABEL:
        raise ConfigError(f"a label has at most {_MAX_LABEL} characters")
    return line


def _id(key: str) -> str:
    return key.rpartition("/")[2]
