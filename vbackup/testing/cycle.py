"""Back up, change, back up, restore every point and compare it bit for bit: all by the real command.

For a transport or a codec with the machine of `vbackup.testing.images`; for a hypervisor with a machine of its own::

    rounds = run_cycle(site, "web", change=change, read=read)
    assert rounds[1].stored < rounds[0].stored / 2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vbackup.testing.equal import assert_equal
from vbackup.testing.site import Site

Read = Callable[[], Mapping[str, bytes]]
"""Returns what the machine's disks hold now, by their keys."""

WARNED = (0, 3)
"""The exit codes of a command that did all it was to do, with warnings or without."""


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the job as its restore point says, in bytes."""

    point: str
    """The point's id."""
    read: int
    """What was read of the machine: in the first round all that is data, later about what changed."""
    changed: int
    """What differs from the point before."""
    stored: int
    """What was added to the store."""
    warnings: tuple[str, ...]


def run_cycle(
    site: Site,
    machine: str,
    *,
    change: Callable[[int], None],
    read: Read,
    rounds: int = 3,
    job: str = "nightly",
    restored: Callable[[str], Mapping[str, bytes]] | None = None,
) -> list[Round]:
    """Prepare the job's target and run the job ``rounds`` times; then everything that was made must be right.

    ``change(number)`` changes the machine before each run but the first (numbers from 1), and ``read`` is asked for its
    disks before each run. Nothing else may change them. ``vbackup verify`` and ``check --read-data`` find nothing, and
    each point gives back the disks as they were, as raw files. With ``restored`` the newest and the oldest point are
    also put back as new machines, and it is asked, by their names, what those hold.

    Returns what each run came to. Raises: `AssertionError` naming the point, the disk and the first byte that differs;
    `CommandFailed` with all that a command printed.
    """
    site("init")
    copies: list[Mapping[str, bytes]] = []
    for number in range(rounds):
        if number:
            change(number)
        copies.append(read())
        site("run", job, code=WARNED)
    made = [_round(point) for point in site.json("list", machine)]
    assert len(made) == rounds, f"{rounds} runs were to make as many points of {machine}, and there are {len(made)}"
    site("verify")
    site("check", "--read-data")
    for each, copy in zip(made, copies, strict=True):
        _compare_files(site, each, copy)
    if restored is not None:
        for name, each, copy in (("cycle-newest", made[-1], copies[-1]), ("cycle-oldest", made[0], copies[0])):
            site("restore", each.point, "--as", name, code=WARNED)
            _compare(each, restored(name), copy)
    return made


def _round(point: Mapping[str, Any]) -> Round:
    return Round(point["id"], point["read"], point["changed"], point["stored"], tuple(point["warnings"]))


def _compare_files(site: Site, made: Round, copy: Mapping[str, bytes]) -> None:
    """Restore a point's disks as raw files beside the configuration, compare them and remove them."""
    paths = {key: site.directory / f"restored-{key}.raw" for key in copy}
    wanted = [f"--disk={key}={path}" for key, path in paths.items()]
    site("restore", made.point, *wanted, "--format", "raw", code=WARNED)
    _compare(made, {key: path.read_bytes() for key, path in paths.items()}, copy)
    for path in paths.values():
        path.unlink()


def _compare(made: Round, found: Mapping[str, bytes], copy: Mapping[str, bytes]) -> None:
    """Compare disk by disk, in their order: those of a new machine may have other keys."""
    for (key, data), expected in zip(found.items(), copy.values(), strict=True):
        assert_equal(f"point {made.point}, disk {key}, against what the machine had", data, expected)
