"""A server that is killed and comes back, or that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import pytest

from vbackup.api import AlreadyExists, Transport, Unavailable
from vbackup.testing.equal import assert_equal
from vbackup.testing.transport_contract.base import MIB, OnePlace, keys_of, patiently
from vbackup.testing.transport_contract.failures import changes, failure, lists, reads

_WRITERS = 8
_EACH = 6


class Server(Protocol):
    """The server of a transport under test."""

    def kill(self) -> None:
        """End it as ``kill -9`` does. On return it is gone, and its port is closed."""

    def start(self) -> None:
        """Start it again with what it had. On return it answers."""


class ServerContract(OnePlace):
    """What becomes of a transport whose server is killed and started again.

    ``transport`` must be the bare one, and may have the shortest time limit that its options allow.
    """

    limit = 120.0
    """Seconds after which an operation without a server must have failed."""
    patience = 120.0
    """Seconds for which it is tried again after the server is back."""
    listed = 1_200
    """How many objects a listing has that meets the kill: more than one page."""

    @pytest.fixture
    def server(self) -> Server:
        """Override: the server of ``transport``, running."""
        raise NotImplementedError

    def test_what_was_acknowledged_survives_a_kill(self, transport: Transport, server: Server) -> None:
        """Durable on return, as far as a killed process can tell."""
        objects = {f"packs/{number:02}": bytes([number]) * (number * 9_973) for number in range(40)}
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(lambda item: transport.put(*item), objects.items()))
            with _away(server):
                pass
        listed = patiently(lambda: {info.key: info.size for info in transport.list()}, self.patience)
        assert listed == {key: len(data) for key, data in objects.items()}
        for key, data in objects.items():
            assert_equal(key, transport.get(key), data)

    def test_what_is_under_way_completes(self, transport: Transport, server: Server) -> None:
        """Puts that meet the kill succeed when they are tried again; created objects are not refused to their maker."""
        begun = threading.Semaphore(0)

        def write(writer: int) -> None:
            for step in range(_EACH):
                key, data = _written(writer, step)
                begun.release()
                patiently(lambda key=key, data=data: _put(transport, key, data), self.patience)  # type: ignore[misc]

        with ThreadPoolExecutor(_WRITERS) as pool:
            writers = [pool.submit(write, writer) for writer in range(_WRITERS)]
            for _ in range(2 * _WRITERS):  # then some have been stored, and others are under way
                begun.acquire(timeout=self.limit)
            with _away(server):
                pass
            for writer in writers:
                writer.result()
        expected = dict(_written(writer, step) for writer in range(_WRITERS) for step in range(_EACH))
        assert keys_of(transport) == sorted(expected)
        for key, data in expected.items():
            assert_equal(key, transport.get(key), data)

    def test_without_a_server(self, transport: Transport, server: Server) -> None:
        """All that changes something is Unavailable for now and names its object; a reader may only be told the truth.

        The same transport works again when the server does.
        """
        transport.put("points/a", b"there")
        transport.put("points/b", b"there")
        with _away(server):
            asked = {"get": b"there", "range": b"he", "size": 5, "list": None, "list all": None}
            answers = _all_at_once(reads(transport, "points/a") | lists(transport, "points"))
            refusals = _all_at_once(changes(transport, "points/b"))
            for name, answer in answers.items():
                _assert_true_or_passing(name, answer, asked[name], self.limit)
            for name, refusal in refusals.items():
                error = failure(name, lambda refusal=refusal: refusal.result(self.limit), Unavailable)  # type: ignore[misc]
                assert error.transient, name
                assert "points/b" in str(error), name
        assert patiently(lambda: transport.get("points/a"), self.patience) == b"there"
        patiently(lambda: transport.put("points/b", b"new"), self.patience)
        assert transport.get("points/b") == b"new"
        assert keys_of(transport) == ["points/a", "points/b"]

    def test_a_listing_is_whole_or_an_error(self, transport: Transport, server: Server) -> None:
        """A listing that meets the kill never yields less."""
        keys = [f"packs/{number:06}" for number in range(self.listed)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: transport.put(key, b"1"), keys))
        over, first = threading.Event(), threading.Event()

        def look() -> Iterator[list[str]]:
            while not over.is_set():
                yield patiently(lambda: keys_of(transport), self.patience)
                first.set()

        with ThreadPoolExecutor(2) as pool:
            lookers = [pool.submit(lambda: [len(seen) for seen in look() if seen != keys]) for _ in range(2)]
            try:
                first.wait(self.limit)
                with _away(server):
                    pass
                patiently(lambda: transport.size(keys[0]), self.patience)
            finally:
                over.set()
            assert [looker.result() for looker in lookers] == [[], []]


class SilentContract:
    """A server, or whoever is at its address, that takes connections and never answers."""

    limit = 120.0
    """Seconds after which an operation must have failed."""

    @pytest.fixture
    def silent(self) -> Transport:
        """Override: a transport of such a server, with the shortest time limit that its options allow."""
        raise NotImplementedError

    def test_a_server_that_never_answers(self, silent: Transport) -> None:
        """Everything ends, and may be tried again."""
        actions = reads(silent, "points/a") | lists(silent, "points") | changes(silent, "points/a")
        for name, answer in _all_at_once(actions).items():
            error = failure(name, lambda answer=answer: answer.result(self.limit), Unavailable)  # type: ignore[misc]
            assert error.transient, name


@contextmanager
def _away(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


def _all_at_once(actions: dict[str, Callable[[], object]]) -> dict[str, Future[object]]:
    """Begin each in a thread of its own; none is waited for, as one may hang."""
    answers: dict[str, Future[object]] = {name: Future() for name in actions}

    def run(name: str) -> None:
        try:
            answers[name].set_result(actions[name]())
        except Exception as error:  # noqa: BLE001 - handed to who asks
            answers[name].set_exception(error)

    for name in actions:
        threading.Thread(target=run, args=(name,), daemon=True).start()
    return answers


def _assert_true_or_passing(name: str, answer: Future[object], truth: object, limit: float) -> None:
    refusal = answer.exception(limit)
    if isinstance(refusal, Unavailable):
        assert refusal.transient, name
        return
    given = answer.result()
    if truth is None:
        assert isinstance(given, list)
        assert {"points/a", "points/b"} <= {info.key for info in given}, name
    else:
        assert given == truth, name


def _put(transport: Transport, key: str, data: bytes) -> None:
    """Create where that can be; an object that an earlier attempt made is ours."""
    try:
        transport.put(key, data, if_absent=transport.can_put_if_absent)
    except AlreadyExists:
        assert_equal(key, transport.get(key), data)


def _written(writer: int, step: int) -> tuple[str, bytes]:
    return f"packs/{writer}/{step}", bytes([writer, step]) * (MIB * (step % 3) + 1)
