"""Repositories of every released format are restored, checked, and written to; newer ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.make import CODECS, HERE, digest, load_tar, open_golden
from tests.support import back_up, guest, noise, restored
from vbackup.api import Unsupported, WrongKey
from vbackup.testing.hypervisors import FakeHypervisor

GOLDEN = sorted(HERE.glob("v*/*.tar"))


def facts(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return loaded


def test_each_version_has_its_golden_repositories() -> None:
    assert {path.stem for path in GOLDEN if path.parent.name == "v1"} == set(CODECS)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_repository_restores(path: Path, tmp_path: Path) -> None:
    known = facts(path)
    target = open_golden(load_tar(path), tmp_path, known["secret"].encode(), CODECS[path.stem])
    points = target.points()
    assert {point.id for point in points} == set(known["points"])
    assert target.damaged_points() == []
    for point in points:
        disks = {key: digest(data) for key, data in restored(target, point).items()}
        assert disks == known["points"][point.id]
        assert target.description(point).name == known["machine"]
    assert target.verify(points, lambda size: None) == []
    assert list(target.protected().values()) == ["golden"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_repository_takes_new_points(path: Path, tmp_path: Path) -> None:
    known = facts(path)
    store = load_tar(path)
    lab = FakeHypervisor()
    guest(lab, "web", noise(100_000, 7))
    writer = open_golden(store, tmp_path / "writer", known["writer"].encode(), CODECS[path.stem])
    point = back_up(writer, lab, "web")
    reader = open_golden(store, tmp_path / "reader", known["secret"].encode(), CODECS[path.stem])
    assert restored(reader, point) == {"vda": noise(100_000, 7)}
    assert reader.verify(reader.points(), lambda size: None) == []


def test_the_writer_of_a_golden_repository_with_a_recipient_cannot_read(tmp_path: Path) -> None:
    path = HERE / "v1" / "recipient.tar"
    target = open_golden(load_tar(path), tmp_path, facts(path)["writer"].encode(), CODECS["recipient"])
    with pytest.raises(WrongKey):
        restored(target, target.points()[0])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_newer_format_is_refused(path: Path, tmp_path: Path) -> None:
    """Also one of which nothing else is known."""
    store = load_tar(path)
    described = json.loads(store.get("repository"))
    for newer in ({**described, "format": 2}, {"format": 99, "wholly": "different"}):
        store.put("repository", json.dumps(newer).encode())
        target = open_golden(store, tmp_path, facts(path)["secret"].encode(), CODECS[path.stem])
        with pytest.raises(Unsupported, match="newer format"):
            target.points()
