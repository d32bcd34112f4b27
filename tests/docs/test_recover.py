"""What was backed up is got back with nothing but the format's description and libraries that anybody has."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden.make import CODECS, HERE, digest
from tests.support import SECRET, back_up, guest, noise, repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup_local.transport import Local, LocalOptions

SCRIPT = Path(__file__).parents[2] / "vbackup/docs/admin/recover.py"
CHUNK = 16 << 10


def recover(*arguments: object, code: int = 0) -> str:
    """Run the script as a stranger would: its own directory, and nothing of ours, is on the path."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def golden(name: str, directory: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Unpack a golden repository; return where it is, a file with what opens it, and what is in it."""
    facts: dict[str, Any] = json.loads((HERE / "v1" / f"{name}.json").read_text())
    with tarfile.open(HERE / "v1" / f"{name}.tar") as archive:
        archive.extractall(directory / "repository", filter="data")
    (directory / "key").write_text(facts["secret"] + "\n")
    return directory / "repository", directory / "key", facts


def test_it_imports_nothing_of_vbackup() -> None:
    tree = ast.walk(ast.parse(SCRIPT.read_text()))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert packages == {"blake3", "cryptography", "lz4", "zstandard"}


@pytest.mark.parametrize("name", CODECS)
def test_a_golden_repository_is_recovered(name: str, tmp_path: Path) -> None:
    where, key, facts = golden(name, tmp_path)
    listed = recover(where, key)
    assert {line.split()[0] for line in listed.splitlines()} == set(facts["points"])
    for point, disks in facts["points"].items():
        for disk, expected in disks.items():
            assert f"{disk} (" in listed
            recover(where, key, point, disk, tmp_path / f"{point}-{disk}")
            assert digest((tmp_path / f"{point}-{disk}").read_bytes()) == expected
    assert json.loads(recover(where, key, next(iter(facts["points"]))))["name"] == facts["machine"]


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Path]:
    """A repository as vbackup makes it now: a disk whose map has two levels, and a point before it was changed."""
    transport = Local(LocalOptions(path=tmp_path / "repository"))
    target = repository(transport, tmp_path / "cache", chunk_size=CHUNK)
    target.init()
    lab = FakeHypervisor()
    machine = guest(lab, "web", noise(3 * CHUNK, 1) + bytes(300 * CHUNK) + b"text" * CHUNK + b"end")
    (tmp_path / "before").write_bytes(bytes(machine.disks["vda"].data))
    back_up(target, lab, "web")
    machine.disks["vda"].write(301 * CHUNK, noise(5000, 2))
    (tmp_path / "after").write_bytes(bytes(machine.disks["vda"].data))
    back_up(target, lab, "web")
    target.close()
    (tmp_path / "key").write_bytes(SECRET)
    return tmp_path / "repository", tmp_path / "key"


def test_each_point_of_a_new_repository_is_recovered(stored: tuple[Path, Path], tmp_path: Path) -> None:
    points = [line.split()[0] for line in recover(*stored).splitlines()]
    for point, expected in zip(points, ("before", "after"), strict=True):
        recover(*stored, point[:8], "vda", tmp_path / f"{expected}.raw")
        assert (tmp_path / f"{expected}.raw").read_bytes() == (tmp_path / expected).read_bytes()


def test_what_is_damaged_is_named_and_the_rest_recovered(stored: tuple[Path, Path], tmp_path: Path) -> None:
    where, key = stored
    newest = recover(where, key).splitlines()[-1].split()[0]
    pack = max(where.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    said = recover(where, key, newest, "vda", tmp_path / "out", code=1)
    assert f"pack {pack.name} is damaged" in said
    found, expected = (tmp_path / "out").read_bytes(), (tmp_path / "after").read_bytes()
    runs = [(int(size), int(first)) for size, first in re.findall(r"left as zeros: (\d+) bytes at (\d+)", said)]
    lost = {offset for size, first in runs for offset in range(first, first + size, CHUNK)}
    assert lost
    assert len(found) == len(expected)
    for offset in range(0, len(expected), CHUNK):
        whole = expected[offset : offset + CHUNK]
        assert found[offset : offset + CHUNK] == (bytes(len(whole)) if offset in lost else whole)


def test_nothing_is_overwritten(stored: tuple[Path, Path], tmp_path: Path) -> None:
    point = recover(*stored).split()[0]
    (tmp_path / "there").write_bytes(b"precious")
    recover(*stored, point, "vda", tmp_path / "there", code=1)
    assert (tmp_path / "there").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ffff",), "0 restore points begin with ffff"),
        (("", "vda", "out"), "2 restore points begin with"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: tuple[str, ...], message: str, stored: tuple[Path, Path]) -> None:
    assert message in recover(*stored, *arguments, code=1)


def test_another_key_opens_nothing(stored: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"a passphrase")
    assert "opens none of the repository's key slots" in recover(stored[0], tmp_path / "other", code=1)


def test_a_key_that_only_writes_is_refused(tmp_path: Path) -> None:
    where, key, facts = golden("recipient", tmp_path)
    key.write_text(facts["writer"])
    assert "this key can only write" in recover(where, key, code=1)
