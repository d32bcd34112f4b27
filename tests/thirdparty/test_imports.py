"""What strangers' plugins import of vbackup: `vbackup.api`, and in their tests `vbackup.testing`; nothing else."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.thirdparty.environments import DISTRIBUTIONS, ROOT, Environment

SOURCES = [path for distribution in DISTRIBUTIONS for path in sorted(distribution.rglob("*.py"))]
OURS = {
    Path(package).name
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
}
"""All that a wheel of vbackup brings at the top: its plugins are as private as the rest."""

LOADED = """
import importlib, json, pkgutil, sys

package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    importlib.import_module(module.name)
ours = sys.argv[2].split(",")
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if name.split(".")[0] in ours}
print(json.dumps({"package": package.__file__, "loaded": files}))
"""
"""Imports all of a package, and tells what else of vbackup is there then."""


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports, by full names; strings that look like a module of ours are taken for one."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split(".")
            if len(words) > 1 and words[0] in OURS and all(word.isidentifier() for word in words):
                yield node.value


def allowed(path: Path) -> tuple[str, ...]:
    is_test = "tests" in path.relative_to(ROOT / "tests" / "thirdparty").parts
    return ("vbackup.api", "vbackup.testing") if is_test else ("vbackup.api",)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_the_api_only(path: Path) -> None:
    of_ours = [name for name in imported(path) if name.split(".")[0] in OURS]
    assert [name for name in of_ours if not f"{name}.".startswith(tuple(f"{part}." for part in allowed(path)))] == []


def test_there_are_strangers() -> None:
    """Lest the above pass for want of files."""
    assert {path.name for path in DISTRIBUTIONS} == {"vbackup-brotli", "vbackup-qmp", "vbackup-webdav"}
    for distribution in DISTRIBUTIONS:
        names = {name for path in distribution.rglob("*.py") for name in imported(path)}
        assert any(name.startswith("vbackup.api.") for name in names)
        assert any(name.startswith("vbackup.testing.") for name in names)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_package_loads_the_api_only(environment: Environment, distribution: Path, tmp_path: Path) -> None:
    """Whatever way it takes to import: what is there when all of it is loaded came from the wheels."""
    name = distribution.name.replace("-", "_")
    done = environment.run(environment.python, "-I", "-c", LOADED, name, ",".join(OURS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["loaded"]) >= {"vbackup", "vbackup.api"}
    assert [
        module for module in told["loaded"] if module != "vbackup" and not f"{module}.".startswith("vbackup.api.")
    ] == []
    for file in (told["package"], *told["loaded"].values()):
        assert Path(file).is_relative_to(environment.root)
