"""Restoring a group: all of one moment, in order, each when the one before is ready."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakelab import Lab, lab
from vbackup.api import Interrupted, Unavailable, Unsupported
from vbackup.config.groups import Address, Ready
from vbackup.jobs import readiness
from vbackup.jobs.groups import GroupRestore, Watch
from vbackup.jobs.readiness import Waiting
from vbackup.jobs.restore import RestoreOptions
from vbackup.testing.hypervisors import FakeHypervisor, FakeMachine

__all__ = ["lab"]  # a fixture

SHOP = ("lab:db", "vc:app", "lab:web")


@pytest.fixture
def shop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A group that was captured once."""
    monkeypatch.setattr(readiness, "PAUSE", 0.01)
    lab.guests(*SHOP)
    lab.group("shop", *SHOP)
    lab.job("@shop")
    assert not lab.run().failed
    return lab


def lose(lab: Lab) -> dict[str, bytes]:
    """Lose all machines; return what was on their disks."""
    lost = {f"{alias}:{name}": bytes(guest.disks["vda"].data) for alias, name, guest in machines(lab)}
    for hypervisor in lab.hypervisors.values():
        hypervisor.guests.clear()
    return lost


def machines(lab: Lab) -> list[tuple[str, str, FakeMachine]]:
    return [(alias, name, guest) for alias, found in lab.hypervisors.items() for name, guest in found.guests.items()]


def there(lab: Lab) -> dict[str, bytes]:
    return {f"{alias}:{name}": bytes(guest.disks["vda"].data) for alias, name, guest in machines(lab)}


def test_a_group_comes_back_where_it_was(shop: Lab) -> None:
    lost = lose(shop)
    outcome = shop.vbackup("restore", "@shop@latest")
    assert outcome.code == 0, outcome.err
    assert [line.split(" (")[0] for line in outcome.out.splitlines()] == ["machine db", "machine app", "machine web"]
    assert there(shop) == lost
    assert shop.hypervisors["lab"].started == []


def test_it_comes_back_beside_what_is_there_and_elsewhere(shop: Lab) -> None:
    assert shop.vbackup("restore", "@shop@latest").code == 1
    assert shop.vbackup("restore", "@shop@latest", "--as", "*-copy", "--json").code == 0
    assert set(there(shop)) == {*SHOP, "lab:db-copy", "vc:app-copy", "lab:web-copy"}
    assert shop.vbackup("restore", "@shop@latest", "--to", "away").code == 0
    assert {"away:db", "away:app", "away:web"} < set(there(shop))


def test_nothing_is_written_when_one_cannot_be_restored(shop: Lab) -> None:
    lose(shop)
    shop.guests("lab:web")
    outcome = shop.vbackup("restore", "@shop@latest")
    assert outcome.code == 1
    assert "machine web exists" in outcome.err
    assert list(there(shop)) == ["lab:web"]


def test_what_cannot_be_put_back_is_told_of_each_before_the_first_and_once(shop: Lab) -> None:
    lose(shop)
    shop.hypervisors["vc"].notes = ["its sound card is lost"]
    outcome = shop.vbackup("restore", "@shop@latest")
    assert outcome.code == 3
    assert outcome.err.count("vbackup: warning: app: its sound card is lost") == 1
    told: list[Any] = []
    lose(shop)
    with shop.site() as site:
        work = GroupRestore(site, "@shop@latest", RestoreOptions())
        work.carry_out(
            Watch(lambda *done: told.append("written"), lambda point, notes: told.extend(notes), told.append)
        )
    assert told.index("its sound card is lost") < told.index("written")


def test_a_dry_run_makes_nothing(shop: Lab) -> None:
    lose(shop)
    shop.hypervisors["vc"].notes = ["its sound card is lost"]
    outcome = shop.vbackup("restore", "@shop@latest", "--dry-run")
    assert outcome.code == 3
    assert [line.split()[2] for line in outcome.out.splitlines()] == list(SHOP)
    assert "as vc:app: vda of 256.0 KiB" in outcome.out
    assert there(shop) == {}
    shown = shop.vbackup("restore", "@shop@latest", "--dry-run", "--json").json
    assert shown["group"] == "shop"
    assert shown["machines"][1]["notes"] == ["its sound card is lost"]
    assert shown["machines"][0]["disks"] == [{"key": "vda", "size": 256 << 10, "is_memory": False}]


def test_a_single_machine_has_a_dry_run_and_notes_as_well(shop: Lab) -> None:
    lose(shop)
    shop.hypervisors["vc"].notes = ["its sound card is lost"]
    outcome = shop.vbackup("restore", "app@latest", "--dry-run")
    assert outcome.code == 3
    assert outcome.out.startswith("would restore vc:app of ")
    assert there(shop) == {}
    outcome = shop.vbackup("restore", "app@latest")
    assert outcome.code == 3
    assert outcome.err.count("its sound card is lost") == 1


def test_a_star_is_the_name_of_a_single_machine_as_well(shop: Lab) -> None:
    assert shop.vbackup("restore", "app@latest", "--as", "*-copy").code == 0
    assert set(there(shop)) == {*SHOP, "vc:app-copy"}


def test_the_newest_complete_moment_counts_and_newer_ones_are_named(shop: Lab) -> None:
    before = there(shop)
    for alias, name, guest in machines(shop):
        guest.disks["vda"].write(0, f"{alias}:{name} later".encode())
    shop.hypervisors["vc"].before_capture = lambda name: (_ for _ in ()).throw(Unsupported("no snapshots today"))
    assert shop.run().failed
    lose(shop)
    outcome = shop.vbackup("restore", "@shop@latest")
    assert outcome.code == 3
    assert "are not complete: without vc:app" in outcome.err
    assert there(shop) == before


def test_a_moment_is_named_by_its_time(shop: Lab) -> None:
    before = there(shop)
    (first, *_) = shop.vbackup("list", "@shop", "--json").json
    machines(shop)[0][2].disks["vda"].write(0, b"later")
    assert not shop.run().failed
    lose(shop)
    assert shop.vbackup("restore", f"@shop@{first['time'][:23]}").code == 0
    assert there(shop) == before
    several = shop.vbackup("restore", f"@shop@{first['time'][:4]}")
    assert several.code == 2
    assert "could be of several times" in several.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["@shop"], 2, "@shop has no time"),
        (["@shop@"], 2, "has no time"),
        (["@shup@latest"], 2, "there is no group @shup"),
        (["@shop@1999"], 1, "no restore points of group @shop at 1999"),
        (["@shop@latest", "--as", "copy"], 2, "cannot all be named 'copy'"),
        (["@shop@latest", "--disk", "vda=x"], 2, "does not go with a group"),
        (["@shop@latest", "--to", "nowhere"], 2, "no hypervisor named 'nowhere'"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Lab, args: list[str], code: int, message: str) -> None:
    outcome = shop.vbackup("restore", *args)
    assert outcome.code == code
    assert message in outcome.err


def test_two_machines_do_not_become_one(lab: Lab) -> None:
    lab.guests("lab:web", "away:web")
    lab.group("shop", "lab:web", "away:web")
    lab.job("@shop")
    assert not lab.run().failed
    outcome = lab.vbackup("restore", "@shop@latest", "--to", "vc")
    assert outcome.code == 2
    assert "two machines of group @shop would be vc:web" in outcome.err
    for alias in ("lab", "away"):
        lab.hypervisors[alias].guests["web"].running = False
    assert lab.vbackup("restore", "@shop@latest", "--overwrite").code == 0


def test_other_commands_say_that_a_group_is_not_theirs(shop: Lab) -> None:
    outcome = shop.vbackup("verify", "@shop@latest")
    assert outcome.code == 2
    assert "only `restore` takes" in outcome.err


def test_a_group_that_was_never_captured_together(lab: Lab) -> None:
    lab.guests(*SHOP)
    lab.group("shop", *SHOP)
    lab.job("lab:*")
    lab.run()
    outcome = lab.vbackup("restore", "@shop@latest")
    assert outcome.code == 1
    assert "no restore points of group @shop that were made together" in outcome.err


def test_each_is_started_when_the_one_before_is_ready(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent of the first answers at the third look; a real socket listens for the second from then on."""
    lose(shop)
    asked: list[str] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        shop.group(
            "shop",
            {"machine": "lab:db", "ready": {"agent": True}},
            {"machine": "vc:app", "ready": {"tcp": f"127.0.0.1:{port}", "within": "2m"}},
            {"machine": "lab:web", "ready": {"delay": "0.01s"}},
        )

        def answers(self: FakeHypervisor, name: str) -> bool:
            asked.append(name)
            assert "app" not in shop.hypervisors["vc"].guests
            return len(asked) == 3

        looks: list[str] = []
        connects = readiness._connects

        def look(address: Address) -> str:
            if looks:
                server.listen()
            looks.append(connects(address))
            assert "web" not in shop.hypervisors["lab"].guests
            return looks[-1]

        monkeypatch.setattr(FakeHypervisor, "answers", answers)
        monkeypatch.setattr(readiness, "_connects", look)
        outcome = shop.vbackup("restore", "@shop@latest", "--start")
    assert outcome.code == 0, outcome.err
    assert asked == ["db"] * 3
    assert [bool(each) for each in looks] == [True, False]
    assert shop.hypervisors["lab"].started == ["db", "web"]
    assert "waiting until db is ready" in outcome.err


def test_one_that_does_not_get_ready_stops_the_rest_and_stays(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(shop)
    shop.group("shop", "lab:db", {"machine": "vc:app", "ready": {"agent": True, "within": "0.05s"}}, "lab:web")
    monkeypatch.setattr(FakeHypervisor, "answers", lambda self, name: False)
    outcome = shop.vbackup("--json", "restore", "@shop@latest", "--start")
    assert outcome.code == 1
    error = outcome.json["error"]
    assert "app is not ready after 0.05 s: its agent does not answer" in error["message"]
    assert "restored: db, app; not restored: web (" in error["message"]
    assert "go on with `vbackup restore ID`" in error["hint"]
    assert list(there(shop)) == ["lab:db", "vc:app"]
    assert shop.hypervisors["vc"].started == ["app"]


def test_the_last_one_is_waited_for_too(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(shop)
    shop.group("shop", "lab:db", "vc:app", {"machine": "lab:web", "ready": {"agent": True, "within": "0.05s"}})
    monkeypatch.setattr(FakeHypervisor, "answers", lambda self, name: False)
    outcome = shop.vbackup("restore", "@shop@latest", "--start")
    assert outcome.code == 1
    assert "group @shop is restored, but web is not ready" in outcome.err
    assert len(there(shop)) == 3


def waiting(answers: Callable[[], bool], stop: threading.Event | None = None) -> Waiting:
    class Hypervisor(FakeHypervisor):
        def answers(self, machine: str) -> bool:
            return answers()

    return Waiting(Hypervisor(), "db", stop or threading.Event())


def test_a_hypervisor_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PAUSE", 0.01)
    calls: list[int] = []

    def answers() -> bool:
        calls.append(1)
        if len(calls) < 3:
            raise Unavailable("the hypervisor is away")
        return True

    waiting(answers).until(Ready(agent=True))
    assert len(calls) == 3


def test_a_machine_without_an_agent_is_an_error_at_once() -> None:
    def answers() -> bool:
        raise Unsupported("db has no agent")

    with pytest.raises(Unsupported):
        waiting(answers).until(Ready(agent=True))


@pytest.mark.parametrize("ready", [{"agent": True, "within": "1h"}, {"delay": "1h"}])
def test_a_stop_ends_the_wait(ready: dict[str, Any]) -> None:
    stop, asked = threading.Event(), threading.Event()

    def answers() -> bool:
        asked.set()
        return False

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(waiting(answers, stop).until, Ready.model_validate(ready))
        if "agent" in ready:
            assert asked.wait(60)
        stop.set()
        with pytest.raises(Interrupted, match="the wait for db was stopped"):
            future.result()


def test_a_name_that_does_not_resolve_is_only_not_ready() -> None:
    with pytest.raises(Unavailable, match=r"db is not ready after 0.01 s: nowhere.invalid:80 does not answer \("):
        waiting(lambda: True).until(Ready.model_validate({"tcp": "nowhere.invalid:80", "within": "0.01s"}))


def test_memory_is_shown_apart_and_restored_as_asked(lab: Lab, tmp_path: Path) -> None:
    from vbackup.testing.hypervisors import FakeDisk

    lab.guests("lab:web")
    lab.hypervisors["lab"].guests["web"].memory = FakeDisk(bytearray(b"m" * 4096))
    lab.job("lab:*", memory="yes")
    assert lab.vbackup("run").code == 0
    (point,) = lab.vbackup("list", "--json").json
    assert (point["disks"], point["memory"]) == ([{"key": "vda", "size": 256 << 10}], {"size": 4096})
    assert lab.vbackup("list").out.splitlines()[0].split()[-1] == "MEMORY"
    assert "\nmemory         4.0 KiB: " in lab.vbackup("show", "web@latest").out
    for args, memory in (((), True), (("--no-memory",), False)):
        lab.hypervisors["lab"].guests.clear()
        assert lab.vbackup("restore", "web@latest", *args).code == 0
        assert (lab.hypervisors["lab"].guests["web"].memory is not None) is memory
    assert lab.vbackup("restore", "web@latest", "--disk", "memory=memory.bin", "--json").code == 0
    assert (tmp_path / "memory.bin").read_bytes() == b"m" * 4096
    dry = lab.vbackup("restore", "web@latest", "--disk", "memory=other.bin", "--dry-run")
    assert dry.out.endswith("to " + str(tmp_path / "other.bin") + ": memory of 4.0 KiB\n")
    assert not (tmp_path / "other.bin").exists()
    across = lab.vbackup("restore", "web@latest", "--to", "away", "--json")
    assert across.code == 3
    assert "only a hypervisor of type fake can go on from it" in json.loads(across.out)["notes"][0]
