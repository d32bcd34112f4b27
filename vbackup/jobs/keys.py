"""The keys of targets, and key files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    KeyHolder,
    KeyRing,
    KeySlot,
    NotFound,
    SecretRef,
    Unsupported,
    WrongKey,
    clock,
)
from vbackup.config.models import EncodedTargetEntry
from vbackup.jobs.site import Site
from vbackup.jobs.typed import parse_rows
from vbackup.repository.keyring import fingerprint
from vbackup.repository.keys import new_key_file, new_private_key, public_of, type_of

_MAX_FILE = 64 << 10


@dataclass(frozen=True)
class Exported:
    """A sheet that was made, and the slot that it opens if that is new."""

    path: Path
    slot: KeySlot | None


def target_with_keys(site: Site, alias: str | None) -> str:
    """Return the target that is meant: the only one with keys when none is named. Raises: `ConfigError`."""
    if alias is not None:
        return alias
    aliases = [name for name, entry in site.config.targets.items() if isinstance(entry, EncodedTargetEntry)]
    if len(aliases) != 1:
        known = ", ".join(aliases) or "none"
        raise ConfigError("say which target is meant", hint=f"those with keys: {known}")
    return aliases[0]


def key_ring(site: Site, alias: str) -> KeyRing:
    """Open a target with its configured key. Raises: `Unsupported` for one that has no keys to list and change."""
    target = site.target(alias)
    if not isinstance(target, KeyHolder):
        kind = site.config.targets[alias].type
        raise Unsupported(f"target {alias} ({kind}) has no keys that could be listed or changed")
    return target.key_ring()


def add_passphrase(ring: KeyRing, passphrase: bytes, label: str, *, read: bool) -> KeySlot:
    """Let the target be opened with a passphrase."""
    if type_of(passphrase) != "passphrase":
        raise ConfigError("this is the content of a key file, and no passphrase", hint="use --key-file")
    return ring.add_secret(passphrase, label, read=read)


def add_key_file(ring: KeyRing, path: Path, label: str, *, read: bool) -> KeySlot:
    """Let the target be opened with a key file, which is made if it is not there."""
    made = not path.exists()
    if made:
        write_private(path, new_key_file())
    try:
        return ring.add_secret(_key_file(path), label or path.name, read=read)
    except BaseException:
        if made:
            path.unlink(missing_ok=True)
        raise


def _key_file(path: Path) -> bytes:
    secret = SecretRef(file=path).resolve()
    if type_of(secret) == "passphrase":
        raise ConfigError(f"{path} is no key file", hint="use --passphrase-file for a passphrase in a file")
    return secret


def add_recipient(ring: KeyRing, path: Path, label: str, *, read: bool) -> KeySlot:
    """Let the target be opened with the private key that belongs to a public key file."""
    try:
        return ring.add_recipient(read_file(path), label or path.name, read=read)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def generate(path: Path) -> tuple[Path, str]:
    """Make a private key file and beside it, with ``.pub`` added, its public key; return that and its fingerprint."""
    private, public = new_private_key()
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise AlreadyExists(f"{beside} is there already", hint="choose another name")
    write_private(path, private)
    write_private(beside, public, mode=0o644)
    return beside, fingerprint(public_of(private))


def export(site: Site, alias: str, path: Path) -> Exported:
    """Make a recovery sheet that holds the configured key; for a passphrase, a new key file of its own.

    Raises: `WrongKey` for a key that does not read: the sheet would restore nothing.
    """
    from vbackup.jobs.sheet import Sheet

    ring, entry = key_ring(site, alias), site.config.targets[alias]
    if not isinstance(entry, EncodedTargetEntry):
        raise Unsupported(f"target {alias} is configured without a key")
    if not any(slot.in_use and slot.may_read for slot in ring.slots()):
        raise WrongKey("this key can write and not read: its sheet would restore nothing", hint="export one that reads")
    secret = entry.key.resolve()
    is_passphrase = type_of(secret) == "passphrase"
    if is_passphrase:
        secret = new_key_file().strip()
    now = clock.now()
    sheet = Sheet(secret, site.target(alias).id, alias, now, _location(site, alias))
    write_private(path, sheet.render(path.suffix))
    if not is_passphrase:
        return Exported(path, None)
    try:
        return Exported(path, ring.add_secret(secret, f"recovery sheet of {now:%Y-%m-%d}", read=True))
    except BaseException:
        path.unlink(missing_ok=True)  # it would open nothing
        raise


def import_sheet(source: Path, path: Path) -> None:
    """Make a key file from a text with the rows of a recovery sheet."""
    write_private(path, parse_rows(read_file(source).decode("utf-8", "replace")) + b"\n")


def read_file(path: Path) -> bytes:
    """Read a file of the user, of 64 KiB at the most. Raises: `NotFound`, `AccessDenied`, `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise AccessDenied(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise ConfigError(f"{path} is too large to be what is wanted")
    return data


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make a file, durably, that only its owner may read. Raises: `AlreadyExists`, `AccessDenied`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise AlreadyExists(f"{path} is there already", hint="choose another name") from None
    except OSError as error:
        raise AccessDenied(f"{path} cannot be made: {error.strerror}") from error


def _location(site: Site, alias: str) -> list[str]:
    """Say where a target is, from those options of its transport that are plain values."""
    transport = site.config.targets[alias].transport
    options = site.config.transports[transport].model_dump(exclude_none=True)
    plain = {name: value for name, value in options.items() if isinstance(value, (str, int, Path)) and value != ""}
    return [f"{name}: {value}" for name, value in plain.items()]
