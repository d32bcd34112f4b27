"""A disk of a capture that is read by NBD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vbackup.api import Block, Extent, Range
from vbackup_qemu.nbd import NbdClient, allocation, bitmap_context, changed


class NbdDisk:
    """A `SourceDisk` behind an NBD client.

    ``bitmap`` names the dirty bitmap that tells what changed; without one ``full_reason`` must say why.
    """

    def __init__(self, key: str, client: NbdClient, *, bitmap: str | None, full_reason: str | None) -> None:
        self.key = key
        self.size = client.size
        self.full_reason = full_reason
        self._client = client
        self._context = bitmap_context(bitmap or "")
        if full_reason is None and self._context not in client.contexts:
            self.full_reason = f"the server does not show the bitmap {bitmap}"

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`."""
        if full or self.full_reason is not None:
            return allocation(self._client)
        return changed(self._client, self._context)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        return self._client.read(ranges)
