"""Machines are backed up, and their points listed, shown, verified, restored and deleted, for people and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.commandline import MIB, Outcome, Vbackup, configure, place, qemu, ready, vbackup, write

__all__ = ["place", "ready", "vbackup"]  # fixtures


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_machine_is_backed_up_listed_verified_restored_and_deleted(place: Path, vbackup: Vbackup) -> None:
    made = vbackup("init")
    assert made.code == 0
    assert "main" in made.out
    first = vbackup("run")
    assert first.code == 0
    assert "files:web: started\nfiles:web: done: " in first.err
    assert re.search(r"^MACHINE +READ +CHANGED +STORED +RATIO +TIME +WARNINGS$", first.out, re.MULTILINE)
    assert re.search(r"^files:web +4.0 MiB ", first.out, re.MULTILINE)
    write(place / "web.qcow2", pattern=8, offset=MIB, length=MIB)
    assert vbackup("run", "files:w*").code == 0

    listed = vbackup("list")
    assert listed.code == 0
    assert (
        len(re.findall(r"^[0-9a-f]{8} +files:web +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +main ", listed.out, re.MULTILINE))
        == 2
    )
    assert vbackup("list", "web").out == listed.out
    shown = vbackup("show", "web@latest")
    assert "machine        web on files (image)\n" in shown.out
    assert "read what changed" in shown.out
    verified = vbackup("verify")
    assert (verified.code, verified.out) == (0, "2 restore points, 32.0 MiB checked\n")

    restored = vbackup("restore", "web@latest", "--disk", "disk0=out.raw", "--format", "raw")
    assert restored.code == 0, restored.err
    qemu("img", "compare", "-f", "raw", "-F", "qcow2", "out.raw", "web.qcow2")

    deleted = vbackup("delete", "web@latest")
    assert deleted.code == 0
    assert re.match(r"deleted [0-9a-f]{32}: files:web of \S+Z\n$", deleted.out)
    assert len(vbackup("list", "--json").json) == 1


def test_a_restored_disk_that_exists_is_not_overwritten_unasked(place: Path, ready: Vbackup) -> None:
    (place / "out.raw").write_text("precious")
    refused = ready("restore", "web@latest", "--disk", "disk0=out.raw")
    assert refused.code == 1
    assert (place / "out.raw").read_text() == "precious"
    assert ready("restore", "web@latest", "--disk", "disk0=out.raw", "--overwrite").code == 0


def test_list_as_json(ready: Vbackup) -> None:
    outcome = ready("list", "--json")
    (point,) = outcome.json
    assert re.fullmatch(r"[0-9a-f]{32}", point.pop("id"))
    time = point.pop("time")
    assert time.endswith("Z")
    assert abs(datetime.fromisoformat(time) - datetime.now(UTC)) < timedelta(hours=1)
    assert isinstance(point.pop("stored"), int)
    assert point == {
        "machine": "web",
        "hypervisor": "files",
        "target": "main",
        "protected": False,
        "quiesced": False,
        "group": None,
        "together": None,
        "disks": [{"key": "disk0", "size": 16 * MIB}],
        "memory": None,
        "read": 4 * MIB,
        "changed": 4 * MIB,
        "warnings": [],
    }
    assert ready("--json", "list").out == outcome.out
    assert ready("--json", "list", "nobody").json == []
    assert "no restore points" in ready("list", "nobody").err


def test_show_verify_restore_and_delete_as_json(place: Path, ready: Vbackup) -> None:
    (point,) = ready("list", "--json").json
    shown = ready("show", point["id"][:8], "--json").json
    assert shown["id"] == point["id"]
    assert shown["disks"][0]["format"] == "qcow2"
    assert shown["description"]["name"] == "web"
    checked = ready("verify", "--json").json
    assert checked == {"points": [point["id"]], "bytes_checked": 16 * MIB, "damage": []}
    restored = ready("restore", "web@latest", "--disk", "disk0=out.qcow2", "--json").json
    assert restored["point"] == point["id"]
    assert restored["notes"] == []
    assert ready("delete", point["id"], "--json").json == [point]


def test_run_as_json_is_lines_of_events_and_a_report(ready: Vbackup) -> None:
    *events, report = lines(ready("run", "--json"))
    assert [events[0]["event"], events[-1]["event"]] == ["started", "finished"]
    who = {"job": "nightly", "hypervisor": "files", "machine": "web"}
    assert all(event | who == event for event in events)
    last = [event["disk"] for event in events if event["event"] == "progress"][-1]
    assert (last["key"], last["size"], last["done"]) == ("disk0", 16 * MIB, 16 * MIB)
    (machine,) = report["machines"]
    assert report["event"] == "report"
    assert (report["failed"], report["warnings"]) == (False, False)
    assert machine["point"] == events[-1]["point"]
    assert (machine["target"], machine["error"], machine["changed"]) == ("main", None, 0)


def test_one_machine_that_fails_stops_no_other_and_is_named(place: Path, ready: Vbackup) -> None:
    configure(place, web="web.qcow2", db="none.qcow2")
    outcome = ready("run")
    assert outcome.code == 1
    assert re.search(r"^vbackup: error: files:db: .*none.qcow2", outcome.err, re.MULTILINE)
    assert re.search(r"^files:db .* FAILED$", outcome.out, re.MULTILINE)
    assert re.search(r"^files:web .* 0$", outcome.out, re.MULTILINE)
    report = lines(ready("--json", "run"))[-1]
    errors = {machine["machine"]: machine["error"] for machine in report["machines"]}
    assert errors["web"] is None
    assert errors["db"]["kind"] == "not-found"
    assert len(ready("list", "web", "--json").json) == 3


def test_a_run_with_warnings_ends_with_three(place: Path, ready: Vbackup) -> None:
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "web.qcow2"]))
    for bitmap in info["format-specific"]["data"]["bitmaps"]:
        qemu("img", "bitmap", "--remove", "web.qcow2", bitmap["name"])
    outcome = ready("run")
    assert outcome.code == 3
    assert re.search(r"^vbackup: warning: files:web: disk disk0 was read in full: ", outcome.err, re.MULTILINE)
    assert re.search(r"^files:web .* 1$", outcome.out, re.MULTILINE)
    assert ready("list", "--json").json[-1]["warnings"]


def test_damage_is_told_and_ends_with_one(place: Path, ready: Vbackup) -> None:
    pack = max(
        (path for path in (place / "store/packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    outcome = ready("verify", "--json")
    assert outcome.code == 1
    assert outcome.json["damage"][0]["machine"] == "web"
    assert "is damaged: web disk0 at " in outcome.err
