"""The root: which target it is, and the points in it."""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import AlreadyExists, Corrupt, Damage, NotFound, Point, Unavailable, Unsupported, clock
from vbackup_image.points.layout import FORMAT, POINT, TARGET, load, point_directory, read_document
from vbackup_image.points.staging import write
from vbackup_qemu.host import sync_directory, translated

_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*")
"""What `layout.machine_directory` returns; other directories (``lost+found``) are none of ours."""
_SHORT_ID = re.compile(r".+-([0-9a-f]{8})")
"""What `layout.point_directory` returns."""


class Identity(BaseModel):
    """``vbackup-images.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: int
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    created: str = Field(max_length=64)


def make(root: Path, alias: str) -> None:
    """Make a new target in a directory that is there. Raises: `AlreadyExists`."""
    if next(point_directories(root), None) is not None and not (root / TARGET).exists():
        raise AlreadyExists(f"{root} holds restore points, but no {TARGET}", hint="restore that file from a copy")
    temporary = root / f".{TARGET}.{secrets.token_hex(8)}"
    identity = Identity(format=FORMAT, id=secrets.token_hex(16), created=clock.now().isoformat())
    write(temporary, identity.model_dump_json(indent=2).encode() + b"\n")
    try:
        with translated(f"making {root / TARGET}"):
            (root / TARGET).hardlink_to(temporary)
            sync_directory(root)
    except AlreadyExists as error:
        raise AlreadyExists(f"target {alias} is there already, in {root}") from error
    finally:
        temporary.unlink()


def identity(root: Path, alias: str) -> Identity:
    """Return which target this is. To be asked before all else: a disk that is not mounted must not look empty.

    Raises: `Unavailable`, `NotFound`, `Corrupt`, `Unsupported`.
    """
    if not root.is_dir():
        raise Unavailable(f"the directory {root} is not there", hint="is its disk mounted?", transient=False)
    try:
        found = Identity.model_validate_json(read_document(root / TARGET))
    except NotFound as error:
        raise NotFound(f"target {alias}: there is none in {root}", hint=f"run `vbackup init {alias}`") from error
    except ValidationError as error:
        raise Corrupt(f"target {alias}: {root / TARGET} is damaged") from error
    if found.format > FORMAT:
        raise Unsupported(
            f"target {alias} is of a newer format than this vbackup knows ({FORMAT})", hint="use a newer vbackup"
        )
    return found


def points(root: Path) -> tuple[list[Point], list[Damage]]:
    """Return the points that can be read, oldest first, and those that cannot."""
    found: list[Point] = []
    damaged: list[Damage] = []
    for name, (directory, what) in _look(root).items():
        if isinstance(what, Point):
            found.append(what)
        else:
            damaged.append(Damage(name, directory.parent.name, "", 0, 0, what.message))
    return sorted(found, key=lambda point: (point.time, point.id)), damaged


def unreadable(root: Path) -> Mapping[str, Path]:
    """Return the directories of the points that cannot be read, by what `points` calls them."""
    return {name: directory for name, (directory, what) in _look(root).items() if not isinstance(what, Point)}


def _look(root: Path) -> dict[str, tuple[Path, Point | Corrupt]]:
    """Return all points by their ids; those that cannot be read by the digits of theirs that the directory's name has.

    A directory that is not where its point belongs (a copy that somebody keeps), or whose digits another has as well,
    goes by its path below the root: nothing but its whole name may mean it.
    """
    found: dict[str, tuple[Path, Point | Corrupt]] = {}
    directories = list(point_directories(root))
    count = Counter(_short_id(directory) for directory in directories)
    for directory in directories:
        path, short = str(directory.relative_to(root)), _short_id(directory)
        try:
            point = load(directory).point
        except NotFound:
            continue  # deleted meanwhile
        except Corrupt as error:
            found[short if short and count[short] == 1 else path] = directory, error
            continue
        if point_directory(root, point) == directory:
            found[point.id] = directory, point
        else:
            found[path] = directory, Corrupt(f"{directory} holds the restore point of another directory")
    return found


def _short_id(directory: Path) -> str:
    matched = _SHORT_ID.fullmatch(directory.name)
    return matched[1] if matched else ""


def point_directories(root: Path) -> Iterator[Path]:
    """Yield the directories of all points, readable or not. Links are none."""
    for machine in _directories(root):
        if _MACHINE.fullmatch(machine.name):
            for directory in _directories(machine):
                if (directory / POINT).exists():
                    yield directory


def _directories(parent: Path) -> list[Path]:
    with translated(f"listing {parent}"), os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
