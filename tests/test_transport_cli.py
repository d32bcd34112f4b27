"""``vbackup transport test``: what works is said, no more is written than announced, and nothing is left."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.commandline import Vbackup, place, ready, vbackup
from tests.strange_stores import MIB, TRIALS, Strange, Trial, names, strange, verdicts
from vbackup.api.hypervisor import Buffer

__all__ = ["place", "ready", "strange", "vbackup"]  # fixtures


def test_a_good_store_is_told_and_left_as_it_was(place: Path, ready: Vbackup) -> None:
    """Beside a live repository, which is whole afterwards."""
    before = names(place / "store")
    outcome = ready("transport", "test", "disk", "--size", "64")
    assert outcome.code == 0, outcome.err
    assert list(verdicts(outcome)) == TRIALS
    assert {name for name, verdict in verdicts(outcome).items() if verdict != "ok"} == {
        "object lock",
        "durable on return",
    }
    assert "create-only put: 32 at once, 1 won: enforced\n" in outcome.out
    assert "large objects: 4 objects of 16 MiB come back" in outcome.out
    assert "disk: at most 88.0 MiB are written below trial/ and read back, then removed\n" in outcome.err
    assert re.search(r"^put of 16 MiB, 8 at once +[0-9.]+ +MiB/s$", outcome.out, re.MULTILINE)
    assert re.search(r"^put of 4 KiB +[0-9.]+ +ms$", outcome.out, re.MULTILINE)
    assert names(place / "store") == before
    assert ready("check", "--read-data").code == 0
    assert ready("run").code == 0
    assert ready("verify").code == 0


def test_no_more_is_written_than_was_announced(strange: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    put = Strange.put

    def count(self: Strange, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        sizes.append(memoryview(data).nbytes)
        put(self, key, data, if_absent=if_absent)

    monkeypatch.setattr(Strange, "put", count)
    outcome = strange(Strange)
    assert outcome.code == 0, outcome.err
    assert "at most 56.0 MiB are written" in outcome.err
    assert 32 * MIB <= sum(sizes) <= 56 * MIB


def test_as_json(strange: Trial) -> None:
    outcome = strange(Strange, "--json")
    assert outcome.code == 0
    told = outcome.json
    assert (told["transport"], told["whole"], told["left"]) == ("odd", True, [])
    assert [trial["name"] for trial in told["trials"]] == TRIALS
    assert {trial["verdict"] for trial in told["trials"]} == {"ok", "cannot"}
    assert all(speed["name"] and speed["unit"] and speed["value"] > 0 for speed in told["speeds"])
    assert len(told["speeds"]) == 10


def test_a_full_store_is_told_and_emptied(place: Path, vbackup: Vbackup) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "vbackup-test", place / "store"], check=True)
    try:
        outcome = vbackup("transport", "test", "disk", "--size", "32")
        assert outcome.code == 1
        assert re.search(r"^fails +large objects: no-space: .*\n +-> free some space", outcome.out, re.MULTILINE)
        assert names(place / "store") == []
    finally:
        subprocess.run(["umount", place / "store"], check=True)


def test_a_place_that_is_not_there_is_not_made(place: Path, vbackup: Vbackup) -> None:
    (place / "store").rmdir()
    outcome = vbackup("transport", "test", "disk")
    assert outcome.code == 1
    assert "is not there" in outcome.err
    assert not (place / "store").exists()
    assert verdicts(outcome) == {}


def test_a_transport_that_only_reads_is_not_written_to(place: Path, vbackup: Vbackup) -> None:
    config = json.loads((place / "vbackup.yaml").read_text())
    config["transports"]["disk"]["read_only"] = True
    (place / "vbackup.yaml").write_text(json.dumps(config))
    outcome = vbackup("transport", "test", "disk")
    assert outcome.code == 1
    assert verdicts(outcome) == {TRIALS[0]: "fails"}
    assert "is for reading only" in outcome.out
    assert list((place / "store").iterdir()) == []


@pytest.mark.parametrize("args", [("nobody",), (), ("disk", "--size", "16"), ("disk", "--size", "x")])
def test_wrong_arguments_end_with_two(place: Path, vbackup: Vbackup, args: tuple[str, ...]) -> None:
    outcome = vbackup("transport", "test", *args)
    assert outcome.code == 2
    assert "at most" not in outcome.err
    assert list((place / "store").iterdir()) == []
