"""The guard around the keys of a target."""

from __future__ import annotations

from vbackup.api import KeyRing, KeyRotation, KeySlot
from vbackup.guards.answers import listed, sound
from vbackup.guards.blame import Blame, is_ours, presentable


class GuardedKeyRing:
    """A `KeyRing` whose answers can be shown."""

    def __init__(self, inner: KeyRing, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame

    def slots(self) -> list[KeySlot]:
        """See `KeyRing.slots`."""
        with self._blame.calling("slots"):
            return [self._slot(slot, "slots") for slot in listed(self._inner.slots(), KeySlot, "slots", self._blame)]

    def add_secret(self, secret: bytes, label: str, *, read: bool) -> KeySlot:
        """See `KeyRing.add_secret`. What a plugin raises is told by its type: its message may quote the secret."""
        with self._blame.calling("add_secret"):
            try:
                slot = self._inner.add_secret(secret, label, read=read)
            except BaseException as error:
                if presentable(error) is not None or is_ours(error):
                    raise
                raise self._blame.error(f"add_secret raised {type(error).__name__}") from None
            return self._slot(slot, "add_secret")

    def add_recipient(self, public: bytes, label: str, *, read: bool) -> KeySlot:
        """See `KeyRing.add_recipient`."""
        with self._blame.calling("add_recipient"):
            return self._slot(self._inner.add_recipient(public, label, read=read), "add_recipient")

    def remove(self, slot: str) -> KeySlot:
        """See `KeyRing.remove`."""
        with self._blame.calling("remove"):
            return self._slot(self._inner.remove(slot), "remove")

    def rotate(self) -> KeyRotation:
        """See `KeyRing.rotate`."""
        with self._blame.calling("rotate"):
            return sound(self._inner.rotate(), KeyRotation, "rotate", self._blame)

    def _slot(self, slot: KeySlot, method: str) -> KeySlot:
        return sound(slot, KeySlot, method, self._blame)
