"""A machine, or single disks, being put back.

All is written beside its place, and renamed when all is there. What is to be renamed is written down before: whoever
comes after us finishes it, so a machine has all its disks of one restore point, or those from before. But what was
written to since is never replaced.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vbackup.api import (
    HypervisorContext,
    MachineDescription,
    PluginError,
    RestoreDisk,
    RestoreRequest,
    SinkDisk,
    VBackupError,
)
from vbackup_qmp import journal, places
from vbackup_qmp.document import machine_json, remarks
from vbackup_qmp.journal import Entry, Journal
from vbackup_qmp.options import QmpOptions
from vbackup_qmp.places import DOCUMENT, Plan
from vbackup_qmp.programs import require_unused
from vbackup_qmp.sink import ImageSink, opened, translated

KIND = "restore"


def settle(record: Journal) -> list[str]:
    """Finish a restore whose disks were all written, or remove what it made; returns a phrase for each thing."""
    entry = record.read()
    if entry is None:
        return []
    done = _inherited(entry) if entry["was"] is not None else []
    for path in map(Path, (*entry["renames"], *entry["scrap"])):
        if path.exists():
            with translated(f"removing {path}"):
                path.unlink()
            done.append(f"removed {path}")
    if entry["directory"] is not None:
        with suppress(OSError):  # it holds the machine, or is gone
            Path(entry["directory"]).rmdir()
    record.clear()
    return done


def _inherited(entry: Entry) -> list[str]:
    """Put in place what a dead process had written, unless somebody went on with what was there."""
    left = {Path(one): Path(other) for one, other in entry["renames"].items() if Path(one).exists()}
    for place in left.values():
        if place.exists():
            require_unused(place)
    changed = [place for place in left.values() if _trace(place) != entry["was"][str(place)]]
    if changed:
        return [f"left {place} as it is, for it was written to after the restore" for place in changed]
    _put(entry)
    return [f"put {place} in its place" for place in left.values()]


def _put(entry: Entry) -> None:
    for temporary, place in ((Path(one), Path(other)) for one, other in entry["renames"].items()):
        if temporary.exists():
            with translated(f"renaming {temporary} to {place}"):
                _replace(temporary, place)


def _trace(path: Path) -> list[int] | None:
    """Return what is different when a file is another one, or was written to."""
    if not path.exists():
        return None
    found = path.stat()
    return [found.st_ino, found.st_mtime_ns]


def _replace(temporary: Path, place: Path) -> None:
    if place.exists():  # whoever could use the old one can use the new one
        old = place.stat()
        os.chown(temporary, old.st_uid, old.st_gid)
        temporary.chmod(old.st_mode & 0o7777)
    temporary.replace(place)
    _sync(place.parent)


def _sync(directory: Path) -> None:
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


class QmpRestoration:
    """A `Restoration`."""

    def __init__(
        self, machine: MachineDescription, plan: Plan, request: RestoreRequest, record: Journal, entry: dict[str, Any]
    ) -> None:
        self._machine = machine
        self._plan = plan
        self._request = request
        self._record = record
        self._entry = entry
        temporaries = {place: Path(temporary) for temporary, place in entry["renames"].items()}
        self._sinks = {
            place.disk.key: ImageSink(place, at := temporaries.get(str(place.path), place.path), _raw(at))
            for place in plan.places
        }
        self.disks: Mapping[str, SinkDisk] = self._sinks
        self.notes: Sequence[str] = plan.notes if plan.directory is None else [*plan.notes, *remarks(machine, plan)]

    def finish(self) -> str:
        """See `Restoration.finish`."""
        if missing := [key for key, sink in self._sinks.items() if not sink.is_complete]:
            raise PluginError(f"{self._plan.name}: finished before {', '.join(missing)} was written")
        places.require_replaceable(self._plan, overwrite=self._request.overwrite)
        if self._plan.directory is not None:
            self._describe(self._plan.directory)
        entry = {**self._entry, "was": {place: _trace(Path(place)) for place in self._entry["renames"].values()}}
        self._record.write(entry)
        _put(entry)
        return f"{self._plan.name}: {', '.join(str(place.path) for place in self._plan.places)}"

    def _describe(self, directory: Path) -> None:
        place = directory / DOCUMENT
        temporary = next(one for one, other in self._entry["renames"].items() if other == str(place))
        with translated(f"writing {place}"), Path(temporary).open("x") as file:
            file.write(machine_json(self._machine, self._plan))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def restored(
    options: QmpOptions,
    context: HypervisorContext,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
) -> Iterator[QmpRestoration]:
    """See `Hypervisor.restore`."""
    plan = places.choose(options, machine, disks, request)
    plan = replace(plan, notes=[*plan.notes, *(f"{name} was left out: there is no place for it" for name in files)])
    subject = str(plan.directory) if plan.directory is not None else " ".join(str(place.path) for place in plan.places)
    with journal.held(context.state_dir, KIND, subject) as record:
        settle(record)
        places.require_replaceable(plan, overwrite=request.overwrite)
        entry = _entry(plan)
        record.write(entry)
        try:
            if plan.directory is not None:
                with translated(f"making {plan.directory}"):
                    plan.directory.mkdir(parents=True, exist_ok=True)
                    _sync(plan.directory.parent)
            yield QmpRestoration(machine, plan, request, record, entry)
        except BaseException:
            with suppress(VBackupError):  # why it failed is told; what is left is in the journal
                settle(record)
            raise
        settle(record)


def _entry(plan: Plan) -> dict[str, Any]:
    mark = f"vbackup-{secrets.token_hex(4)}"
    files = [place.path for place in plan.places if not place.is_device]
    if plan.directory is not None:
        files.append(plan.directory / DOCUMENT)  # the last: it makes them a machine
    renames = {str(path.with_name(f".{path.name[:200]}.{mark}")): str(path) for path in files}
    scrap = [str(_raw(Path(temporary))) for temporary in renames]
    made = plan.directory is not None and not plan.directory.exists()
    return {
        "owner": None,
        "renames": renames,
        "scrap": scrap,
        "directory": str(plan.directory) if made else None,
        "was": None,
    }


def _raw(temporary: Path) -> Path:
    return temporary.with_name(f"{temporary.name}.raw")
