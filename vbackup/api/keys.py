"""Targets with several keys: an optional part of the target role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

KeyState = Literal["good", "old", "damaged", "forged", "removed", "unknown"]
"""``old``: made before the last rotation; ``forged``: not made by who could; ``removed``: it was, and is there again;
``unknown``: this key cannot tell."""


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One of the keys that a target opens with. Nothing of it is secret."""

    id: str
    type: str
    """``passphrase``, ``key-file`` or ``recipient``; empty when it cannot be read."""
    label: str
    created: str
    """RFC 3339."""
    may_read: bool
    """Or only write."""
    in_use: bool
    """Whether it is the one that the target was opened with."""
    state: KeyState
    fingerprint: str = ""
    """Of a recipient's public key."""


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """What came of a rotation."""

    sealed: tuple[KeySlot, ...]
    """New slots: they have the new key pair."""
    dropped: tuple[KeySlot, ...]
    """Slots that could not be made anew without their secrets, or must not be: they are gone."""
    left: tuple[KeySlot, ...]
    """Slots that are no good and may be removed: nothing was sealed to them."""


class KeyRing(Protocol):
    """The keys of one target.

    A key that only writes can list, and add others that only write; all else raises `WrongKey`.
    """

    def slots(self) -> list[KeySlot]:
        """All of them, also those that are no good, oldest first."""

    def add_secret(self, secret: bytes, label: str, *, read: bool) -> KeySlot:
        """Let the target be opened with a passphrase or the content of a key file. Raises: `AlreadyExists`."""

    def add_recipient(self, public: bytes, label: str, *, read: bool) -> KeySlot:
        """Let the target be opened with the private key of a public key file. Raises: `AlreadyExists`."""

    def remove(self, slot: str) -> KeySlot:
        """Remove the slot whose id begins with ``slot``, but never the one in use. Raises: `NotFound`."""

    def rotate(self) -> KeyRotation:
        """Make a new key pair for all that is written from now on.

        What was opened before goes on with the old one until it is opened anew.
        """


@runtime_checkable
class KeyHolder(Protocol):
    """What a target is that has such keys."""

    def key_ring(self) -> KeyRing:
        """Open the target, and return its keys."""
