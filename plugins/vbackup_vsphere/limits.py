"""How many machines are copied at once from one ESXi host and from one datastore."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from vbackup.api import Interrupted

_LOOK_UP = 1.0  # seconds after which a waiting thread wakes, so that an interrupt reaches it


def _never() -> bool:
    return False


class Slots:
    """Slots by what they are of. All that a machine needs are taken at once: nobody holds some and waits for others.

    Who waits longer goes first, but holds up only those who need the same.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[object, frozenset[str]]] = []

    @contextmanager
    def taken(self, wanted: Mapping[str, int], is_stopped: Callable[[], bool] = _never) -> Iterator[None]:
        """Hold one slot of each of ``wanted``, which says how many there are; waits for as long as it takes.

        Raises: `Interrupted` when the run ends meanwhile: none of those that wait may begin with a snapshot then.
        """
        me = object()
        keys = frozenset(wanted)
        with self._free:
            self._waiting.append((me, keys))
            try:
                while not self._is_my_turn(me, wanted):
                    self._free.wait(_LOOK_UP)
                    if is_stopped():
                        raise Interrupted("stopped while waiting for its turn")
                self._taken.update(keys)
            finally:
                self._waiting.remove((me, keys))
                self._free.notify_all()
        try:
            yield
        finally:
            with self._free:
                self._taken.subtract(keys)
                self._free.notify_all()

    def _is_my_turn(self, me: object, wanted: Mapping[str, int]) -> bool:
        for other, keys in self._waiting:
            if other is me:
                return all(self._taken[key] < limit for key, limit in wanted.items())
            if not keys.isdisjoint(wanted):
                return False
        return False


class Turn:
    """One machine's turn to be copied: its slots, taken when `begin` is first called, given back at the end."""

    def __init__(self, slots: Slots, wanted: Mapping[str, int], is_stopped: Callable[[], bool] = _never) -> None:
        self._slots = slots
        self._is_stopped = is_stopped
        self._wanted = wanted
        self._once = threading.Lock()
        self._began = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Wait until it is this machine's turn; at once when it is already."""
        with self._once:
            if not self._began:
                self._stack.enter_context(self._slots.taken(self._wanted, self._is_stopped))
                self._began = True
