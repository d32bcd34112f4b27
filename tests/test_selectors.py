"""Which machines are meant: names, folders, labels, and what is left out."""

from __future__ import annotations

import pytest

from tests.fakelab import Lab, by_machine, lab
from vbackup.api import ConfigError, MachineRef
from vbackup.jobs.selectors import examples, matches, names

__all__ = ["lab"]  # a fixture

WEB = MachineRef(
    "web1",
    "1",
    running=True,
    folder="/DC0/vm/prod/shop",
    labels=frozenset({("tag", "backup/daily"), ("Owner", "web team")}),
)
ODD = MachineRef("tag=odd", "2", running=False)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("web1", True),
        ("web*", True),
        ("WEB1", False),
        ("/DC0/vm/prod/shop/web1", True),
        ("/DC0/vm/prod/*", True),
        ("/DC0/*/web?", True),
        ("/DC0/vm/prod", False),
        ("/DC0/vm/prod/web1", False),
        ("DC0/vm/prod/*", False),
        ("tag=backup/daily", True),
        ("tag=backup/*", True),
        ("tag=backup", False),
        ("Owner=web*", True),
        ("owner=web*", False),
        ("Owner=", False),
        ("O*=web*", False),
    ],
)
def test_what_a_pattern_means(pattern: str, meant: bool) -> None:
    assert matches(WEB, pattern) is meant


def test_a_name_that_looks_like_a_label_is_meant_too() -> None:
    assert matches(ODD, "tag=odd")
    assert matches(ODD, "tag=*")
    assert not matches(ODD, "/*")


@pytest.mark.parametrize("text", ["web1", "vc:web1", "v*:web*", "tag=backup/daily", "vc:/DC0/*", "vc:Owner=web team"])
def test_what_the_command_line_means(text: str) -> None:
    assert names("vc", WEB, text)
    assert not names("lab", ODD, text)


def test_examples_are_few() -> None:
    many = [("vc", MachineRef(f"m{number}", str(number), running=True)) for number in range(9)]
    assert examples([]) == "there are no machines"
    assert examples(many) == "there are vc:m0, vc:m1, vc:m2, vc:m3, vc:m4, ..."
    assert examples([("vc", WEB)]) == (
        "there are vc:web1, vc:/DC0/vm/prod/shop/*, vc:Owner=web team, vc:tag=backup/daily"
    )


def labelled(lab: Lab) -> None:
    lab.guests("lab:web", "lab:db", "lab:scratch")
    for name, guest in lab.hypervisors["lab"].guests.items():
        guest.folder = "/vm/prod" if name != "scratch" else "/vm/test"
        guest.labels = frozenset({("tag", "backup/daily" if name == "web" else "backup/weekly")})


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["lab:/vm/prod/*"], ["lab:db", "lab:web"]),
        (["lab:tag=backup/daily"], ["lab:web"]),
        (["lab:*", "!lab:tag=backup/daily"], ["lab:db", "lab:scratch"]),
        (["lab:*", "!lab:/vm/test/*"], ["lab:db", "lab:web"]),
        (["lab:tag=*", "!lab:db"], ["lab:scratch", "lab:web"]),
    ],
)
def test_jobs_select_by_folder_and_label(lab: Lab, selectors: list[str], expected: list[str]) -> None:
    labelled(lab)
    lab.job(*selectors)
    assert sorted(by_machine(lab.run())) == expected


def test_the_command_line_selects_as_well(lab: Lab) -> None:
    labelled(lab)
    assert sorted(by_machine(lab.run("lab:tag=backup/weekly"))) == ["lab:db", "lab:scratch"]
    assert sorted(by_machine(lab.run("/vm/prod/*"))) == ["lab:db", "lab:web"]


def test_what_matches_nothing_is_told_what_there_is(lab: Lab) -> None:
    labelled(lab)
    lab.job("lab:tag=backup/hourly")
    with pytest.raises(ConfigError, match="job nightly matches no machine") as job:
        lab.run()
    assert "its selectors: lab:tag=backup/hourly; there are lab:web, lab:db, lab:scratch, " in job.value.hint
    assert "lab:tag=backup/daily, lab:tag=backup/weekly" in job.value.hint
    lab.job("lab:*")
    with pytest.raises(ConfigError, match="'lab:Owner=me' is no job, and no machine of a job matches it") as asked:
        lab.run("lab:Owner=me")
    assert "lab:/vm/prod/*" in asked.value.hint
