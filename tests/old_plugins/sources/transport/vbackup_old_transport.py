"""A transport, as one was written for API version 1."""

import os
import secrets
from pathlib import Path

from vbackup.api import (
    AlreadyExists,
    Finding,
    Level,
    NotFound,
    ObjectInfo,
    Options,
    Unavailable,
    Unsupported,
    checked_key,
    hookimpl,
)

VBACKUP_API_VERSION = 1
VBACKUP_BRINGS = {"transports": ["old-transport"]}


class OldOptions(Options):
    path: Path


class OldTransport:
    name = "old-transport"
    options = OldOptions
    has_files = False
    root = None
    can_lock = False
    can_put_if_absent = True

    def __init__(self, options):
        self._path = options.path

    def create(self, *, force=False):
        self._path.mkdir(parents=True, exist_ok=True)

    def put(self, key, data, *, if_absent=False):
        path = self._place(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path / f".new-{secrets.token_hex(8)}"
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            if if_absent:
                os.link(fresh, path)
            else:
                fresh.replace(path)
        except FileExistsError:
            raise AlreadyExists(f"object {key} is there already") from None
        finally:
            fresh.unlink(missing_ok=True)

    def get(self, key, offset=0, length=None):
        try:
            with self._place(key).open("rb") as file:
                file.seek(offset)
                return file.read(-1 if length is None else length)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"object {key} is not there") from None

    def list(self, prefix=""):
        self._place("x")
        for path in sorted(self._path.rglob("*")):
            key = str(path.relative_to(self._path))
            if path.is_file() and not key.startswith(".") and (f"{key}/".startswith(f"{prefix}/") or not prefix):
                yield ObjectInfo(key, path.stat().st_size)

    def delete(self, key):
        self._place(key).unlink(missing_ok=True)

    def lock(self, key, until):
        raise Unsupported(f"object {key} cannot be locked")

    def size(self, key):
        try:
            return self._place(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"object {key} is not there") from None

    def check(self):
        level = Level.OK if self._path.is_dir() else Level.ERROR
        return [Finding(str(self._path), level, "a directory")]

    def close(self):
        pass

    def _place(self, key):
        if not self._path.is_dir():
            raise Unavailable(f"{self._path} is not there")
        return self._path / checked_key(key)


@hookimpl
def vbackup_register_transports(register):
    register(OldTransport)
