"""What each process says it does and has done, durable before it goes on: an append-only file per process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """One process's own."""

    def __init__(self, directory: Path, name: str) -> None:
        path = directory / f"{name}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: str, **what: Any) -> None:
        """Write a line in one piece."""
        os.write(self._file, json.dumps({"event": event, **what}).encode() + b"\n")
        os.fsync(self._file)


class Journals:
    """All of them, read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of some kinds of all processes; a line that a dying process did not finish is none."""
        for path in sorted(self._directory.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    event: dict[str, Any] = json.loads(line)
                except ValueError:
                    continue
                if event["event"] in kinds:
                    yield event

    def version(self, machine: str) -> int:
        """Return the version that a machine has next."""
        return 1 + max((e["version"] for e in self.events("capturing") if e["machine"] == machine), default=-1)

    def committed(self) -> dict[str, tuple[str, int]]:
        """Return (machine, version) of all points whose commit returned, by id."""
        return {e["point"]: (e["machine"], e["version"]) for e in self.events("committed")}

    def doomed(self) -> set[str]:
        """Return the ids of all points that somebody has deleted or wanted to delete."""
        return {point for event in self.events("deleting") for point in event["points"]}
