"""``vbackup prune``, ``protect`` and ``unprotect``: what goes, what stays and why is told, and nothing else goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commandline import MIB, Vbackup, place, ready, vbackup
from vbackup.api import Damage, PruneOrder, PruneReport, Unavailable
from vbackup.jobs.prune import PruneOutcome, TargetResult

__all__ = ["place", "ready", "vbackup"]  # fixtures


def keep(place: Path, **rules: int) -> None:
    """Give the job of `configure` rules."""
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    config["jobs"]["nightly"]["keep"] = rules
    path.write_text(json.dumps(config))


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
