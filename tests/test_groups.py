"""Groups: captured together, whatever happens to one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.fakelab import Lab, by_machine, lab
from tests.support import guest, noise
from vbackup.api import CaptureLost, ConfigError, GuestError, JobFinished, Unavailable, hookimpl
from vbackup.engine import together
from vbackup.jobs import run as running
from vbackup.jobs.run import run

__all__ = ["lab"]  # a fixture

SHOP = ("lab:db", "vc:app", "lab:web")


@pytest.fixture
def shop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(running, "_PAUSE_SECONDS", 0.0)
    lab.guests(*SHOP, "lab:alone")
    lab.group("shop", *SHOP)
    lab.job("@shop", "lab:*")
    return lab


def captures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets, in order, who comes to the capture and who is captured."""
    seen: list[str] = []
    for hypervisor in lab.hypervisors.values():
        original = hypervisor.capture

        @contextmanager
        def capture(machine: str, request: Any, original: Any = original) -> Iterator[Any]:
            with original(machine, request) as made:
                seen.append(f"captured {machine}")
                yield made

        hypervisor.before_capture = lambda name: seen.append(f"ready {name}")
        monkeypatch.setattr(hypervisor, "capture", capture)
    return seen


def test_all_are_ready_before_one_is_captured_and_their_points_say_so(
    shop: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.job("@shop", parallel=1)
    seen = captures(shop, monkeypatch)
    report = shop.run()
    assert not report.failed
    assert not report.warnings
    assert [each.split()[0] for each in seen] == ["ready"] * 3 + ["captured"] * 3
    points = shop.points()
    assert {f"{point.hypervisor}:{point.machine}" for point in points} == set(SHOP)
    assert {point.group for point in points} == {"shop"}
    (moment,) = {point.together for point in points}
    assert len(moment) == 32
    assert {point.members for point in points} == {tuple(sorted(SHOP))}
    shop.run()
    assert len({point.together for point in shop.points()}) == 2


def test_a_machine_is_captured_once_and_others_as_ever(shop: Lab) -> None:
    report = shop.run()
    assert sorted(by_machine(report)) == ["lab:alone", "lab:db", "lab:web", "vc:app"]
    (alone,) = (point for point in shop.points() if point.machine == "alone")
    assert (alone.group, alone.together) == ("", "")


def test_a_group_is_run_by_its_name(shop: Lab) -> None:
    assert sorted(by_machine(shop.run("@shop"))) == sorted(SHOP)
    assert {point.together for point in shop.points()} != {""}
    with pytest.raises(ConfigError, match="no job has '@shup' among its machines") as unknown:
        shop.run("@shup")
    assert unknown.value.hint == "groups: @shop"


def test_a_machine_of_a_group_is_run_alone_when_it_alone_is_meant(shop: Lab) -> None:
    assert list(by_machine(shop.run("lab:db"))) == ["lab:db"]
    (point,) = shop.points()
    assert (point.group, point.together) == ("", "")
    assert sorted(by_machine(shop.run("lab:db", "lab:web", "vc:app"))) == sorted(SHOP)
    assert len({point.together for point in shop.points()} - {""}) == 1


def test_one_that_fails_fails_alone_and_the_others_say_so(shop: Lab) -> None:
    def refuse(name: str) -> None:
        if name == "app":
            raise GuestError("app: the snapshot failed")

    shop.hypervisors["vc"].before_capture = refuse
    results = by_machine(shop.run("@shop"))
    assert isinstance(results["vc:app"].error, GuestError)
    for name in ("lab:db", "lab:web"):
        assert results[name].error is None
        assert results[name].warnings == ("group shop was captured without vc:app: app: the snapshot failed",)
    assert len({point.together for point in shop.points()}) == 1


def test_one_that_fails_while_it_is_copied_is_told_at_the_others(shop: Lab) -> None:
    shop.guests("vc:app")
    shop.hypervisors["vc"].fail_reads = 1

    def fail_again(name: str) -> None:
        shop.hypervisors["vc"].fail_reads = 1

    shop.hypervisors["vc"].before_capture = fail_again
    results = by_machine(shop.run("@shop"))
    assert isinstance(results["vc:app"].error, CaptureLost)
    for name in ("lab:db", "lab:web"):
        (warning,) = results[name].warnings
        assert warning.startswith("group shop was captured without vc:app: ")


def test_one_that_is_captured_again_is_not_together_with_the_others(shop: Lab) -> None:
    shop.hypervisors["vc"].fail_reads = 1
    results = by_machine(shop.run("@shop"))
    assert all(result.error is None for result in results.values())
    app = results["vc:app"].point
    assert app is not None
    assert (app.group, app.together) == ("shop", "")
    why = "its first capture failed after the others were made"
    assert app.warnings == (f"captured apart from the rest of group shop, of another moment: {why}",)
    assert "group shop was captured without vc:app" in results["lab:db"].warnings[0]
    assert len({point.together for point in shop.points()} - {""}) == 1


def test_one_whose_snapshot_is_made_long_after_is_not_together_with_the_others(
    shop: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready with the others, but another program's job holds it up then."""
    original = shop.hypervisors["vc"].capture

    @contextmanager
    def capture(machine: str, request: Any) -> Iterator[Any]:
        with original(machine, request) as made:
            made.time += timedelta(seconds=together.LATEST + 30)
            yield made

    monkeypatch.setattr(shop.hypervisors["vc"], "capture", capture)
    results = by_machine(shop.run("@shop"))
    late = results["vc:app"].point
    assert late is not None
    assert (late.group, late.together) == ("shop", "")
    assert "captured apart from the rest of group shop" in late.warnings[0]
    for name in ("lab:db", "lab:web"):
        assert "group shop was captured without vc:app" in results[name].warnings[0]
    assert shop.vbackup("restore", "@shop@latest", "--as", "*-copy").code == 1


def test_one_that_takes_too_long_is_not_waited_for(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GROUP_SECONDS", 0.05)
    others = threading.Event()

    def wait_for_the_others(name: str) -> None:
        assert others.wait(60)

    class Listener:
        @hookimpl
        def vbackup_job_finished(self, event: JobFinished) -> None:
            others.set()

    shop.hypervisors["vc"].before_capture = wait_for_the_others
    with shop.site() as site:
        site.registry.register(Listener(), "listener")
        results = by_machine(run(site, ["@shop"]))
    late = results["vc:app"].point
    assert late is not None
    assert late.together == ""
    assert "it was not ready within 0.05 s" in late.warnings[0]
    for name in ("lab:db", "lab:web"):
        assert "group shop was captured without vc:app: it was not ready" in results[name].warnings[0]


def test_a_hypervisor_that_is_away_fails_its_machines_only(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[Any]:
        raise Unavailable("vc is away")

    monkeypatch.setattr(shop.hypervisors["vc"], "machines", away)
    results = by_machine(shop.run("@shop"))
    assert isinstance(results["vc:app"].error, Unavailable)
    assert results["lab:db"].warnings == ("group shop was captured without vc:app: vc is away",)


def test_a_plugin_that_does_what_none_should_fails_its_machines_only(
    shop: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.hypervisors["vc"], "machines", lambda: None)
    results = by_machine(shop.run())
    assert "hypervisor vc (type fake): machines gave nothing (None)" in str(results["vc:app"].error)
    assert sorted(name for name, result in results.items() if result.point) == ["lab:alone", "lab:db", "lab:web"]

    def sweep(owner: str) -> list[str]:
        raise KeyError(owner)

    monkeypatch.setattr(shop.hypervisors["lab"], "sweep", sweep)
    assert by_machine(shop.run("lab:alone"))["lab:alone"].error is None


def test_a_machine_that_is_not_there_fails_and_the_others_are_captured(shop: Lab) -> None:
    del shop.hypervisors["vc"].guests["app"]
    results = by_machine(shop.run("@shop"))
    assert "group shop: there is no machine 'app' on vc" in str(results["vc:app"].error)
    assert results["lab:db"].point is not None
    assert not shop.run("lab:alone").failed


def test_what_a_job_leaves_out_is_left_out_of_groups_too(shop: Lab) -> None:
    shop.job("@shop", "!lab:web")
    results = by_machine(shop.run())
    assert sorted(results) == ["lab:db", "vc:app"]
    assert results["lab:db"].warnings == ("group shop was captured without lab:web: job nightly leaves it out",)
    shop.job("lab:*", "!@shop")
    assert list(by_machine(shop.run())) == ["lab:alone"]


def test_all_are_captured_though_few_are_copied_at_once(shop: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``parallel: 1``, and a group as the only task: never two of them are read at a time."""
    shop.job("@shop", parallel=1)
    for number, name in enumerate(SHOP):
        alias, _, machine = name.partition(":")
        guest(shop.hypervisors[alias], machine, noise(1 << 20, number))
    reading: list[str] = []
    most: list[int] = []
    original = together.Member.turn

    @contextmanager
    def turn(self: Any) -> Iterator[None]:
        with original(self):
            reading.append(self._machine)
            most.append(len(reading))
            yield
            reading.remove(self._machine)

    monkeypatch.setattr(together.Member, "turn", turn)
    assert not shop.run().failed
    assert most == [1, 1, 1]


def test_a_run_that_is_stopped_waits_for_nobody(shop: Lab) -> None:
    with shop.site() as site:

        def stop(name: str) -> None:
            site.stop.set()
            raise Unavailable("gone", transient=False)

        shop.hypervisors["vc"].before_capture = stop
        with pytest.raises(Exception, match="stopped"):
            run(site, ["@shop"])
    assert shop.hypervisors["lab"].open_captures == 0


def test_prune_leaves_the_newest_complete_moment_whole(shop: Lab) -> None:
    """One machine fails night after night: what the others have made since is no moment of the group."""
    shop.job("@shop", keep={"last": 1})
    shop.run()
    (complete,) = {point.together for point in shop.points()}

    def refuse(name: str) -> None:
        raise GuestError("no snapshot today")

    shop.hypervisors["vc"].before_capture = refuse
    for _ in range(2):
        shop.run()
    assert len(shop.points()) == 7
    assert shop.vbackup("prune", "--dry-run").out.count("the newest complete moment of group shop") == 3
    assert shop.vbackup("prune").code == 0
    left = shop.points()
    assert len(left) == 5
    assert [point.together for point in left].count(complete) == 3
    shop.hypervisors["vc"].before_capture = lambda _: None
    shop.run()
    assert shop.vbackup("prune").code == 0
    assert len({point.together for point in shop.points()}) == 1


def test_it_is_listed_and_shown(shop: Lab) -> None:
    assert shop.vbackup("run", "@shop").code == 0
    listed = shop.vbackup("list")
    assert listed.out.splitlines()[0].split()[-1] == "GROUP"
    assert all(line.rstrip().endswith(" shop") for line in listed.out.splitlines()[1:])
    assert shop.vbackup("list", "@shop").out == listed.out
    assert shop.vbackup("list", "@other", "--json").json == []
    records = shop.vbackup("list", "--json").json
    assert {record["group"] for record in records} == {"shop"}
    assert len({record["together"] for record in records}) == 1
    shown = shop.vbackup("show", "lab:db@latest")
    assert "\ngroup          shop\n" in shown.out
    assert shown.out.count("               with ") == 2
    (other, _) = shop.vbackup("show", "lab:db@latest", "--json").json["captured_with"]
    assert other["machine"] in SHOP


def test_without_groups_the_list_has_no_column_for_them(shop: Lab) -> None:
    shop.job("lab:*")
    shop.config.pop("groups")
    assert shop.vbackup("run").code == 0
    assert "GROUP" not in shop.vbackup("list").out
