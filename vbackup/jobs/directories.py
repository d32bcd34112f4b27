"""Where state and cache are kept."""

from __future__ import annotations

import os
from pathlib import Path


def directory(variable: str, for_root: str, xdg: str, home: str) -> Path:
    """Return what ``variable`` names; else the system's for root, and one below ``home`` for other users."""
    if variable in os.environ:
        return Path(os.environ[variable])
    if os.geteuid() == 0:
        return Path(for_root)
    return Path(os.environ.get(xdg) or Path.home() / home) / "vbackup"
