"""What all parts of the benchmark are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vbackup.testing.lab.libvirtd import Libvirtd


@dataclass(frozen=True)
class Context:
    """Where to measure, and how much."""

    libvirtd: Libvirtd
    place: Path
    """A directory that goes in the end."""
    rounds: int
    small: bool
    """Whether to try it all out only, with little data: the figures say nothing."""
