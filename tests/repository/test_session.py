"""What a session holds at most, and that it always comes to an end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import noise, repository
from vbackup.api import Interrupted
from vbackup.repository import packs, session
from vbackup.repository.packs import PackBuilder
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.session import Session
from vbackup.repository.target import Repository
from vbackup.testing.transports import FaultyTransport, MemoryTransport

CHUNK = 64 << 10


class Gate:
    """Lets packs into the store when it is open."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.opened.set()

    def __call__(self, number: int, operation: str, key: str) -> None:
        if operation == "put" and key.startswith("packs/"):
            assert self.opened.wait(30)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def target(gate: Gate, tmp_path: Path) -> Iterator[Repository]:
    with contextlib.closing(repository(FaultyTransport(MemoryTransport(), gate), tmp_path, chunk_size=CHUNK)) as target:
        target.init()
        yield target


def put(writer: Session, seed: int) -> None:
    chunk = noise(CHUNK, seed)
    writer.put(ChunkKind.DATA, [writer.chunk_id(ChunkKind.DATA, chunk)], [chunk])


def test_flushes_in_between_take_no_more_memory_than_three_packs(
    target: Repository, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds two packs on their way to a store that goes on when the flush waits for it, and a third one begun."""
    memories: list[bytearray] = []
    wait = Session._wait

    class Watched(PackBuilder):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            if not any(self.memory is memory for memory in memories):
                memories.append(self.memory)

    def go_on_and_wait(*arguments: object) -> None:
        gate.opened.set()
        wait(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(packs, "PACK_SIZE", 2 * CHUNK)
    monkeypatch.setattr(session, "PackBuilder", Watched)
    monkeypatch.setattr(Session, "_wait", go_on_and_wait)
    with target.writer() as writer:
        for number in range(3):
            gate.opened.clear()
            for seed in range(5):
                put(writer, 5 * number + seed)
            assert not gate.opened.is_set()
            writer.flush()
    assert len(memories) == 3


def test_a_flush_ends_though_the_memory_of_its_pack_cannot_be_looked_at(
    target: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(memory: bytearray) -> bool:
        raise MemoryError

    def flush(writer: Session) -> None:
        with contextlib.suppress(MemoryError, Interrupted):
            writer.flush()

    monkeypatch.setattr(session, "is_free", fail)
    with target.writer() as writer:
        put(writer, 1)
        flushing = threading.Thread(target=flush, args=(writer,))
        flushing.start()
        flushing.join(30)
        has_ended = not flushing.is_alive()
        if not has_ended:
            writer.fail(Interrupted("the test gives up"))
        assert has_ended
