"""Which disks a plugin's notes speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vbackup.api import Key

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")  # as `vbackup.api.machine.Key`


def unmentioned(keys: Iterable[Key], notes: Sequence[str]) -> list[Key]:
    """Return those of ``keys`` that are a word of no note."""
    words = [word for note in notes for word in _WORD.findall(note)]
    said = {*words, *(word.rstrip("._:-") for word in words)}
    return [key for key in keys if key not in said]
