"""The object ``repository``: how a repository comes to be, and what must be known of it before a key is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Buffer,
    ConfigError,
    Corrupt,
    Locked,
    NotFound,
    Options,
    TargetContext,
    Transport,
    Unsupported,
    clock,
)
from vbackup.repository import keys as slots
from vbackup.repository.bounded import bounded
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE, FORMAT, INDEX, KEYS, PACKS, POINTS, REPOSITORY
from vbackup.repository.sealing import Keys, Ring

_MIN_CHUNK, _MAX_CHUNK = 16 << 10, 4 << 20


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


class RepositoryOptions(Options):
    """Options of ``type: repository``."""

    chunk_size: int = Field(
        default=DEFAULT_CHUNK_SIZE, ge=_MIN_CHUNK, le=_MAX_CHUNK, description="bytes, a power of two; fixed by init"
    )

    lock_days: int | None = Field(
        default=None, ge=1, le=36500, description="keep points, and all they need, from being deleted for so many days"
    )
    recipients: tuple[Path, ...] = Field(
        default=(),
        description="files with public keys; when init finds any, those can read and the configured key only writes",
    )

    _check = field_validator("chunk_size")(_power_of_two)


class RepositoryObject(BaseModel):
    """The object ``repository``: what must be known before a key is. Its MAC is checked once there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    chunk_size: int = Field(ge=_MIN_CHUNK, le=_MAX_CHUNK)
    created: str = Field(max_length=64)
    conditional_put: bool = Field(description="whether the store was seen to refuse a second put of one key")
    mac: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    _check = field_validator("chunk_size")(_power_of_two)

    def sign(self, keys: Keys) -> str:
        """Return the MAC of the other fields."""
        fields = f"{self.format}|{self.id}|{self.chunk_size}|{self.created}|{int(self.conditional_put)}"
        return keys.mac(fields.encode())


def found(context: TargetContext, options: RepositoryOptions, ring: Ring) -> None:
    """Make a new repository whose keys are ``ring``. Raises `AlreadyExists`."""
    transport, alias = context.transport, context.alias
    transport.create()
    with contextlib.suppress(NotFound):
        describe(transport, alias)
        raise AlreadyExists(f"target {alias} is a repository already")
    if has_remains(transport):
        raise AlreadyExists(
            f"target {alias} holds packs or points of a repository without its object `{REPOSITORY}`",
            hint="restore that object from a copy, or use another place",
        )
    secret = context.secret()
    recipients = [(path, _public_key(path)) for path in options.recipients]
    repository = os.urandom(16)
    # Slots first: a repository that exists can be opened. Slots of a dead init open nothing and do no harm.
    made = [
        slots.put_slot(transport, slots.wrap_to(ring, public, repository, path.name)) for path, public in recipients
    ]
    own = slots.wrap(ring.for_writing() if recipients else ring, secret, repository, "init")
    made.append(slots.put_slot(transport, own))
    conditional = refuses_second_put(transport, made[-1], own.model_dump_json().encode())
    if not conditional:
        _need_no_rival(transport, alias, made)
    plain = RepositoryObject(
        format=FORMAT, id=repository.hex(), chunk_size=options.chunk_size, created=clock.now().isoformat(),
        conditional_put=conditional,
    )  # fmt: skip
    signed = plain.model_copy(update={"mac": plain.sign(Keys(ring, repository))})
    transport.put(REPOSITORY, signed.model_dump_json().encode(), if_absent=conditional)
    if describe(transport, alias) != signed:
        raise AlreadyExists(f"target {alias} was initialised by somebody else at the same time")


def refuses_second_put(transport: Transport, key: str, data: Buffer) -> bool:
    """Whether conditional puts work, as the store shows with an object that is there; it is not changed.

    Stores have been seen to take the condition and ignore it.
    """
    if not transport.can_put_if_absent:
        return False
    try:
        transport.put(key, data, if_absent=True)
    except AlreadyExists:
        return True
    return False


def _need_no_rival(transport: Transport, alias: str, made: Collection[str]) -> None:
    """Of two that init at once at least one sees the other's slots here, and replaces nothing."""
    rivals = sorted({info.key for info in transport.list(KEYS)} - set(made))
    if not rivals:
        return
    for key in made:
        with contextlib.suppress(AccessDenied, Locked):
            transport.delete(key)
    raise AlreadyExists(
        f"target {alias} is being initialised by somebody else, or was by somebody who died",
        hint=f"if nobody does, remove {', '.join(rivals[:4])} from the store, and run it again",
    )


def has_remains(transport: Transport) -> bool:
    """Whether there is anything of a repository beside its first object."""
    return any(next(iter(transport.list(prefix)), None) for prefix in (POINTS, PACKS, INDEX))


def describe(transport: Transport, alias: str) -> RepositoryObject:
    """Read the object. Raises: `NotFound`, `Corrupt`; `Unsupported` for a newer format."""
    try:
        data = bounded(transport, REPOSITORY, 64 << 10)
    except NotFound as error:
        if has_remains(transport):
            hint = f"restore the object `{REPOSITORY}` from a copy"
            raise NotFound(f"target {alias}: a repository that has lost its first object", hint=hint) from error
        raise NotFound(f"target {alias}: no repository there", hint=f"run `vbackup init {alias}`") from error
    newer = (_format_of(data) or 0) > FORMAT
    try:
        described = None if newer else RepositoryObject.model_validate_json(data)
    except ValidationError as error:
        raise Corrupt(f"target {alias}: object {REPOSITORY} is damaged") from error
    if described is None:
        raise Unsupported(
            f"target {alias} is a repository of a newer format than this vbackup knows ({FORMAT})",
            hint="use a newer vbackup",
        )
    return described


def _public_key(path: Path) -> bytes:
    try:
        return slots.parse_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the public key {path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def _format_of(data: bytes) -> int | None:
    """Return the format number of an object that this version may not be able to parse, if it has one."""

    class _Format(BaseModel):
        format: int

    try:
        return _Format.model_validate_json(data).format
    except ValidationError:
        return None
