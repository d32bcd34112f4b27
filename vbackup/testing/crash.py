"""Dying at every operation: whatever was under way, what is left must be the old state or the new one, whole.

`operations` is for what works on a transport. It is fast, and it needs no process: the dead one's store refuses it
everything from its death on. ::

    before = MemoryTransport()
    prepare(before)
    for death, store in operations(lambda: copy_of(before), lambda store: back_up(MyTarget(options, context(store)))):
        assert [point.id for point in open_again(store).points()] in (old, new), death

`processes` is for everything else, files and other programs among it: a process of its own dies, by SIGKILL, and what
it leaves is what it leaves. It only needs to be told what an operation is. ::

    def action(tick):
        ticking(os, FILE_OPERATIONS, tick)
        back_up(open_target())

    for death in processes(action):
        assert all_is_whole(), death

Both end when the action survives. With ``every=5`` only each fifth operation is died at.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from vbackup.api import Transport
from vbackup.testing.transports import FaultyTransport, MemoryTransport

FILE_OPERATIONS = ("fsync", "ftruncate", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
"""Functions of `os` that change a file system in a way that lasts; `pathlib` and `shutil` use them, too."""
_CHANGES = frozenset({"create", "put", "delete", "lock"})


@dataclass(frozen=True, slots=True)
class Death:
    """One death: at which operation (from 1), and what that was: ``before put packs/ab``."""

    number: int
    what: str

    def __str__(self) -> str:
        return f"died at operation {self.number}: {self.what}"


class Died(BaseException):
    """What an action gets from its store when it dies, and ever after. Nobody may catch it and go on."""


def operations(
    store: Callable[[], Transport], action: Callable[[Transport], object], *, every: int = 1
) -> Iterator[tuple[Death, Transport]]:
    """Run ``action`` on a new ``store()`` again and again; let it die before and after each operation of the store.

    ``store`` makes the store as it is before the action, the same each time; see `copy_of`. What else the action uses
    (a cache, say) it must make anew, too. Before and after: where an operation changes nothing, only before.

    Yields each death and what it left in the store, which is there to be checked; ends when the action survives. What
    that run raises is raised. Raises: `AssertionError` when the action asks nothing of the store.
    """
    for number in itertools.count(1, every):
        before = _Fate(number, is_after=False)
        left = before.befall(store(), action)
        if before.death is None:
            _need_operations(number)
            return
        yield before.death, left
        if before.operation in _CHANGES:
            after = _Fate(number, is_after=True)
            left = after.befall(store(), action)
            if after.death is not None:
                yield after.death, left


def copy_of(store: Transport) -> MemoryTransport:
    """Return a store in memory with the same objects."""
    copy = MemoryTransport()
    for info in store.list():
        copy.put(info.key, store.get(info.key))
    return copy


class _Fate:
    """Dies at one operation, and is dead then: nothing takes effect any more, in no thread."""

    def __init__(self, number: int, *, is_after: bool) -> None:
        self.death: Death | None = None
        self.operation = ""
        self._number = number
        self._is_after = is_after

    def befall(self, store: Transport, action: Callable[[Transport], object]) -> Transport:
        """Run the action; return the store as its death leaves it."""
        try:
            action(FaultyTransport(store, self._before, self._after))
        except BaseException as error:
            if self.death is None or isinstance(error, KeyboardInterrupt):
                raise
        return store

    def _before(self, number: int, operation: str, key: str) -> None:
        if self.death is None and number == self._number and not self._is_after:
            self._die("before", operation, key)
        self._refuse_the_dead()

    def _after(self, number: int, operation: str, key: str) -> None:
        if self.death is None and number == self._number and self._is_after:
            self._die("after", operation, key)
        self._refuse_the_dead()

    def _die(self, when: str, operation: str, key: str) -> None:
        self.operation = operation
        self.death = Death(self._number, f"{when} {operation} {key}".rstrip())

    def _refuse_the_dead(self) -> None:
        if self.death is not None:
            raise Died(str(self.death))


class Tick(Protocol):
    """To be called at every operation, from any thread: the process dies in the call that is its last."""

    def __call__(self, *what: object) -> None:
        """Count one operation; ``what`` says for people which. It is a `Fault` of `FaultyTransport` as it is."""


def processes(action: Callable[[Tick], object], *, every: int = 1, within: float = 120.0) -> Iterator[Death]:
    """Run ``action`` in a process of its own again and again; let it be killed at the first operation, the second ...

    The action calls what it is given at every operation; `ticking` and `FaultyTransport` (``FaultyTransport(store,
    tick, tick)``) do it for you. It works on what the processes before have left: make it anew in the loop, or in the
    action, if it shall not. The process is forked: no other thread may hold a lock of something that it needs.

    Yields each death when the process is gone; ends when the action survives. Raises: `AssertionError` with its
    traceback when the action fails, when it ends in another way or not ``within`` so many seconds, and when it has no
    operations.
    """
    for number in itertools.count(1, every):
        death = _forked(action, number, within)
        if death is None:
            _need_operations(number)
            return
        yield death


def ticking(owner: Any, names: Iterable[str], tick: Tick) -> None:
    """Let functions of a module, or methods of a class, tick before and after each call.

    For good: it is for the action of `processes`, whose process ends with it.
    """
    for name in names:
        setattr(owner, name, _ticks(getattr(owner, name), name, tick))


def _ticks(function: Callable[..., Any], name: str, tick: Tick) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        tick("before", name, *arguments)
        result = function(*arguments, **options)
        tick("after", name, *arguments)
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        tick("before", name, *arguments)
        result = await function(*arguments, **options)
        tick("after", name, *arguments)
        return result

    return awaited if inspect.iscoroutinefunction(function) else called


def _forked(action: Callable[[Tick], object], number: int, within: float) -> Death | None:
    """Run the action once; return how it died, None when it lived."""
    reading, telling = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; see `processes`
        child = os.fork()
    if child == 0:
        _live(action, number, telling)
    os.close(telling)
    try:
        told, is_late = _heard(reading, within)
        if is_late:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(reading)
    if is_late:
        raise AssertionError(f"the action did not end within {within:.0f} s; it was to die at operation {number}")
    if status == -signal.SIGKILL and told:
        return Death(number, told)
    if status:
        raise AssertionError(f"the action failed ({status}) before it died at operation {number}:\n{told}")
    return None


def _heard(reading: int, within: float) -> tuple[str, bool]:
    """Return what a process told before it ended, and whether it has not ended in time."""
    told, end = b"", time.monotonic() + within
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            return told.decode(errors="replace"), False
        told += part
    return told.decode(errors="replace"), True


def _live(action: Callable[[Tick], object], number: int, telling: int) -> NoReturn:
    """In the new process: run the action and end, in this way or that."""
    status = 1
    try:
        action(_Counter(number, telling))
        status = 0
    except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
        os.write(telling, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _Counter:
    """A `Tick`."""

    def __init__(self, last: int, telling: int) -> None:
        self._numbers = itertools.count(1)  # one step of it is not divided by threads
        self._last = last
        self._telling = telling

    def __call__(self, *what: object) -> None:
        if next(self._numbers) == self._last:
            os.write(self._telling, " ".join(map(str, what)).encode() or b"an operation")
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # it is on its way; nothing more may happen


def _need_operations(number: int) -> None:
    if number == 1:
        raise AssertionError("the action has no operations to die at: does it use what it was given?")
