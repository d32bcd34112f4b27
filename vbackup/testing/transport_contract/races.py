"""Many at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import AlreadyExists, NotFound, Transport, Unsupported
from vbackup.testing.equal import assert_equal
from vbackup.testing.transport_contract.base import MIB, OnePlace, keys_of

RACERS = 32


class RaceContract(OnePlace):
    """What many threads of one process see."""

    @pytest.mark.parametrize("size", [3, 100_000])
    def test_put_if_absent_in_a_race(self, transport: Transport, size: int) -> None:
        """Of many that put at once just one wins, and its bytes are what is there; none where that cannot be."""
        refused = AlreadyExists if transport.can_put_if_absent else Unsupported
        for name in ("locks/a", "locks/b", "c"):
            barrier = threading.Barrier(RACERS)

            def race(number: int, name: str = name, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    transport.put(name, bytes([number]) * size, if_absent=True)
                except refused:
                    return None
                return number

            with ThreadPoolExecutor(RACERS) as pool:
                winners = [number for number in pool.map(race, range(RACERS)) if number is not None]
            assert len(winners) == transport.can_put_if_absent
            for winner in winners:
                assert_equal(name, transport.get(name), bytes([winner]) * size)

    def test_readers_see_all_or_nothing(self, transport: Transport) -> None:
        """While an object is put and replaced, a reader finds none or a whole one, never a part or a mixture."""
        versions = [bytes([number]) * (number * 40_000 + 1) for number in range(1, 17)]
        written = threading.Event()

        def read() -> set[bytes]:
            seen = set()
            while not written.is_set():
                try:
                    seen.add(transport.get("packs/a"))
                except NotFound:
                    assert not seen, "a replaced object was gone for a moment"
            return seen

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(4)]
            try:
                for version in versions:
                    transport.put("packs/a", version)
            finally:
                written.set()
            seen = set[bytes]().union(*(reader.result() for reader in readers))
        mixed = seen - set(versions)
        assert not mixed, f"{len(mixed)} objects were read that nobody had put, of {sorted(map(len, mixed))} bytes"
        assert_equal("packs/a", transport.get("packs/a"), versions[-1])

    def test_a_reader_of_what_is_deleted_sees_all_or_nothing(self, transport: Transport) -> None:
        """A get that meets a delete gives the whole object, or says that it is not there."""
        data = bytes(range(256)) * (2 * MIB // 256)
        start = threading.Barrier(5)

        def read() -> bytes | None:
            start.wait()
            try:
                return transport.get("packs/a")
            except NotFound:
                return None

        with ThreadPoolExecutor(4) as pool:
            for _ in range(8):
                transport.put("packs/a", data)
                readers = [pool.submit(read) for _ in range(4)]
                start.wait()
                transport.delete("packs/a")
                odd = {reader.result() for reader in readers} - {data, None}
                assert not odd, f"parts were read, of {sorted(len(each or b'') for each in odd)} bytes"
                assert keys_of(transport) == []

    def test_many_threads(self, transport: Transport) -> None:
        """Everything may be called by many threads at once."""

        def work(number: int) -> list[str]:
            for step in range(8):
                transport.put(f"work/{number}/{step}", bytes([number, step]) * 100)
            for step in range(0, 8, 2):
                assert transport.get(f"work/{number}/{step}", 100, 2) == bytes([number, step])
                transport.delete(f"work/{number}/{step}")
            return keys_of(transport, f"work/{number}")

        with ThreadPoolExecutor(16) as pool:
            for number, keys in enumerate(pool.map(work, range(32))):
                assert keys == [f"work/{number}/{step}" for step in range(1, 8, 2)]
