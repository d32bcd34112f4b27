"""The command line, on real images in a real repository."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

from vbackup import __version__
from vbackup.api import Damage, GuestError, PruneOrder, PruneReport, Unavailable
from vbackup.cli import output
from vbackup.cli.main import COMMANDS, execute
from vbackup.jobs.prune import PruneOutcome, TargetResult

MIB = 1 << 20
VBACKUP = (sys.executable, "-c", "from vbackup.cli.main import main; main()")


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Vbackup = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration and an image of a machine, current for the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VBACKUP_CONFIG", raising=False)
    monkeypatch.setattr("vbackup.config.loader.SYSTEM", tmp_path / "no-such-file")
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VBACKUP_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    qemu("img", "create", "-q", "-f", "qcow2", "web.qcow2", "16M")
    write(tmp_path / "web.qcow2", pattern=7, offset=0, length=4 * MIB)
    configure(tmp_path, web="web.qcow2")
    return tmp_path


@pytest.fixture
def vbackup(place: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Vbackup]:
    """Runs a command line in this process."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = execute(args)
        return Outcome(code, *capsys.readouterr())

    yield run
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def ready(vbackup: Vbackup) -> Vbackup:
    """The same, with the target initialised and one restore point made."""
    assert vbackup("init").code == 0
    assert vbackup("run").code == 0
    return vbackup


def qemu(tool: str, *args: str) -> None:
    subprocess.run([f"qemu-{tool}", *args], check=True, capture_output=True)


def write(image: Path, *, pattern: int, offset: int, length: int) -> None:
    qemu("io", "-f", "qcow2", "-c", f"write -P {pattern} {offset} {length}", str(image))


def configure(place: Path, **machines: str) -> None:
    images = {name: [{"path": str(place / image), "format": "qcow2"}] for name, image in machines.items()}
    config = {
        "hypervisors": {"files": {"type": "image", "machines": images}},
        "transports": {"disk": {"type": "local", "path": str(place / "store")}},
        "targets": {"main": {"type": "repository", "transport": "disk", "key": {"file": str(place / "main.key")}}},
        "jobs": {"nightly": {"machines": ["files:*"], "target": "main", "quiesce": "no"}},
    }
    (place / "vbackup.yaml").write_text(json.dumps(config))  # JSON is YAML


def keep(place: Path, **rules: int) -> None:
    """Give the job of `configure` rules."""
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    config["jobs"]["nightly"]["keep"] = rules
    path.write_text(json.dumps(config))


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


def test_prune_explains_point_by_point_and_deletes_what_no_rule_keeps(place: Path, ready: Vbackup) -> None:
    assert ready("run").code == 0
    old, new = (point["id"] for point in ready("list", "--json").json)
    keep(place, last=1, daily=0)
    dry = ready("prune", "--dry-run")
    assert dry.code == 0, dry.err
    about = r" +files:web +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +main +nightly +"
    assert re.search(rf"^{old[:8]}{about}goes +no rule keeps it$", dry.out, re.MULTILINE)
    assert re.search(rf"^{new[:8]}{about}stays +last 1 of 1; the machine's newest$", dry.out, re.MULTILINE)
    amounts = "[0-9.]+ [KM]?i?B"
    totals = rf"{amounts} freed, {amounts} rewritten, {amounts} waiting, {amounts} stored\n"
    assert re.search(rf"^main: 1 restore points would be deleted: {totals}\Z", dry.out, re.MULTILINE)
    assert len(ready("list", "--json").json) == 2

    pruned = ready("prune", "nightly")
    assert pruned.code == 0, pruned.err
    deleted = rf"deleted {old}: files:web of \S+Z: no rule keeps it\n"
    assert re.fullmatch(rf"{deleted}main: 1 restore points deleted: {totals}", pruned.out)
    assert [point["id"] for point in ready("list", "--json").json] == [new]
    assert ready("prune").out.startswith("main: 0 restore points deleted: ")
    assert ready("verify").code == 0


def test_prune_as_json(place: Path, ready: Vbackup) -> None:
    assert ready("run").code == 0
    old, new = ready("list", "--json").json
    keep(place, last=1)
    dry = ready("prune", "--dry-run", "--json").json
    (target,) = dry["targets"]
    known = {key: old[key] for key in ("id", "machine", "hypervisor", "time")} | {"job": "nightly"}
    assert dry["dry_run"] is True
    assert target["points"] == [
        known | {"kept": False, "reasons": ["no rule keeps it"]},
        known
        | {"id": new["id"], "time": new["time"], "kept": True, "reasons": ["last 1 of 1", "the machine's newest"]},
    ]
    assert (target["target"], target["damaged"], target["error"]) == ("main", [], None)
    assert all(isinstance(target[key], int) for key in ("freed", "rewritten", "waiting", "stored"))
    done = ready("prune", "--json").json
    assert done["dry_run"] is False
    assert done["targets"][0]["points"] == target["points"]
    assert ready("list", "--json").json == [new]


def test_a_job_without_rules_loses_nothing(ready: Vbackup) -> None:
    assert ready("run").code == 0
    assert ready("prune").code == 0
    assert len(ready("list", "--json").json) == 2
    assert len(re.findall("stays +the job has no keep rules$", ready("prune", "--dry-run").out, re.MULTILINE)) == 2


def test_a_protected_point_stays_and_is_marked_until_it_is_not(place: Path, ready: Vbackup) -> None:
    assert ready("run").code == 0
    old, new = (point["id"] for point in ready("list", "--json").json)
    keep(place, last=1)
    done = ready("protect", old[:12], "--reason", "before\nthe migration")
    assert done.code == 0, done.err
    assert re.fullmatch(rf"protected {old} in main: web of \S+Z\n", done.out)
    assert [point["protected"] for point in ready("list", "--json").json] == [True, False]
    assert len(re.findall(r" yes$", ready("list").out, re.MULTILINE)) == 1
    assert "\nprotected      before the migration\n" in ready("show", old).out
    shown = ready("show", old, "--json").json
    assert (shown["protected"], shown["protected_reason"]) == (True, "before the migration")
    assert "protected" not in ready("show", new).out
    assert re.search(r" stays +protected: before the migration$", ready("prune", "--dry-run").out, re.MULTILINE)
    assert ready("prune").code == 0
    assert len(ready("list", "--json").json) == 2

    undone = ready("unprotect", old, "--json").json
    assert [(point["id"], point["protected"]) for point in undone] == [(old, False)]
    assert ready("prune").code == 0
    assert [point["id"] for point in ready("list", "--json").json] == [new]


def test_protect_looks_up_all_names_first(ready: Vbackup) -> None:
    outcome = ready("protect", "web@latest", "nobody@latest")
    assert outcome.code == 1
    assert "no restore point of nobody" in outcome.err
    assert [point["protected"] for point in ready("list", "--json").json] == [False]


def test_an_unknown_job_is_not_pruned(ready: Vbackup) -> None:
    outcome = ready("prune", "nihgtly")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "vbackup: error: there is no job named 'nihgtly'\nhint: configured: nightly\n"


@pytest.mark.parametrize(
    ("args", "order"),
    [
        ((), PruneOrder()),
        (("--dry-run",), PruneOrder(dry_run=True)),
        (("--end-silent",), PruneOrder(end_silent=True)),
        (("--rewrite", "0"), PruneOrder(rewrite=0)),
        (("--rewrite", "700B"), PruneOrder(rewrite=700)),
        (("--rewrite", "500m"), PruneOrder(rewrite=500 * MIB)),
        (("--rewrite", "1.5 GiB"), PruneOrder(rewrite=1536 * MIB)),
    ],
)
def test_how_to_prune_is_passed_on(
    vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], order: PruneOrder
) -> None:
    orders: list[PruneOrder] = []

    def prune(site: object, names: tuple[str, ...], order: PruneOrder) -> PruneOutcome:
        orders.append(order)
        return PruneOutcome(order.dry_run, ())

    monkeypatch.setattr("vbackup.jobs.prune.prune", prune)
    assert vbackup("prune", *args).code == 0
    assert orders == [order]


GONE = TargetResult("main", error=Unavailable("the store is away", hint="wait"))
SPACE = PruneReport(freed=1, waiting=MIB)


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        (TargetResult("main", space=SPACE), 0, ""),
        (
            TargetResult("main", space=PruneReport(notes=("a session was ended",))),
            3,
            "vbackup: warning: main: a session was ended\n",
        ),
        (
            TargetResult("main", damaged=(Damage("ab" * 16, "", "", 0, 0, "it is cut short"),), space=SPACE),
            3,
            f"vbackup: warning: restore point {'ab' * 16} in main cannot be read: it is cut short\n",
        ),
        (GONE, 1, "vbackup: error: main: the store is away\nhint: wait\n"),
    ],
)
def test_how_prune_ended_is_told_by_its_exit_code(
    vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch, result: TargetResult, code: int, said: str
) -> None:
    monkeypatch.setattr("vbackup.jobs.prune.prune", lambda *args: PruneOutcome(False, (result,)))
    outcome = vbackup("prune")
    assert (outcome.code, outcome.err) == (code, said)
    as_json = vbackup("prune", "--json")
    assert (as_json.code, as_json.err) == (code, said)
    (target,) = as_json.json["targets"]
    error = {"kind": "unavailable", "message": "the store is away", "hint": "wait"}
    assert target["error"] == (error if result.error else None)


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


USAGE = {
    "no such command": (("lst",), "No such command 'lst'. Did you mean 'list'?"),
    "no such option": (("list", "--jsn"), "No such option '--jsn'. Did you mean '--json'?"),
    "missing argument": (("show",), "Missing argument 'POINT'."),
    "one argument too many": (("list", "a", "b"), "unexpected extra argument"),
    "disk without a path": (("restore", "x", "--disk", "vda"), "'vda' is not KEY=PATH"),
    "disk twice": (("restore", "x", "--disk", "a=1", "--disk", "a=2"), "'a' is there twice."),
    "unknown format": (("restore", "x", "--format", "vmdk"), "'vmdk' is not one of 'raw', 'qcow2'"),
    "nothing to delete": (("delete",), "Missing argument 'POINT ...'."),
    "nothing to protect": (("protect", "--reason", "x"), "Missing argument 'POINT ...'."),
    "nothing to unprotect": (("unprotect",), "Missing argument 'POINT ...'."),
    "no size": (("prune", "--rewrite", "5 apples"), "'5 apples' is not a size, as in 500M or 1.5GiB."),
    "size in powers of ten": (("prune", "--rewrite", "5GB"), "'5GB' is not a size"),
    "negative size": (("prune", "--rewrite", "-1"), "'-1' is not a size"),
}


@pytest.mark.parametrize(("args", "message"), USAGE.values(), ids=USAGE)
def test_wrong_usage_ends_with_two(vbackup: Vbackup, args: tuple[str, ...], message: str) -> None:
    outcome = vbackup(*args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    as_json = vbackup("--json", *args)
    assert as_json.code == 2
    assert as_json.json["error"]["kind"] == "usage"
    assert message in as_json.json["error"]["message"]


def test_nothing_at_all_shows_the_help(vbackup: Vbackup) -> None:
    outcome = vbackup()
    assert outcome.code == 2
    assert all(f"\n  {name} " in outcome.err for name in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("run",),
        ("init",),
        ("restore", "a@latest"),
        ("verify",),
        ("delete", "x"),
        ("prune",),
        ("protect", "x"),
    ],
)
def test_a_wrong_configuration_ends_with_two_and_a_line_for_each_mistake(
    place: Path, vbackup: Vbackup, args: tuple[str, ...]
) -> None:
    (place / "vbackup.yaml").write_text("transports: {}\njobz: {}\ntarget: {}\n")
    outcome = vbackup(*args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "vbackup: error: vbackup.yaml:2:1: jobz: unknown key; did you mean 'jobs'?\n"
        "vbackup: error: vbackup.yaml:3:1: target: unknown key; did you mean 'targets'?\n"
    )
    error = vbackup(*args, "--json").json["error"]
    assert error["kind"] == "config"
    assert len(error["message"].splitlines()) == 2


def test_no_configuration_says_where_it_was_looked_for(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").unlink()
    outcome = vbackup("list")
    assert outcome.code == 2
    assert "there is no configuration: neither ./vbackup.yaml nor " in outcome.err
    assert "\nhint: Name one with -c FILE" in outcome.err
    assert "there is no configuration file other.yaml" in vbackup("-c", "other.yaml", "list").err


def test_what_is_not_there_ends_with_one(ready: Vbackup) -> None:
    outcome = ready("show", "nobody@latest")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("vbackup: error: ")
    assert ready("show", "nobody@latest", "--json").json["error"]["kind"] == "not-found"


def test_names_that_match_nothing_end_with_two(ready: Vbackup) -> None:
    outcome = ready("run", "weekly")
    assert outcome.code == 2
    assert "'weekly'" in outcome.err


def test_no_error_ends_in_a_traceback_unless_asked(ready: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_(*args: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr("vbackup.jobs.points.survey", break_)
    outcome = ready("list")
    assert outcome.code == 1
    assert outcome.err.startswith("vbackup: error: ZeroDivisionError: of the test\nhint: This is a fault of vbackup")
    assert ready("--json", "list").json["error"]["kind"] == "internal"
    monkeypatch.setenv("VBACKUP_DEBUG", "1")
    assert "Traceback (most recent call last)" in ready("list").err


def test_nothing_that_a_terminal_would_obey_is_printed(place: Path, ready: Vbackup) -> None:
    hostile = "web\x9b31m\u202e\u2028"
    configure(place, **{hostile: "web.qcow2"})
    outcomes = [ready("run"), ready("list"), ready("show", f"{hostile}@latest"), ready("show", "x\x1b[2J\r@latest")]
    outcomes += [ready("delete", f"{hostile}@latest"), ready(f"\x1b]0;title\x07{hostile}")]
    for outcome in outcomes:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", outcome.out + outcome.err), outcome
    assert r"web\x9b31m\u202e\u2028" in outcomes[1].out
    assert r"x\x1b[2J\r" in outcomes[3].err
    assert ready("run", "--json").out.isascii()


def test_the_help_is_quick_as_it_imports_nothing_heavy() -> None:
    program = """
        import sys
        from vbackup.cli.main import execute
        assert execute(["--help"]) == 0
        heavy = {"pydantic", "rich", "pluggy", "ruamel.yaml", "vbackup.api", "vbackup.registry", "vbackup.config"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exit codes: 0 all done" in done.stdout


def test_version(vbackup: Vbackup) -> None:
    assert vbackup("--version") == (0, f"vbackup {__version__}\n", "")


def test_every_command_has_help(vbackup: Vbackup) -> None:
    for name in COMMANDS:
        outcome = vbackup(name, "--help")
        assert outcome.code == 0
        assert "--json" in outcome.out


PATH = {
    "key": "path",
    "type": "path",
    "required": True,
    "default": None,
    "meaning": "an absolute path; `vbackup init` makes the last directory of it",
}


def test_plugins_are_listed(vbackup: Vbackup) -> None:
    listed = {plugin["name"]: plugin for plugin in vbackup("plugins", "--json").json}
    assert listed["local"] == {
        "name": "local",
        "origin": "vbackup",
        "version": __version__,
        "module": "vbackup_local",
        "builtin": True,
        "status": "ok",
        "error": "",
        "api_version": None,
        "waits": False,
        "hooks": ["vbackup_register_transports"],
        "roles": {"transports": ["local"]},
        "options": {"transports": {"local": [PATH]}},
    }
    assert re.search(r"^local +built-in +ok +transports: local$", vbackup("plugins").out, re.MULTILINE)


def test_the_schema_is_printed(vbackup: Vbackup) -> None:
    assert vbackup("schema").json["title"] == "vbackup configuration"


def test_doctor_needs_no_configuration(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").unlink()
    findings = vbackup("doctor", "--json").json
    assert findings[0]["what"] == "configuration"
    assert findings[0]["level"] == "ok"
    assert any(finding["what"] == "Python" for finding in findings)


def test_doctor_tells_of_mistakes_in_the_configuration_and_goes_on(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").write_text("jobz: {}\n")
    outcome = vbackup("doctor")
    assert outcome.code == 1
    assert "error    configuration: vbackup.yaml:1:1: jobz: unknown key" in outcome.out
    assert "Python: " in outcome.out


def test_doctor_tells_what_is_wrong_by_its_exit_code(place: Path, ready: Vbackup) -> None:
    levels = {finding["level"] for finding in ready("doctor", "--json").json if "free space" not in finding["what"]}
    assert levels == {"ok"}
    (place / "main.key").chmod(0o644)
    outcome = ready("doctor")
    assert outcome.code == 3
    assert f"{'':8} -> chmod 600 {place}/main.key\n" in outcome.out
    (place / "store").rename(place / "elsewhere")
    assert ready("doctor").code == 1


def test_a_reader_that_goes_away_is_no_error(ready: Vbackup) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*VBACKUP, "run", "--json"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ready("list", "--json").json) == 2


WAITING_PLUGIN = r"""
    import os
    from vbackup.api import hookimpl

    @hookimpl
    def vbackup_job_started(event):
        os.write(2, b"waiting\n")
        with open(os.environ["TEST_GO_ON"]):
            pass
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly(
    place: Path, ready: Vbackup, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """A third-party plugin holds the run up at a known moment: opening a FIFO waits for its writer."""
    info = place / "plugins" / "waiting-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vbackup]\nwaiting = waiting_plugin\n")
    (place / "plugins" / "waiting_plugin.py").write_text(dedent(WAITING_PLUGIN))
    go_on = place / "go-on"
    os.mkfifo(go_on)
    environment = os.environ | {"PYTHONPATH": str(place / "plugins"), "TEST_GO_ON": str(go_on)}
    with subprocess.Popen(
        [*VBACKUP, "--json", "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "waiting\n"
            process.send_signal(number)
            assert process.stderr.readline() == "vbackup: stopping; undoing what was begun\n"
            process.send_signal(number)
            assert process.stderr.readline() == "vbackup: still undoing what was begun\n"
            go_on.write_bytes(b"")
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["error"]["kind"] == "interrupted"
    assert len(ready("list", "--json").json) == 1
    assert ready("run").code == 0


def test_a_terminal_gets_a_line_when_a_machine_is_done(ready: Vbackup) -> None:
    assert "files:web: done: " in on_a_terminal(*VBACKUP, "run")


def test_a_terminal_gets_a_line_for_each_disk_with_what_was_skipped() -> None:
    program = """
        from vbackup.api import DiskProgress, JobProgress
        disk = DiskProgress("vda", 4096, 4096, 0, 2048, 1024, 1024)
        from vbackup.cli.progress import Bars
        with Bars() as bars:
            bars.vbackup_job_progress(JobProgress("j", "lab", "w[red]eb\\x1b[2J", disk))
    """
    shown = on_a_terminal(sys.executable, "-c", dedent(program))
    assert re.search(
        r"lab:w\[red\]eb\\x1b\[2J vda .* 4.0/4.0 KiB .* 2.0 KiB unchanged, 1.0 KiB zero, 1.0 KiB duplicate", shown
    ), shown


def on_a_terminal(*command: str) -> str:
    """Run a command with a terminal as its stderr; return what it showed, without the codes that move the cursor."""
    terminal, end = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env=environment) as process:
        os.close(end)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that the other end is closed
        return b""


def test_more_is_said_when_asked_for(ready: Vbackup) -> None:
    log = logging.getLogger("vbackup.test")
    for verbose, level in enumerate((logging.WARNING, logging.INFO, logging.DEBUG)):
        assert ready(*["-v"] * verbose, "plugins").code == 0
        assert log.getEffectiveLevel() == level


def test_log_records_are_cleaned(ready: Vbackup, capsys: pytest.CaptureFixture[str]) -> None:
    ready("plugins")
    logging.getLogger("vbackup.test").warning("machine %s", "\x1b[31m")
    assert capsys.readouterr().err == "vbackup: warning: machine \\x1b[31m\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 🦆", "plain äöü 漢字 🦆"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb\tc\x00", r"a\rb\tc\x00"),
        ("right\u202eleft\u200bzero", r"right\u202eleft\u200bzero"),
        ("lone \udc80", r"lone \udc80"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert output.clean(text) == shown


def test_a_table_is_as_wide_as_a_terminal_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        ("NAME", "SIZE", "NOTE"), [("漢字", "1", ""), ("a\u0308b", "10", "one\ntwo")], numbers=frozenset({"SIZE"})
    )
    assert capsys.readouterr().out == "NAME  SIZE  NOTE\n漢字     1\na\u0308b      10  one\\ntwo\n"


def test_amounts_for_people() -> None:
    sizes = [0, 1023, 1024, 1536 * 1024, 5 << 40, 3 << 50]
    assert [output.size(size) for size in sizes] == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB", "3.0 PiB"]
    spans = [0.04, 59.9, 60, 3599, 3661]
    assert [output.duration(span) for span in spans] == ["0.0 s", "59.9 s", "1:00", "59:59", "1:01:01"]
    berlin = timezone(timedelta(hours=1))
    assert output.moment(datetime(2026, 1, 31, 12, tzinfo=berlin)) == "2026-01-31T11:00:00Z"


def test_errors_of_the_tree_carry_their_kind_and_hint(vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise GuestError("web did not freeze", hint="install the agent")

    monkeypatch.setattr("vbackup.jobs.init.init", refuse)
    outcome = vbackup("init", "--json")
    error = {"kind": "guest", "message": "web did not freeze", "hint": "install the agent"}
    assert (outcome.code, outcome.json) == (1, {"error": error})
    assert outcome.err == "vbackup: error: web did not freeze\nhint: install the agent\n"
