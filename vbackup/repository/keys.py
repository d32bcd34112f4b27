"""Key slots: the master secret, wrapped by what the user has.

Argon2id (RFC 9106) turns a passphrase into a wrapping key. A key file made by ``vbackup init`` holds 256 random bits
and needs no stretching: its slot has the least parameters, so that opening a repository costs no time.
"""

from __future__ import annotations

import base64
import itertools
import os
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import Corrupt, NotFound, Transport, WrongKey
from vbackup.repository.layout import KEYS
from vbackup.repository.store import bounded

KEY_FILE_PREFIX = b"VBACKUP-KEY-1:"
MAX_SLOTS = 64
_MAX_SLOT = 4096
_PURPOSE = b"vbackup 1 slot"


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
    type: Literal["passphrase", "key-file"]
    argon2id: Argon2
    repository: str = Field(pattern=r"^[0-9a-f]{32}$", description="so that its id is not lost with one object")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    nonce: str = Field(pattern=r"^[0-9a-f]{24}$")
    wrapped: str = Field(pattern=r"^[0-9a-f]{96}$")


def new_key_file() -> bytes:
    """Return the content of a new key file: one line of ASCII with 256 random bits."""
    return KEY_FILE_PREFIX + base64.b64encode(os.urandom(32)) + b"\n"


def wrap(master: bytes, secret: bytes, repository: bytes) -> Slot:
    """Make a slot that opens with ``secret``."""
    is_file = secret.startswith(KEY_FILE_PREFIX)
    parameters = KEY_FILE if is_file else PASSPHRASE
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = AESGCM(_stretch(secret, salt, parameters)).encrypt(nonce, master, _PURPOSE + repository)
    return Slot(
        type="key-file" if is_file else "passphrase",
        argon2id=parameters,
        repository=repository.hex(),
        salt=salt.hex(),
        nonce=nonce.hex(),
        wrapped=sealed.hex(),
    )


def unlock(transport: Transport, secret: bytes, repository: bytes) -> bytes:
    """Return the master secret from the first slot that ``secret`` opens.

    Raises: `WrongKey` when there are slots and none opens, `NotFound` when there are none, `Corrupt` when none can
    be read.
    """
    broken: list[str] = []
    kind = "key-file" if secret.startswith(KEY_FILE_PREFIX) else "passphrase"
    listed = [info.key for info in itertools.islice(transport.list(KEYS), MAX_SLOTS)]
    seen = len(listed)
    for key in listed:
        try:
            slot = Slot.model_validate_json(bounded(transport, key, _MAX_SLOT))
        except (Corrupt, ValidationError):
            broken.append(key)
            continue
        if slot.type != kind:
            continue
        try:
            wrapping = AESGCM(_stretch(secret, bytes.fromhex(slot.salt), slot.argon2id))
            return wrapping.decrypt(bytes.fromhex(slot.nonce), bytes.fromhex(slot.wrapped), _PURPOSE + repository)
        except InvalidTag:
            continue
    if not seen:
        raise NotFound("the repository has no key slots", hint="restore the objects under keys/ from a copy")
    if len(broken) == seen:
        raise Corrupt(f"no key slot can be read: {', '.join(broken)}", hint="restore them from a copy")
    unreadable = f"; unreadable slots: {', '.join(broken)}" if broken else ""
    raise WrongKey(f"the key opens none of the repository's {seen} key slots{unreadable}", hint="check `key:`")


def _stretch(secret: bytes, salt: bytes, parameters: Argon2) -> bytes:
    return Argon2id(
        salt=salt, length=32, iterations=parameters.iterations, lanes=parameters.lanes,
        memory_cost=max(parameters.memory_kib, 8 * parameters.lanes),
    ).derive(secret)  # fmt: skip
