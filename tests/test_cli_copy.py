"""``vbackup copy``, and what ``run`` and ``delete`` tell of copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.commandline import Vbackup, place, ready, vbackup

__all__ = ["place", "ready", "vbackup"]  # fixtures


def with_copies(place: Path, *copies: str) -> None:
    """Give the job of `commandline.configure` a second target."""
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    (place / "far").mkdir()
    config["transports"]["far"] = {"type": "local", "path": str(place / "far")}
    config["targets"]["offsite"] = {**config["targets"]["main"], "transport": "far"}
    config["targets"]["offsite"]["key"] = {"file": str(place / "offsite.key")}
    config["jobs"]["nightly"]["copies"] = list(copies)
    path.write_text(json.dumps(config))


def test_the_command_copies_tells_and_skips(place: Path, ready: Vbackup) -> None:
    with_copies(place)
    assert ready("init", "--keys-of", "main").code == 2
    assert ready("init", "offsite", "--keys-of", "main").code == 0
    (point,) = ready("list", "--json").json
    copied = ready("copy", "nightly", "--to", "offsite")
    assert copied.code == 0
    heading, row, total = copied.out.splitlines()
    assert heading.split() == ["ID", "MACHINE", "TIME", "FROM", "READ", "STORED", "OUTCOME"]
    assert row.split()[0] == point["id"][:8]
    assert row.split()[-1] == "copied"
    assert total.startswith("offsite: 1 restore points copied, 0 there already, 0 failed: ")
    assert f"files:web: done: {point['id']}" in copied.err
    again = ready("copy", "web@latest", "--to", "offsite", "--json").json
    assert again == {
        "target": "offsite", "copied": 0, "skipped": 1, "failed": 0, "read": 0, "stored": 0, "points": [],
        "notes": [], "error": None,
    }  # fmt: skip
    assert [each["target"] for each in ready("list", "--json").json] == ["main", "offsite"]
    shutil.rmtree(place / "store")
    assert ready("restore", "web@latest", "--disk", "disk0=again.raw", "--format", "raw").code == 0
    assert (place / "again.raw").read_bytes()[: 4 << 20] == b"\7" * (4 << 20)


def test_a_run_tells_of_its_copies_and_fails_with_them(place: Path, ready: Vbackup) -> None:
    with_copies(place, "offsite")
    failed = ready("run", "--json")
    assert failed.code == 1
    report = json.loads(failed.out.splitlines()[-1])
    assert report["failed"]
    assert report["machines"][0]["error"] is None
    (copies,) = report["copies"]
    assert (copies["job"], copies["target"], copies["error"]["kind"]) == ("nightly", "offsite", "not-found")
    assert "vbackup init offsite" in failed.err
    assert ready("init").code == 0
    made = ready("run")
    assert made.code == 0
    assert "nightly to offsite: 3 restore points copied, 0 there already, 0 failed" in made.out


def test_deleting_tells_where_from(place: Path, ready: Vbackup) -> None:
    with_copies(place, "offsite")
    assert ready("init").code == 0
    assert ready("run").code == 0
    deleted = ready("delete", "web@latest")
    assert " from main, offsite: files:web of " in deleted.out
    kept = ready("list", "--json").json
    assert ready("delete", "web@latest", "--target", "offsite", "--json").json == [kept[-1]]
    assert ready("protect", "web@latest").code == 0
    refused = ready("delete", "web@latest")
    assert refused.code == 2
    assert "vbackup unprotect" in refused.err
