"""Writes the pages that are made from the code: ``python -m vbackup.docs.generate``.

They are committed, so that they can be read without building anything; a test fails when they are stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vbackup.docs import commands, reference
from vbackup.registry import Registry

HERE = Path(__file__).parent


def pages() -> Mapping[Path, str]:
    """Return what must stand in each generated page, by its path."""
    registry = Registry.load()
    return {
        HERE / "admin/reference.md": reference.page(registry),
        HERE / "admin/commands.md": commands.page(registry),
    }


def main() -> None:
    """Write all of them."""
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
