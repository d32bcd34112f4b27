"""Groups that change, and clocks that do: which moments stay, and come back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakelab import Lab, lab
from vbackup.api import GuestError, Point, clock
from vbackup.config import GroupEntry
from vbackup.config.groups import Member
from vbackup.jobs.moments import moments
from vbackup.jobs.points import Found

__all__ = ["lab"]  # a fixture

SHOP = ("lab:db", "vc:app", "lab:web")


@pytest.fixture
def shop(lab: Lab) -> Lab:
    """A group whose job keeps the newest point of each machine; it was captured once."""
    lab.guests(*SHOP)
    lab.group("shop", *SHOP)
    lab.job("@shop", keep={"last": 1})
    assert not lab.run().failed
    return lab


def there(lab: Lab) -> dict[str, bytes]:
    """Return what is on the disks, by machine."""
    return {
        f"{alias}:{name}": bytes(guest.disks["vda"].data)
        for alias, hypervisor in lab.hypervisors.items()
        for name, guest in hypervisor.guests.items()
    }


def lose(lab: Lab) -> dict[str, bytes]:
    """Lose all machines; return what was on their disks."""
    lost = there(lab)
    for hypervisor in lab.hypervisors.values():
        hypervisor.guests.clear()
    return lost


def test_a_moment_from_before_the_group_was_changed_comes_back(shop: Lab) -> None:
    """Those that are in it now and were in it then; who else is told of."""
    (web,) = (point for point in shop.points() if point.machine == "web")
    lost = lose(shop)
    shop.group("shop", "lab:new", "vc:app", "lab:db")
    outcome = shop.vbackup("restore", "@shop@latest", "--json")
    assert outcome.code == 3, outcome.err
    assert [each["machine"] for each in outcome.json["machines"]] == ["app", "db"]
    joined, left = outcome.json["notes"]
    assert joined.startswith("lab:new was not in group @shop at ")
    assert left == f"lab:web is not in group @shop any more: it is not restored; its point is {web.id[:8]}"
    assert joined in outcome.err
    assert there(shop) == {name: data for name, data in lost.items() if name != "lab:web"}


def test_a_moment_of_other_machines_than_now_is_no_moment_of_the_group(shop: Lab) -> None:
    shop.group("shop", "lab:new")
    outcome = shop.vbackup("restore", "@shop@latest")
    assert outcome.code == 1
    assert "is in group @shop now" in outcome.err


def test_prune_leaves_the_last_common_moment_when_a_machine_joins(shop: Lab) -> None:
    """The new one cannot be captured yet, and from then on an old one fails, too."""
    (complete,) = {point.together for point in shop.points()}
    shop.group("shop", *SHOP, "lab:new")
    del shop.hypervisors["vc"].guests["app"]
    shop.run()
    shop.run()
    assert shop.vbackup("prune").code == 0
    assert [point.together for point in shop.points()].count(complete) == 3


def test_prune_leaves_the_moment_of_the_most_machines_when_none_is_complete(lab: Lab) -> None:
    lab.guests(*SHOP)
    lab.group("shop", *SHOP, "lab:new")
    lab.job("@shop", keep={"last": 1})
    lab.run()
    lab.run()
    newest = lab.points()[-1].together
    del lab.hypervisors["vc"].guests["app"]
    lab.run()
    lab.run()
    assert lab.vbackup("prune", "--dry-run").out.count("the moment of the most machines of group shop") == 3
    assert lab.vbackup("prune").code == 0
    left = [point.together for point in lab.points()]
    assert (len(left), left.count(newest)) == (5, 3)


def test_a_moment_from_the_future_does_not_stand_for_the_newest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One night the clock was ten years ahead."""
    lab.guests(*SHOP)
    lab.group("shop", *SHOP)
    lab.job("@shop", keep={"last": 1})
    now = clock.now
    with monkeypatch.context() as turned:
        turned.setattr(clock, "now", lambda: now() + timedelta(days=3650))
        lab.run()
    lab.run()
    (newest, future) = dict.fromkeys(point.together for point in lab.points())

    def refuse(name: str) -> None:
        raise GuestError("no snapshot today")

    lab.hypervisors["vc"].before_capture = refuse
    lab.run()
    lab.run()
    assert lab.vbackup("prune").code == 0
    left = [point.together for point in lab.points()]
    assert (left.count(newest), left.count(future)) == (3, 3)


def test_points_that_do_not_say_who_was_in_the_group_are_taken_for_those_of_now(shop: Lab) -> None:
    """They were made before points said so."""
    points = [Found("main", _old(point)) for point in shop.points() if point.machine != "app"]
    entry = GroupEntry(machines=tuple(Member(machine=machine) for machine in SHOP))
    (moment,) = moments(points, "shop", entry)
    assert moment.missing == ("vc:app",)
    entry = GroupEntry(machines=tuple(Member(machine=machine) for machine in SHOP if machine != "vc:app"))
    (moment,) = moments(points, "shop", entry)
    assert moment.missing == ()


def _old(point: Point) -> Point:
    return point.model_copy(update={"members": ()})
