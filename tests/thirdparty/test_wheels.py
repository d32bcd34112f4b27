"""vbackup's own wheel: all that it needs and nothing more, in an environment that was empty."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.thirdparty.environments import ROOT, Environment, Wheels
from vbackup.testing.images import KEY, ImageMachine
from vbackup.testing.site import configuration

PACKAGES = [ROOT / "vbackup", *sorted(ROOT.glob("plugins/vbackup_*"))]


@pytest.fixture(scope="session")
def contents(wheels: Wheels) -> set[str]:
    with zipfile.ZipFile(wheels.vbackup) as wheel:
        return set(wheel.namelist())


def test_the_wheel_has_every_module(contents: set[str]) -> None:
    """Also of plugins that somebody forgot to name; those that are there are typed."""
    sources = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*.py")
        if "tests" not in path.relative_to(package).parts and not path.is_relative_to(ROOT / "vbackup" / "docs")
    }
    assert sources
    assert sources - contents == set()
    assert "vbackup/py.typed" in contents


def test_the_wheel_has_the_templates(contents: set[str]) -> None:
    templates = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "vbackup" / "scaffold").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert templates
    assert templates - contents == set()


def test_the_wheel_has_no_tests_and_no_site(contents: set[str]) -> None:
    """Neither ours nor the documentation's pages; manuals stay with what they describe."""
    own = {name for name in contents if not name.startswith("vbackup/scaffold/")}
    assert {name for name in own if "/tests/" in name or name.startswith(("tests/", "vbackup/docs/"))} == set()
    tops = {name.split("/")[0] for name in contents}
    assert tops == {package.name for package in PACKAGES} | {"vbackup-0.1.0.dist-info"}
    assert "vbackup-0.1.0.dist-info/licenses/LICENSE" in contents


def run(bare: Environment, where: Path, *arguments: str) -> str:
    """Run the command as it was installed; it must succeed."""
    done = bare.run(bare.vbackup, "-c", where / "vbackup.yaml", *arguments, cwd=where)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def test_a_backup_and_a_restore(bare: Environment, tmp_path: Path) -> None:
    """With nothing but the wheel, and without the source tree: a machine comes back bit for bit."""
    machine = ImageMachine(tmp_path)
    restored = tmp_path / "restored.raw"
    (tmp_path / "vbackup.yaml").write_text(json.dumps(configuration(tmp_path, machine.hypervisor), default=str))
    where = bare.run(bare.python, "-I", "-c", "import vbackup; print(vbackup.__file__)", cwd=tmp_path).stdout
    assert Path(where).is_relative_to(bare.root)
    run(bare, tmp_path, "init")
    assert "error" not in run(bare, tmp_path, "doctor")
    run(bare, tmp_path, "run", "nightly")
    run(bare, tmp_path, "restore", f"{machine.name}@latest", f"--disk={KEY}={restored}", "--format=raw")
    assert restored.read_bytes() == machine.read()[KEY]
    run(bare, tmp_path, "verify")


def test_what_it_needs_is_there_and_fits(bare: Environment) -> None:
    """No plugin is broken for want of a package: what is extra says so when it is used."""
    done = bare.run(bare.vbackup, "--json", "plugins", cwd=bare.root)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {plugin["status"] for plugin in found} == {"ok"}
    assert len(found) == len(
        subprocess.run([bare.python, "-I", "-c", ENTRIES], capture_output=True, check=True).stdout.split()
    )


ENTRIES = "from importlib.metadata import entry_points as e; print(*[each.name for each in e(group='vbackup')])"
