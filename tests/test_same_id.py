"""Machines that have one id: they fail where they are meant, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.fakelab import Lab, by_machine, lab
from vbackup.api import ConfigError, MachineRef, Unavailable
from vbackup.jobs.listing import Listing
from vbackup.jobs.run import RunReport
from vbackup.jobs.select import select

__all__ = ["lab"]  # a fixture

TOLD = (
    "plugin 'fakes', hypervisor lab (type fake): it lists machines with the same id 'twin': twin-a, twin-b; their "
    "restore points could not be told apart"
)


def listed(lab: Lab, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[MachineRef]], list[MachineRef]]) -> None:
    """Change what ``lab`` lists."""
    original = lab.hypervisors["lab"].machines
    monkeypatch.setattr(lab.hypervisors["lab"], "machines", lambda: change(original()))


@pytest.fixture
def twins(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab.guests("lab:web", "lab:db", "lab:twin-a", "lab:twin-b", "vc:app")

    def alike(machines: list[MachineRef]) -> list[MachineRef]:
        return [replace(each, id="twin") if each.name.startswith("twin") else each for each in machines]

    listed(lab, monkeypatch, alike)
    return lab


def failed(report: RunReport) -> list[str]:
    return [f"{each.task.hypervisor}:{each.task.machine}" for each in report.results if each.error is not None]


def made(report: RunReport) -> list[str]:
    return sorted(name for name, each in by_machine(report).items() if each.point is not None)


def test_they_fail_once_each_with_the_name_of_the_plugin_and_the_others_are_backed_up(twins: Lab) -> None:
    twins.job("lab:*", "lab:twin-*")
    report = twins.run()
    assert failed(report) == ["lab:twin-a", "lab:twin-b"]
    assert made(report) == ["lab:db", "lab:web"]
    assert {each.error.message for each in report.results if each.error} == {TOLD}


def test_who_names_others_does_not_hear_of_them(twins: Lab) -> None:
    twins.config["jobs"]["weekly"] = {"machines": ["vc:*"], "target": "main", "quiesce": "no"}
    for names, expected in ((["web"], ["lab:web"]), (["app"], ["vc:app"]), (["weekly"], ["vc:app"])):
        report = twins.run(*names)
        assert failed(report) == []
        assert made(report) == expected


def test_who_names_one_of_them_hears_of_it(twins: Lab) -> None:
    report = twins.run("twin-a", "web")
    assert failed(report) == ["lab:twin-a"]
    assert made(report) == ["lab:web"]


def test_they_hide_no_typing_error(twins: Lab) -> None:
    twins.config["jobs"]["weekly"] = {"machines": ["vc:*"], "target": "main", "quiesce": "no"}
    for names in (["typo"], ["nightly", "typo"], ["weekly", "typo"], ["twin-a", "typo"]):
        with pytest.raises(ConfigError, match="'typo' is no job, and no machine of a job matches it"):
            twins.run(*names)
    twins.config["jobs"]["weekly"]["machines"] = ["vc:ap"]
    with pytest.raises(ConfigError, match="job weekly matches no machine"):
        twins.run()
    twins.config["jobs"] = {"weekly": twins.config["jobs"]["weekly"], "nightly": twins.config["jobs"]["nightly"]}
    with pytest.raises(ConfigError, match="job weekly matches no machine"):
        twins.run()


def test_a_job_of_them_alone_fails_for_them(twins: Lab) -> None:
    twins.job("lab:twin-*")
    report = twins.run()
    assert failed(report) == ["lab:twin-a", "lab:twin-b"]
    assert twins.points() == []


def test_what_a_job_leaves_out_does_not_fail(twins: Lab) -> None:
    twins.group("shop", "lab:web", "lab:twin-a")
    for machines in (["@shop", "!lab:twin-*"], ["@shop", "lab:*", "!lab:twin-*"], ["lab:*", "!lab:twin-?"]):
        twins.job(*machines)
        report = twins.run()
        assert failed(report) == []
        assert "lab:web" in made(report)
    twins.job("@shop", "!lab:twin-a")
    (result,) = twins.run().results
    assert result.warnings == ("group shop was captured without lab:twin-a: job nightly leaves it out",)


def test_one_in_a_group_fails_once_and_the_others_say_so(twins: Lab) -> None:
    twins.group("shop", "lab:web", "lab:db", "lab:twin-a")
    twins.job("@shop", "lab:*")
    report = twins.run()
    assert failed(report) == ["lab:twin-a", "lab:twin-b"]
    assert made(report) == ["lab:db", "lab:web"]
    assert by_machine(report)["lab:web"].warnings == (f"group shop was captured without lab:twin-a: {TOLD}",)


def test_one_in_a_group_is_named_alone_or_not(twins: Lab) -> None:
    twins.group("shop", "lab:web", "lab:twin-a")
    twins.job("@shop")
    assert failed(twins.run("web")) == []
    assert failed(twins.run("twin-a")) == ["lab:twin-a"]
    for names in (["@shop"], ["web", "twin-a"]):
        report = twins.run(*names)
        assert failed(report) == ["lab:twin-a"]
        assert made(report) == ["lab:web"]


def test_a_machine_that_is_listed_twice_is_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.guests("lab:web", "lab:db")
    listed(lab, monkeypatch, lambda machines: [*machines, replace(machines[0], running=False)])
    report = lab.run()
    assert failed(report) == []
    assert sorted(each.task.machine for each in report.results) == ["db", "web"]


def test_ids_are_gone_through_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each machine: there may be thousands."""
    looks = 0

    class Counting(list[MachineRef]):
        def __iter__(self) -> Any:
            nonlocal looks
            looks += 1
            return super().__iter__()

    machines = Counting(MachineRef(f"m{number}", str(number // 2), running=True) for number in range(100))
    with lab.site() as site:
        listing = Listing(site)
        monkeypatch.setattr(listing, "of", lambda alias: machines)
        unclear = [listing.unclear("lab", MachineRef(f"m{n}", str(n // 2), running=True)) for n in range(101)]
    assert all(unclear[:-1])
    assert unclear[-1] is None
    assert looks == 1


def test_a_hypervisor_that_is_away_still_excuses_names_that_nothing_matches(
    twins: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may be one of its."""

    def away() -> list[MachineRef]:
        raise Unavailable("vc is away")

    monkeypatch.setattr(twins.hypervisors["vc"], "machines", away)
    twins.job("lab:*", "vc:app", "vc:*", "vc:app")
    with twins.site() as site:
        selection = select(site, ["app"])
    assert [(task.machine, str(error)) for task, error in selection.failed.items()] == [
        ("app", "vc is away"),
        ("*", "vc is away"),
    ]
    assert selection.tasks == {}
