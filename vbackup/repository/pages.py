"""Memory that was freed and is needed again at once.

The C library gives freed memory of the size of a few chunks back to the kernel, and each of its pages then costs a
fault when the next chunks come: a quarter of the time of a restore (measured). Here it is told to keep a little.
"""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)
_KEPT = 16 << 20
"""Bytes at the end of a heap that are not given back."""
_MAPPED = 8 << 20
"""What is at least as large gets pages of its own: packs do, chunks and what is read at once do not."""
_HEAPS = 2
"""Threads share them: each heap keeps what it once needed, and there is little to wait for under Python's lock."""


@cache
def keep_pages() -> None:
    """Do so from now on, where the C library is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _HEAPS)
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
