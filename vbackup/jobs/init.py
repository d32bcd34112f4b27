"""Making new targets."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from vbackup.api import AccessDenied, AlreadyExists, ConfigError, Exchanger, SecretRef, Target
from vbackup.config.models import EncodedTargetEntry
from vbackup.jobs.site import Site, no_key
from vbackup.repository.keys import new_key_file


def init(site: Site, target: str | None, keys_of: str | None = None, *, force: bool = False) -> list[str]:
    """Initialise one target, or all that are not yet; return what was done, as phrases.

    A key file that is configured and missing is made (mode 0600): who loses it loses the backups. With ``keys_of``,
    another target, one is made that shares the keys of that; see `Exchanger`. ``force``: see `Transport.create`.
    Raises: `AlreadyExists` when there is nothing to do, and what `Target.init` raises.
    """
    if keys_of is not None and target in (None, keys_of):
        raise ConfigError("name the one new target that is to share keys", hint="vbackup init TARGET --keys-of OTHER")
    if force and target is None:
        raise ConfigError("name the one target whose place is to be made anew", hint="vbackup init TARGET --force")
    aliases = [target] if target is not None else list(site.config.targets)
    if not aliases:
        raise ConfigError("the configuration has no targets", hint="add one under `targets:`")
    done: list[str] = []
    present: AlreadyExists | None = None
    for alias in aliases:
        new = _new_target(site, alias, done)
        try:
            if force:
                site.transport(site.config.targets[alias].transport).create(force=True)
            _init(new, alias, None if keys_of is None else site.target(keys_of))
            done.append(f"target {alias} is ready (id {new.id})")
        except AlreadyExists as error:
            present = error
        finally:
            new.close()
    if not done and present is not None:
        raise present
    return done


def _init(new: Target, alias: str, keys_of: Target | None) -> None:
    if keys_of is None:
        new.init()
    elif isinstance(new, Exchanger):
        new.init_with_keys_of(keys_of)
    else:
        raise ConfigError(f"target {alias} has no keys that it could share", hint="leave out --keys-of")


def _new_target(site: Site, alias: str, done: list[str]) -> Target:
    site.target(alias)  # complains of an unknown name
    entry = site.config.targets[alias]
    if isinstance(entry, EncodedTargetEntry):
        return site.make_target(alias, partial(_key, entry.key, done))
    return site.make_target(alias, no_key)


def _key(reference: SecretRef, done: list[str]) -> bytes:
    """Asked for only when a target is really being made: no key file appears beside a repository that has one."""
    path = reference.file
    if path is not None and not path.exists():
        _make_key_file(path)
        done.append(f"made key file {path}: keep a copy elsewhere, without it nothing can be restored")
    return reference.resolve()


def _make_key_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(new_key_file())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AccessDenied(f"key file {path} cannot be made: {error.strerror}") from error
