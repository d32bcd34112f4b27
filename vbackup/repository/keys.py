"""Key slots: the repository's ring, wrapped by what the user has.

A *passphrase* is stretched by Argon2id (RFC 9106). A *key file* made by ``vbackup init`` holds 256 random bits and
needs no stretching: its slot has the least parameters, so that opening a repository costs no time. A *recipient* is a
public key whose private half may be kept offline: the ring is sealed to it (HPKE, see `hybrid`).

A slot that may read has a MAC that only those who may read can make. Else a host that only writes could put a slot for
a key pair of its own beside the others, and the next rotation would seal to it what it must not have.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import ConfigError, Corrupt, NotFound, Transport, WrongKey, clock
from vbackup.repository import hybrid
from vbackup.repository.bounded import bounded
from vbackup.repository.layout import KEYS
from vbackup.repository.removals import is_removed, removed_macs
from vbackup.repository.sealing import Keys, Ring, derive

KEY_FILE_PREFIX = b"VBACKUP-KEY-1:"
PRIVATE_PREFIX = b"VBACKUP-PRIVATE-1:"
PUBLIC_PREFIX = b"vbackup-public-1:"
MAX_SLOTS = 64
MAX_LISTED = 4 * MAX_SLOTS
"""Slots that are looked at: a rotation that died leaves up to twice as many as there may be."""
_MAX_SLOT = 64 << 10
_PURPOSE = b"vbackup 1 slot"
_AT_ONCE = 8

SlotType = Literal["passphrase", "key-file", "recipient"]


class Argon2(BaseModel):
    """Parameters of a slot, bounded: they come from the store and are used before anything is authenticated."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    memory_kib: int = Field(ge=8, le=256 << 10)
    iterations: int = Field(ge=1, le=8)
    lanes: int = Field(ge=1, le=16)


PASSPHRASE = Argon2(memory_kib=64 << 10, iterations=3, lanes=4)
KEY_FILE = Argon2(memory_kib=64, iterations=1, lanes=1)


class Slot(BaseModel):
    """One stored key slot, ``keys/ID``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: SlotType
    may_read: bool = Field(description="or only write; for people, what counts is inside")
    label: str = Field(max_length=128)
    created: str = Field(max_length=64)
    repository: str = Field(pattern=r"^[0-9a-f]{32}$", description="so that its id is not lost with one object")
    generation: int = Field(ge=0, le=1 << 31, description="of the newest key pair in it")
    argon2id: Argon2 | None = None
    salt: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")
    nonce: str = Field(default="", pattern=r"^([0-9a-f]{24})?$")
    public: str = Field(default="", pattern=rf"^([0-9a-f]{{{2 * hybrid.PUBLIC_SIZE}}})?$")
    wrapped: str = Field(pattern=r"^([0-9a-f]{2})+$")
    mac: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    def signed(self, keys: Keys) -> Slot:
        """Return the slot with the MAC of all its other fields."""
        return self.model_copy(update={"mac": self._mac(keys)})

    def is_genuine(self, keys: Keys) -> bool | None:
        """Whether somebody made the slot who could: who may read for one that may read. None: these keys cannot tell.

        Nothing may be sealed to the public key of one that is not.
        """
        expected = self._mac(keys)
        return None if expected is None else not keys.mac_differs(self.mac, expected)

    def _mac(self, keys: Keys) -> str | None:
        data = self.model_copy(update={"mac": ""}).model_dump_json().encode()
        if not self.may_read:
            return keys.mac(data)
        seed = keys.ring.seeds.get(self.generation)
        return None if seed is None else blake3(data, key=derive(bytes.fromhex(seed), "slot")).hexdigest()


def new_key_file() -> bytes:
    """Return the content of a new key file: one line of ASCII with 256 random bits."""
    return KEY_FILE_PREFIX + base64.b64encode(os.urandom(32)) + b"\n"


def new_private_key() -> tuple[bytes, bytes]:
    """Return the content of a new private key file, and its public key: a line of ASCII each."""
    seed = os.urandom(hybrid.SEED_SIZE)
    public = PUBLIC_PREFIX + base64.b64encode(hybrid.public_key(seed)) + b"\n"
    return PRIVATE_PREFIX + base64.b64encode(seed) + b"\n", public


def public_of(private: bytes) -> bytes:
    """Return the bytes of the public key of a private key file's content. Raises `ConfigError`."""
    return hybrid.public_key(_seed(private))


def parse_public_key(text: bytes) -> bytes:
    """Return the bytes of a public key as `new_private_key` gives it. Raises `ConfigError`."""
    body = _decoded(text, PUBLIC_PREFIX, hybrid.PUBLIC_SIZE)
    if body is None:
        raise ConfigError("this is no public key", hint=f"one is a line that begins with {PUBLIC_PREFIX.decode()}")
    return body


def type_of(secret: bytes) -> SlotType:
    """Return which type of slot a secret opens."""
    if secret.startswith(PRIVATE_PREFIX):
        return "recipient"
    return "key-file" if secret.startswith(KEY_FILE_PREFIX) else "passphrase"


def wrap(ring: Ring, secret: bytes, repository: bytes, label: str = "") -> Slot:
    """Make a slot that opens with a passphrase or the content of a key file."""
    kind = type_of(secret)
    if kind == "recipient":
        raise ConfigError("a private key opens what is sealed to its public key", hint="add the public key instead")
    parameters = KEY_FILE if kind == "key-file" else PASSPHRASE
    salt, nonce = os.urandom(16), os.urandom(12)
    data = ring.model_dump_json().encode()
    sealed = AESGCM(_stretch(secret, salt, parameters)).encrypt(nonce, data, _PURPOSE + repository)
    slot = Slot(
        type=kind, may_read=bool(ring.seeds), label=label, created=clock.now().isoformat(), repository=repository.hex(),
        generation=ring.generation, argon2id=parameters, salt=salt.hex(), nonce=nonce.hex(), wrapped=sealed.hex(),
    )  # fmt: skip
    return slot.signed(Keys(ring, repository))


def wrap_to(ring: Ring, public: bytes, repository: bytes, label: str = "") -> Slot:
    """Make a slot that opens with the private key of ``public``."""
    sealed = hybrid.seal_to(public, ring.model_dump_json().encode(), _PURPOSE + repository)
    slot = Slot(
        type="recipient", may_read=bool(ring.seeds), label=label, created=clock.now().isoformat(),
        repository=repository.hex(), generation=ring.generation, public=public.hex(), wrapped=sealed.hex(),
    )  # fmt: skip
    return slot.signed(Keys(ring, repository))


def put_slot(transport: Transport, slot: Slot) -> str:
    """Store a slot; return its object key."""
    key = f"{KEYS}/{os.urandom(16).hex()}"
    transport.put(key, slot.model_dump_json().encode())
    return key


def read_slots(transport: Transport) -> Iterator[tuple[str, Slot | None]]:
    """Yield the object keys of all slots with what is in them, None for what cannot be read."""

    def read(key: str) -> tuple[str, Slot | None] | None:
        try:
            return key, Slot.model_validate_json(bounded(transport, key, _MAX_SLOT))
        except (Corrupt, ValidationError):
            return key, None
        except NotFound:
            return None  # removed since it was listed

    keys = sorted(info.key for info in itertools.islice(transport.list(KEYS), MAX_LISTED))
    with ThreadPoolExecutor(_AT_ONCE, "slots") as pool:
        yield from (found for found in pool.map(read, keys) if found)


def unlock(transport: Transport, secret: bytes, repository: bytes) -> tuple[str, Ring]:
    """Return the object key of the slot that ``secret`` opens, and the ring in it; of several, the newest ring.

    Raises: `WrongKey` when there are slots and none opens, `NotFound` when there are none, `Corrupt` when none can
    be read, or two contradict each other.
    """
    kind = type_of(secret)
    broken: list[str] = []
    closed: list[str] = []
    opened: dict[str, Ring] = {}
    slots: dict[str, Slot] = {}
    seen = 0
    with ThreadPoolExecutor(1, "removed") as aside:
        removed = aside.submit(removed_macs, transport)
        found = list(read_slots(transport))
    for key, slot in found:
        seen += 1
        if slot is None:
            broken.append(key)
        elif slot.type == kind:
            try:
                data = _open(slot, secret, repository)
                if data is None:
                    closed.append(key)
                else:
                    opened[key], slots[key] = Ring.model_validate_json(data), slot
            except ValidationError:
                broken.append(key)
    if opened:
        known = Keys(_newest(opened)[1], repository)
        left = {
            key: ring
            for key, ring in opened.items()
            if slots[key].mac not in removed.result()
            or not is_removed(transport, known, slots[key].mac, slots[key].generation)
        }
        if not left:
            raise WrongKey(f"the key was removed, and {min(opened)} was put back", hint="set `key:` to another key")
        return _newest(left)
    if not seen:
        raise NotFound("the repository has no key slots", hint="restore the objects under keys/ from a copy")
    if len(broken) == seen:
        raise Corrupt(f"no key slot can be read: {', '.join(broken)}", hint="restore them from a copy")
    unreadable = f"; unreadable slots: {', '.join(broken)}" if broken else ""
    raise WrongKey(
        f"the key opens none of the repository's {seen} key slots{unreadable}",
        hint=f"check `key:`; if it is right, {', '.join(closed[:4])} is damaged" if closed else "check `key:`",
    )


def _newest(opened: Mapping[str, Ring]) -> tuple[str, Ring]:
    """Anybody can seal a made-up ring to a public key. A true one has all seeds of those that came before it."""
    best = max(opened, key=lambda key: (bool(opened[key].seeds), opened[key].generation, key))
    ring = opened[best]
    for key, other in opened.items():
        if other.write != ring.write or not other.seeds.items() <= ring.seeds.items():
            raise Corrupt(
                f"the key opens both {best} and {key}, which contradict each other: one of them was slipped in",
                hint="remove from the store the one that is younger than your keys",
            )
    return best, ring


def _open(slot: Slot, secret: bytes, repository: bytes) -> bytes | None:
    wrapped = bytes.fromhex(slot.wrapped)
    if slot.type == "recipient":
        return hybrid.open_with(_seed(secret), wrapped, _PURPOSE + repository)
    if slot.argon2id is None:
        return None
    wrapping = AESGCM(_stretch(secret, bytes.fromhex(slot.salt), slot.argon2id))
    try:
        return wrapping.decrypt(bytes.fromhex(slot.nonce), wrapped, _PURPOSE + repository)
    except (InvalidTag, ValueError):
        return None


def _seed(private: bytes) -> bytes:
    seed = _decoded(private, PRIVATE_PREFIX, hybrid.SEED_SIZE)
    if seed is None:
        raise ConfigError("the private key is damaged", hint="use another copy of it")
    return seed


def _decoded(text: bytes, prefix: bytes, size: int) -> bytes | None:
    try:
        data = base64.b64decode(text.strip().removeprefix(prefix), validate=True)
    except binascii.Error:
        return None
    return data if text.startswith(prefix) and len(data) == size else None


def _stretch(secret: bytes, salt: bytes, parameters: Argon2) -> bytes:
    return Argon2id(
        salt=salt, length=32, iterations=parameters.iterations, lanes=parameters.lanes,
        memory_cost=max(parameters.memory_kib, 8 * parameters.lanes),
    ).derive(secret)  # fmt: skip
