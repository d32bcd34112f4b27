"""Dying at every operation of a store: what is counted, what is left, and when it ends."""

from __future__ import annotations

import threading

import pytest

from tests.kit.test_target_contract import repository
from vbackup.api import NotFound, Transport, Unavailable
from vbackup.testing.crash import Died, copy_of, operations
from vbackup.testing.target_contract.looking import assert_holds, unheard
from vbackup.testing.target_contract.machines import keep, noise
from vbackup.testing.transports import MemoryTransport


def objects(store: Transport) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


@pytest.fixture
def before():
    store = MemoryTransport()
    store.put("a", b"old")
    return store


def replace(store):
    """Reads, writes and deletes: as good as it gets without a rename."""
    old = store.get("a")
    store.put("b", old + b" and new")
    store.delete("a")


def test_each_operation_is_died_at(before):
    """Before all, and after those that change something: then it has taken effect, and nothing else has."""
    deaths = [(str(death), objects(left)) for death, left in operations(lambda: copy_of(before), replace)]
    assert deaths == [
        ("died at operation 1: before get a", {"a": b"old"}),
        ("died at operation 2: before put b", {"a": b"old"}),
        ("died at operation 2: after put b", {"a": b"old", "b": b"old and new"}),
        ("died at operation 3: before delete a", {"a": b"old", "b": b"old and new"}),
        ("died at operation 3: after delete a", {"b": b"old and new"}),
    ]
    assert objects(before) == {"a": b"old"}


def test_fewer_deaths(before):
    numbers = [death.number for death, _ in operations(lambda: copy_of(before), replace, every=2)]
    assert numbers == [1, 3, 3]


def test_the_dead_change_nothing(before):
    """Not when they clean up, not in another thread, and not by catching all errors that there are."""

    def stubborn(store):
        def write(key):
            try:
                store.put(key, b"1")
            except Died:
                refused.append(key)

        try:
            store.put("b", b"new")
        except Exception:  # noqa: BLE001 - that is what such code does
            store.put("swallowed", b"1")
        finally:
            thread = threading.Thread(target=write, args=("thread",))
            thread.start()
            thread.join()
            store.put("cleanup", b"1")

    refused = []
    left = [objects(store) for _, store in operations(lambda: copy_of(before), stubborn)]
    assert left[:2] == [{"a": b"old"}, {"a": b"old", "b": b"new"}]
    assert all("swallowed" not in each for each in left)
    assert refused[:2] == ["thread", "thread"]
    assert len(left) == 6


def test_an_action_may_hide_its_death(before):
    """It is taken for dead all the same, whatever it raises then."""

    def hides(store):
        try:
            replace(store)
        except Died:
            raise Unavailable("the store is away") from None

    assert len(list(operations(lambda: copy_of(before), hides))) == 5


def test_an_action_that_fails_by_itself(before):
    with pytest.raises(NotFound):
        list(operations(MemoryTransport, lambda store: store.get("x")))


def test_an_action_that_has_no_operations(before):
    with pytest.raises(AssertionError, match="no operations"):
        list(operations(MemoryTransport, lambda store: replace(copy_of(before))))


def test_a_target_that_is_written_to(tmp_path):
    """The example of the manual: the points are the old ones, or with them the new one, and all are whole."""
    places = map(tmp_path.joinpath, map(str, range(1_000)))
    before = MemoryTransport()
    repository(before, next(places)).init()
    old = keep(repository(before, next(places)), {"vda": noise(200_000, 1)})

    def run(store):
        return keep(repository(store, next(places)), {"vda": noise(100_000, 2) + noise(100_000, 3)}, old)

    new = run(copy_of(before))
    seen = set()
    for death, store in operations(lambda: copy_of(before), run, every=3):
        target = repository(store, next(places))
        points = target.points()
        assert [point.id for point in points] in ([old.point.id], [old.point.id, new.point.id]), death
        assert target.verify(points, unheard) == [], death
        assert_holds(target, *[old, new][: len(points)])
        seen.add(len(points))
    assert seen == {1, 2}
