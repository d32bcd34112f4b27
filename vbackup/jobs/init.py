"""Making new targets."""

from __future__ import annotations

import os
from pathlib import Path

from vbackup.api import AccessDenied, AlreadyExists, ConfigError, NotFound
from vbackup.jobs.site import Site
from vbackup.repository.keys import new_key_file


def init(site: Site, target: str | None) -> list[str]:
    """Initialise one target, or all that are not yet; return what was done, as phrases.

    A key file that is configured and missing is made (mode 0600): who loses it loses the backups.
    Raises: `AlreadyExists` when there is nothing to do, and what `Target.init` raises.
    """
    aliases = [target] if target is not None else list(site.config.targets)
    if not aliases:
        raise ConfigError("the configuration has no targets", hint="add one under `targets:`")
    done: list[str] = []
    present: AlreadyExists | None = None
    for alias in aliases:
        made = site.target(alias)  # complains of unknown names before a key file is made
        key_file = site.config.targets[alias].key.file
        if key_file is not None and not key_file.exists():
            if _initialised(site, alias):
                raise NotFound(f"target {alias} exists, but its key file {key_file} does not", hint="put it back")
            _make_key_file(key_file)
            done.append(f"made key file {key_file}: keep a copy elsewhere, without it nothing can be restored")
        try:
            made.init()
        except AlreadyExists as error:
            present = error
            continue
        done.append(f"target {alias} is ready (id {made.id})")
    if not done and present is not None:
        raise present
    return done


def _initialised(site: Site, alias: str) -> bool:
    try:
        return bool(site.target(alias).id)
    except NotFound:
        return False


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
