"""Several processes at one place, as several hosts have it, and one of them that dies."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Protocol

import pytest

from vbackup.api import AlreadyExists, NotFound, ObjectInfo, Transport, Unsupported
from vbackup.testing.equal import assert_equal
from vbackup.testing.transport_contract.base import MIB, OnePlace, keys_of

Opens = Callable[[], Transport]

_HOSTS = 4
_THREADS = 8
_NAMES = ("locks/a", "locks/b", "c")
_START = 120.0
"""Seconds that processes may take to come to the start of a race."""

_spawn = multiprocessing.get_context("spawn")


class HostsContract(OnePlace):
    """What others see of a put that has returned, whatever becomes of who put."""

    @pytest.fixture
    def opens(self) -> Opens:
        """Override: opens the place anew, as another host does.

        Other processes call it: it must be picklable, as ``functools.partial(MyTransport, options)`` is.
        """
        raise NotImplementedError

    @pytest.fixture
    def transport(self, opens: Opens) -> Iterator[Transport]:
        """Open the place; a test that needs more of it calls ``opens`` itself."""
        with closing(opens()) as transport:
            yield transport

    def test_others_see_at_once_what_was_done(self, transport: Transport, opens: Opens) -> None:
        """Put, replaced, deleted: as soon as it returns, and also if the other has looked before."""
        with closing(opens()) as second:
            for one, other in [(transport, second), (second, transport)] * 4:
                for data in (b"first", b"the second", b"3"):
                    one.put("points/machine/a", data)
                    assert other.get("points/machine/a") == data
                    assert other.size("points/machine/a") == len(data)
                    assert list(other.list("points")) == [ObjectInfo("points/machine/a", len(data))]
                one.delete("points/machine/a")
                with pytest.raises(NotFound):
                    other.get("points/machine/a")
                assert list(other.list("points")) == []

    def test_objects_outlive_who_put_them(self, transport: Transport, opens: Opens) -> None:
        """Closing takes nothing away."""
        transport.put("points/a", b"1")
        transport.close()
        with closing(opens()) as other:
            assert other.get("points/a") == b"1"

    def test_one_host_wins(self, transport: Transport, opens: Opens) -> None:
        """Of 32 threads in several processes that put a name at once just one wins, and its bytes are there."""
        barrier = _spawn.Barrier(_HOSTS * _THREADS)
        ends = [_start(_race, opens, barrier, host) for host in range(_HOSTS)]
        winners = [winner for end, process in ends for winner in _last_words(end, process)]
        assert [name for name, _ in sorted(winners)] == (sorted(_NAMES) if transport.can_put_if_absent else [])
        for name, racer in winners:
            assert_equal(name, transport.get(name), _of_racer(racer))

    @pytest.mark.parametrize("count", [1, 8])
    def test_killed_while_it_puts(self, transport: Transport, opens: Opens, count: int) -> None:
        """All that was put before a process is killed is there, whole; what it was putting is whole or not there."""
        end, process = _start(_put_for_ever, opens)
        with _ended(process):
            for _ in range(count):
                end.recv()
            process.kill()
            process.join()
            acknowledged = count + len(list(_rest(end)))
        listed = set(keys_of(transport, "packs"))
        assert listed >= {f"packs/{number}" for number in range(acknowledged)}
        for key in listed:
            assert_equal(key, transport.get(key), _numbered(int(key.rpartition("/")[2])))
        assert transport.get("state") in {_numbered(number) for number in (acknowledged - 1, acknowledged)}
        for key in listed:
            transport.delete(key)
        assert keys_of(transport) == ["state"]


class _Barrier(Protocol):
    def wait(self, timeout: float | None = None) -> int: ...


class _Process(Protocol):
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


def _start(work: Callable[..., None], *arguments: object) -> tuple[Connection, _Process]:
    """Start a process with one end of a pipe; return the other one, which ends when the process does."""
    ours, theirs = _spawn.Pipe(duplex=False)
    process = _spawn.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return ours, process


@contextmanager
def _ended(process: _Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.join()


def _last_words(end: Connection, process: _Process) -> list[tuple[str, int]]:
    with _ended(process):
        words: list[tuple[str, int]] = end.recv()
        return words


def _rest(end: Connection) -> Iterator[object]:
    """Yield what a process that has ended had still said."""
    while True:
        try:
            yield end.recv()
        except EOFError:
            return


def _race(end: Connection, opens: Opens, barrier: _Barrier, host: int) -> None:
    """Put each name from many threads; tell who won which."""
    transport = opens()
    refused = AlreadyExists if transport.can_put_if_absent else Unsupported
    won: list[tuple[str, int]] = []

    def run(racer: int) -> None:
        for name in _NAMES:
            barrier.wait(_START)
            try:
                transport.put(name, _of_racer(racer), if_absent=True)
            except refused:
                continue
            won.append((name, racer))

    threads = [threading.Thread(target=run, args=(host * _THREADS + number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end.send(won)


def _of_racer(racer: int) -> bytes:
    return bytes([racer]) * 10_000


def _put_for_ever(end: Connection, opens: Opens) -> None:
    """Put one object after the other and replace another one by each; tell each number when both are done."""
    transport = opens()
    for number in itertools.count():
        data = _numbered(number)
        transport.put(f"packs/{number}", data)
        transport.put("state", data)
        end.send(number)


def _numbered(number: int) -> bytes:
    return number.to_bytes(8, "big") * (1 + (number % 3) * MIB // 16)
