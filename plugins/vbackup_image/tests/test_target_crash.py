"""Killed at every operation on the store, for real: earlier points are whole, and the next run succeeds."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vbackup.api import PruneOrder

from .dying import disk
from .plain import FORMS, leftovers, restored, target_at


class Dying:
    """See `dying`."""

    def __init__(self) -> None:
        argv = [sys.executable, str(Path(__file__).with_name("dying.py"))]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, root: Path, options: dict[str, Any], **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        request = {"die_at": 0, "machine": "web", "do": "backup", "root": str(root), "options": options} | request
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    process = Dying()
    yield process
    process.close()


def fresh(template: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)


@pytest.mark.parametrize(("form", "step"), [("backing", 1), ("raw", 4)])
def test_a_backup_that_is_killed_anywhere(form: str, step: int, dying: Dying, tmp_path: Path) -> None:
    options = FORMS[form]
    template, root = tmp_path / "template", tmp_path / "plain"
    target_at(template, **options).init()
    for seeds in ([1], [1, 2]):
        assert dying(template, options, seeds=seeds)["status"] == 0
    target = target_at(root, **options)
    counts = []
    for die_at in itertools.count(1, step):
        fresh(template, root)
        status = dying(root, options, seeds=[1, 2, 3], die_at=die_at)["status"]
        points = target.points()
        counts.append(len(points))
        assert target.damaged_points() == []
        for point, seeds in zip(points, ([1], [1, 2], [1, 2, 3]), strict=False):
            assert restored(target, point) == {"vda": disk(seeds)}, die_at
            assert target.file(point, "nvram") == b"vars"
        if status == 0:
            break
        assert status == -9
        if die_at % 5 == 1:
            assert dying(root, options, seeds=[1, 2, 3, 4])["status"] == 0
        else:
            target.prune(PruneOrder())
        assert leftovers(root) == []
    assert counts == sorted(counts)
    assert set(counts) == {2, 3}
    assert len(counts) * step > 15


def test_a_delete_that_is_killed_anywhere(dying: Dying, tmp_path: Path) -> None:
    options = FORMS["backing"]
    template, root = tmp_path / "template", tmp_path / "plain"
    target_at(template, **options).init()
    history = ([1], [1, 2], [1, 2, 3])
    for seeds in history:
        assert dying(template, options, seeds=seeds)["status"] == 0
    target = target_at(root, **options)
    ids = [point.id for point in target_at(template).points()]
    for die_at in itertools.count(1):
        fresh(template, root)
        status = dying(root, options, do="delete", point=ids[die_at % 2], die_at=die_at)["status"]
        points = target.points()
        assert {point.id for point in points} >= set(ids) - {ids[die_at % 2]}
        assert target.damaged_points() == []
        for point in points:
            assert restored(target, point) == {"vda": disk(history[ids.index(point.id)])}, die_at
        if status == 0:
            break
        assert status == -9
        target.delete([point for point in points if point.id == ids[die_at % 2]])
        target.prune(PruneOrder())
        assert leftovers(root) == []
        assert len(target.points()) == 2
        assert target.verify(target.points(), lambda size: None) == []
    assert die_at > 8
