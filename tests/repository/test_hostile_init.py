"""Of many inits at once one wins at the most, and a newer format is refused by all that open it."""

from __future__ import annotations

import json
import threading

import pytest

from tests.repository.history import target
from tests.repository.hostile_site import site
from tests.support import back_up
from vbackup.api import AlreadyExists, CheckOrder, PruneOrder, Unsupported, VBackupError
from vbackup.testing.transports import FaultyTransport, MemoryTransport

__all__ = ["site"]  # a fixture


class Unconditional(FaultyTransport):
    """A store without conditional puts."""

    @property
    def can_put_if_absent(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [FaultyTransport, Unconditional])
def test_of_many_inits_at_once_one_wins_at_the_most(tmp_path, kind):
    store = kind(MemoryTransport())
    start = threading.Barrier(32)
    won: list[str] = []
    lost: list[VBackupError] = []

    def init(number):
        opened = target(store, tmp_path / str(number))
        start.wait()
        try:
            opened.init()
            won.append(opened.id)
        except AlreadyExists as error:
            lost.append(error)

    threads = [threading.Thread(target=init, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) + len(lost) == 32
    assert len(won) <= 1
    again = target(store, tmp_path / "again")
    if kind is FaultyTransport:
        assert len(won) == 1
    elif not won:
        again.init()
        won.append(again.id)
    assert again.id == won[0]
    assert again.points() == []


def test_an_init_that_comes_between_the_steps_of_another_does_not_replace_it(tmp_path):
    """Both have found nothing there; without conditional puts the later one must not win as well."""
    store = MemoryTransport()
    won: list[str] = []

    def meanwhile(number, operation, key):
        if operation == "put" and key == "repository" and not won:
            won.append("")
            other = target(Unconditional(store), tmp_path / "b")
            try:
                other.init()
                won[0] = other.id
            except AlreadyExists:
                won.clear()
                won.append("nobody")

    opened = target(Unconditional(store, meanwhile), tmp_path / "a")
    try:
        opened.init()
    except AlreadyExists:
        assert won[0] != "nobody"
    else:
        assert won[0] == "nobody"
    assert target(store, tmp_path / "c").points() == []


def test_a_newer_format_is_refused_by_all_that_open_it(site):
    document = json.loads(site.store.get("repository"))
    site.store.put("repository", json.dumps({**document, "format": 2, "more": [1]}).encode())
    for action in (
        lambda opened: opened.points(),
        lambda opened: opened.prune(PruneOrder()),
        lambda opened: opened.check(CheckOrder(), lambda size: None),
        lambda opened: back_up(opened, site.lab, "db"),
        lambda opened: opened.init(),
        lambda opened: opened.key_ring(),
    ):
        with pytest.raises(Unsupported, match="newer format"):
            action(site.fresh())
