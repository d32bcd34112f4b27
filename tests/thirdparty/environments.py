"""Wheels of this tree and of the distributions beside this file, and fresh environments with nothing but wheels.

What is made here is made once for all workers of pytest-xdist: who comes first makes it, the others wait.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DISTRIBUTIONS = sorted(path.parent for path in HERE.glob("vbackup-*/pyproject.toml"))
"""The sources of the strangers' distributions."""
_OURS = ("PYTHON", "PYTEST", "VBACKUP", "VIRTUAL_ENV", "COVERAGE")
_SECONDS = 900


@dataclass(frozen=True)
class Wheels:
    """The wheel files, as ``pip install`` takes them."""

    vbackup: Path
    others: tuple[Path, ...]
    """Of `DISTRIBUTIONS`, in their order."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of the source tree."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def vbackup(self) -> Path:
        """The command as it was installed."""
        return self.root / "bin" / "vbackup"

    def run(
        self, *command: str | Path, cwd: Path, seconds: float = _SECONDS, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with this environment first on PATH and nothing of ours in its variables.

        State and cache of vbackup are below ``cwd``.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        own = {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONNOUSERSITE": "1",
            "VBACKUP_STATE_DIR": str(cwd / "state"),
            "VBACKUP_CACHE_DIR": str(cwd / "cache"),
        }
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd, env=inherited | own | environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip

    def suite(self, distribution: Path, directory: Path, *options: str) -> set[str]:
        """Run a distribution's own tests here: on its wheel, from a copy in ``directory``, without its source.

        ``options`` are for pytest. Returns the tests that passed, as ``test_module.TestClass.test_name``.
        Raises: `AssertionError` with all that was printed, if any failed, or none passed.
        """
        place = directory / distribution.name
        shutil.copytree(distribution / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(distribution / "pyproject.toml", place)
        report = place / "report.xml"
        kept = ("-p", "no:cacheprovider", f"--basetemp={place / 'temporary'}", f"--junit-xml={report}")
        done = self.run(self.python, "-I", "-m", "pytest", "-q", *kept, *options, cwd=place)
        assert done.returncode == 0, f"the tests of {distribution.name} fail:\n{done.stdout}{done.stderr}"
        cases = ET.parse(report).iterfind(".//testcase")
        return {
            f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name', '').partition('[')[0]}"
            for case in cases
            if case.find("skipped") is None
        }


def _once(make: Callable[[Path], None], directory: Path) -> Path:
    """Fill ``directory`` by ``make``, unless another worker has."""
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a worker that was killed
            make(directory)
            done.touch()
    return directory


def _pip(*arguments: str | Path, python: Path | None = None) -> None:
    of = () if python is None else ("--python", python)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *of, *arguments]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _build(directory: Path) -> None:
    _pip("wheel", "--no-deps", "--wheel-dir", directory, ROOT, *DISTRIBUTIONS)


def _install(directory: Path, wheels: Iterable[Path], groups: Iterable[Path] = ()) -> None:
    """Make an environment of wheels, what they need, and what the tests of the distributions ``groups`` need."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True, timeout=_SECONDS)
    test = [word for path in groups for word in ("--group", f"{path / 'pyproject.toml'}:test")]
    _pip("install", "--no-compile", *wheels, *test, python=directory / "bin" / "python")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "thirdparty"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def wheels(shared: Path) -> Wheels:
    """Wheels of vbackup and of all distributions here, built as for publishing."""
    dist = _once(_build, shared / "dist")

    def wheel(name: str) -> Path:
        [path] = dist.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
        return path

    return Wheels(wheel("vbackup"), tuple(wheel(path.name) for path in DISTRIBUTIONS))


@pytest.fixture(scope="session")
def environment(shared: Path, wheels: Wheels) -> Environment:
    """An environment with all wheels, and with what their tests need."""

    def make(directory: Path) -> None:
        _install(directory, (wheels.vbackup, *wheels.others), DISTRIBUTIONS)

    return Environment(_once(make, shared / "environment"))


@pytest.fixture(scope="session")
def bare(shared: Path, wheels: Wheels) -> Environment:
    """An environment with vbackup's wheel, and with what that says that it needs; no more."""
    return Environment(_once(lambda directory: _install(directory, [wheels.vbackup]), shared / "bare"))
