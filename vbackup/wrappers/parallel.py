"""A bound on what one store is asked at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, TypeVar

from vbackup.api import Transport
from vbackup.api.turns import Turns
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")


class ParallelTransport(Wrapper):
    """Has at most ``most`` operations under way, of all threads of this process; the others wait for a place.

    Who comes first is served first: a store that is read without a pause can be written, too.
    """

    name: ClassVar[str] = "parallel"

    def __init__(self, inner: Transport, most: int, *, wait: Callable[[float], bool] | None = None) -> None:
        """Wrap ``inner``; ``wait`` takes seconds and returns whether to give up; without it, `close` ends all waits."""
        super().__init__(inner)
        self._closed = threading.Event()
        wait = wait or self._closed.wait
        self._places = Turns(most, is_stopped=lambda: wait(0))

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act when there is a place. Raises also: `Interrupted`."""
        del operation, key
        with self._places:
            return action()

    def close(self) -> None:
        """End all waits, and close the inner transport."""
        self._closed.set()
        super().close()
