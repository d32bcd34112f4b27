"""How many machines are copied at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureRequest, Interrupted, Quiesce
from vbackup_vsphere.limits import Slots, Turn

from .captures import OWNER, Sites, copy_all


def test_a_slot_is_waited_for() -> None:
    slots, order = Slots(), []
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with slots.taken({"host": 1}):
            inside.set()
            go_on.wait()
            order.append("first")

    def second() -> None:
        with slots.taken({"host": 1}):
            order.append("second")

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(first)]
        inside.wait()
        done.append(pool.submit(second))
        go_on.set()
        for one in done:
            one.result()
    assert order == ["first", "second"]


def test_who_waits_ends_with_the_run() -> None:
    """Else each of many machines would make a snapshot, only to remove it, when the run is stopped."""
    slots, asked = Slots(), threading.Event()

    def is_stopped() -> bool:
        asked.set()
        return True

    def wait() -> None:
        with pytest.raises(Interrupted), slots.taken({"host": 1}, is_stopped):
            raise AssertionError("its turn has not come")

    with ThreadPoolExecutor(1) as pool, slots.taken({"host": 1}):
        pool.submit(wait).result()
    assert asked.is_set()
    with slots.taken({"host": 1}):
        pass


def test_nobody_holds_one_slot_and_waits_for_another() -> None:
    slots, inside, go_on = Slots(), threading.Event(), threading.Event()

    def both() -> None:
        with slots.taken({"host": 1, "datastore": 1}):
            pass

    def one() -> None:
        with slots.taken({"datastore": 1}):
            inside.set()
            go_on.wait()

    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(one)
        inside.wait()
        waiting = pool.submit(both)
        with slots.taken({"other host": 1}):  # who needs nothing of theirs is not held up
            pass
        go_on.set()
        busy.result()
        waiting.result()


def test_slots_come_back_after_an_error() -> None:
    slots = Slots()
    for _ in range(3):
        with pytest.raises(KeyError), slots.taken({"host": 1}):
            raise KeyError


def test_a_turn_begins_once() -> None:
    slots = Slots()
    with Turn(slots, {"host": 1}) as turn:
        turn.begin()
        turn.begin()
    with Turn(slots, {"host": 1}):
        pass
    with slots.taken({"host": 1}):
        pass


def test_many_machines_at_once(make_site: Sites, vcsim: Simulator) -> None:
    machines, per_datastore = 64, 3
    names = [f"m{i:02}" for i in range(machines)]
    for name in names:
        vcsim.add_vm(name, disks=[1 << 20], tracking=True)
        vcsim.guest_write(name, 0, 7, name.encode())
    site = make_site(name=names[0], read=["datastore"], per_host=64, per_datastore=per_datastore)

    def back_up(name: str) -> bool:
        with site.vsphere.capture(name, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
            copy = copy_all(capture)
        return list(copy.disks.values()) == [vcsim.disk(name).read_bytes()]

    with ThreadPoolExecutor(machines) as pool:
        assert all(pool.map(back_up, names))
    state = vcsim.state()
    assert state["peak"]["snapshots"] <= per_datastore
    assert vcsim.calls()["Login"] == 1
    site.vsphere.close()
    assert vcsim.leaks() == {}
