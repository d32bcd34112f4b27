"""A bound on what one store is asked at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, TypeVar

from vbackup.api import Transport
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")


class ParallelTransport(Wrapper):
    """Has at most ``most`` operations under way, of all threads of this process; the others wait for a place."""

    name: ClassVar[str] = "parallel"

    def __init__(self, inner: Transport, most: int) -> None:
        super().__init__(inner)
        self._places = threading.BoundedSemaphore(most)

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act when there is a place."""
        del operation, key
        with self._places:
            return action()
