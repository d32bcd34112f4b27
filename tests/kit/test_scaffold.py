"""``vbackup plugin new``: what it writes is installed, fails where something is to be written, and works when it is.

The environment is a fresh one that borrows the libraries of ours, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from hatchling.builders.wheel import WheelBuilder
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

import vbackup.api
from vbackup.cli.main import execute
from vbackup.scaffold import ROLES

NAMES = {
    "hypervisor": "toy",
    "transport": "pigeon",
    "codec": "rot",
    "target": "shelf",
    "executor": "queue",
    "events": "bell",
    "command": "greet",
}
FILLED = Path(__file__).with_name("filled")
"""By role: files that stand for those of the same names. What they do not need is removed."""
ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "vbackup/scaffold/templates").rglob("*.tmpl"))
TO_WRITE = re.compile(r"((?:src|tests)/[\w/]+\.py: write \w+(?:\.\w+)?)")
SECONDS = 300

New = Callable[..., tuple[int, str, str]]


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[New]:
    """Run ``vbackup plugin new`` in an empty directory."""
    root, handlers, level = logging.getLogger(), list(logging.getLogger().handlers), logging.getLogger().level
    monkeypatch.chdir(tmp_path)

    def new(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return execute(["plugin", "new", *args]), *capsys.readouterr()

    yield new
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python; what is installed for us is there, too, as is pip's way to build."""
    place = tmp_path_factory.mktemp("authors") / "venv"
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    (own,) = place.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    (own / "borrowed.pth").write_text("".join(lines))
    return python


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing of this test run in its environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VBACKUP", "PYTHON"))}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def install(python: Path, package: Path) -> None:
    """Install a package as its README says, from what is there."""
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", *options)
    done = run(*pip, "--editable", package, cwd=package)
    assert done.returncode == 0, done.stdout + done.stderr


class Failure(NamedTuple):
    """A test of a package that did not pass."""

    test: str
    message: str
    text: str


def failures(python: Path, package: Path) -> tuple[list[Failure], int]:
    """Run the tests of a package; return those that did not pass, and how many there are."""
    report = package.parent / f"{package.name}.xml"
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", cwd=package)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 2 and more: they could not be collected
    cases = list(ET.parse(report).iter("testcase"))
    found = [
        Failure(str(case.get("name")), str(each.get("message")), str(each.text))
        for case in cases
        for each in (*case.iter("failure"), *case.iter("error"))
    ]
    assert bool(found) == (done.returncode == 1), done.stdout
    return found, len(cases)


def to_write(package: Path) -> set[str]:
    """Return what its files say that is to be written."""
    return {said for path in package.rglob("*.py") for said in TO_WRITE.findall(path.read_text())}


def fill(package: Path, role: str) -> None:
    """Put the files of `FILLED` in their places."""
    (module,) = (package / "src").iterdir()
    filled = {path.name: path for path in (FILLED / role).glob("*.py")}
    for path in [*module.glob("*.py"), *(package / "tests").glob("*.py")]:
        if path.name in filled:
            shutil.copy(filled[path.name], path)
        elif to_write_in(path):
            path.unlink()


def to_write_in(path: Path) -> bool:
    return "raise NotImplementedError" in path.read_text()


@pytest.mark.parametrize("role", ROLES)
def test_it_says_what_is_to_be_written_and_works_when_it_is(
    role: str, new: New, tmp_path: Path, environment: Path
) -> None:
    code, out, err = new(NAMES[role], "--role", role)
    package = tmp_path / f"vbackup-{NAMES[role]}"
    assert (code, err) == (0, "")
    assert f"  cd vbackup-{NAMES[role]}\n" in out
    install(environment, package)

    failed, of = failures(environment, package)
    assert 0 < len(failed) < of
    assert [each for each in failed if not TO_WRITE.search(each.message)] == []
    assert {said for each in failed for said in TO_WRITE.findall(each.message)} <= to_write(package)
    _is_listed_and_shown_rightly(environment, package, NAMES[role])

    fill(package, role)
    assert to_write(package) == set()
    failed, _ = failures(environment, package)
    assert not failed, "\n\n".join(f"{each.test}: {each.message}\n{each.text}" for each in failed)


def _is_listed_and_shown_rightly(python: Path, package: Path, name: str) -> None:
    """As it is, the plugin is good; what its README shows fits the schema."""
    program = f"from vbackup.cli.main import execute; execute(['plugins', {name!r}, '--json']); execute(['schema'])"
    done = run(python, "-c", program, cwd=package)
    plugin, end = json.JSONDecoder().raw_decode(done.stdout)
    (plugin,) = plugin
    assert (plugin["origin"], plugin["version"], plugin["status"]) == (f"vbackup-{name}", "0.1.0", "ok"), plugin
    assert plugin["waits"]
    options = [option for role in plugin["options"].values() for each in role.values() for option in each]
    assert all(option["meaning"] and option["default"] is not None for option in options)
    schema = Draft7Validator(json.loads(done.stdout[end:]))
    for block in re.findall(r"^```yaml\n(.*?)^```", (package / "README.md").read_text(), re.DOTALL | re.MULTILINE):
        shown = YAML(typ="safe", pure=True).load(block)
        assert list(schema.iter_errors(shown)) == []
        ((section, entry),) = shown.items()
        place = [section]
        if "type" not in entry:
            ((alias, entry),) = entry.items()
            place.append(alias)
        entry["nonsense"] = 1
        (error,) = schema.iter_errors(shown)
        assert (list(error.absolute_path), "nonsense" in error.message) == (place, True)


def test_skeletons_are_typed_and_tidy(new: New, tmp_path: Path) -> None:
    for role, name in NAMES.items():
        assert new(name, "--role", role)[0] == 0
    sources = [tmp_path / f"vbackup-{name}" / "src" for name in NAMES.values()]
    done = run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *sources, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    for package in tmp_path.glob("vbackup-*"):
        done = run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=package)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", ROLES)
def test_the_same_words_make_the_same_files(role: str, new: New, tmp_path: Path) -> None:
    made = json.loads(new(NAMES[role], "--role", role, "--directory", "one", "--json")[1])
    assert new(f"vbackup-{NAMES[role]}", "--role", role, "--directory", "two")[0] == 0
    one, two = (
        {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert made == {
        "directory": str(tmp_path / "one"),
        "distribution": f"vbackup-{NAMES[role]}",
        "module": f"vbackup_{NAMES[role]}",
        "files": sorted(one),
    }
    assert {".github/workflows/ci.yml", ".gitignore", "README.md", "pyproject.toml"} <= one.keys()
    assert f"src/vbackup_{NAMES[role]}/py.typed" in one
    assert [name for name, text in one.items() if b"$" in text.replace(b"${{ matrix.python }}", b"")] == []


def test_templates_name_what_there_is() -> None:
    """In docstrings, too."""
    said = "".join(path.read_text() for path in TEMPLATES)
    assert [name for name in re.findall(r"vbackup\.api\.(\w+)", said) if name not in vbackup.api.__all__] == []
    for name in set(re.findall(r"vbackup\.testing\.([\w.]+)", said)):
        module, _, attribute = name.partition(".")
        found = import_module(f"vbackup.testing.{module}")
        assert not attribute or hasattr(found, attribute), name


def test_templates_are_part_of_our_own_wheel() -> None:
    """Those that begin with a dot, too."""
    whole = {str(file.distribution_path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert len(TEMPLATES) > 20
    assert [str(path) for path in TEMPLATES if str(path.relative_to(ROOT)) not in whole] == []


def test_the_wheel_has_what_it_needs_and_no_tests(new: New, tmp_path: Path) -> None:
    assert new("pigeon", "--role", "transport")[0] == 0
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=tmp_path / "vbackup-pigeon")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "vbackup-pigeon" / "dist").iterdir()
    assert wheel.name == "vbackup_pigeon-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read("vbackup_pigeon-0.1.0.dist-info/entry_points.txt").decode()
    assert [name for name in names if not name.startswith("vbackup_pigeon-0.1.0.dist-info/")] == [
        "vbackup_pigeon/__init__.py",
        "vbackup_pigeon/py.typed",
        "vbackup_pigeon/transport.py",
    ]
    assert points.split() == ["[vbackup]", "pigeon", "=", "vbackup_pigeon"]


@pytest.mark.parametrize(
    ("name", "class_", "distribution", "module"),
    [
        ("webdav", "WebdavTransport", "vbackup-webdav", "vbackup_webdav"),
        ("vbackup_web-dav", "WebDavTransport", "vbackup-web-dav", "vbackup_web_dav"),
        ("web.dav_2", "WebDav2Transport", "vbackup-web-dav-2", "vbackup_web_dav_2"),
        ("7zip", "Transport7zip", "vbackup-7zip", "vbackup_7zip"),
        ("test", "TransportTest", "vbackup-test", "vbackup_test"),
        ("none", "NoneTransport", "vbackup-none", "vbackup_none"),
    ],
)
def test_names(new: New, tmp_path: Path, name: str, class_: str, distribution: str, module: str) -> None:
    made = json.loads(new(name, "--role", "transport", "--json")[1])
    assert (made["distribution"], made["module"]) == (distribution, module)
    source = (tmp_path / distribution / "src" / module / "transport.py").read_text()
    assert f"\nclass {class_}:" in source
    compile(source, "transport.py", "exec")


@pytest.mark.parametrize(
    ("role", "name", "hint"),
    [
        ("transport", "WebDAV", "What about webdav?"),
        ("transport", "web dav", "What about web-dav?"),
        ("transport", "../etc", "What about etc?"),
        ("transport", "a" * 65, ""),
        ("transport", "vbackup-", ""),
        ("transport", "", ""),
        ("transport", "dav-", "What about dav?"),
        ("transport", "däv\n", "What about d-v?"),
        ("command", "2fast", ""),
        ("command", "web.dav", "What about web-dav?"),
        ("command", "a" * 33, ""),
    ],
)
def test_bad_names_are_refused(new: New, tmp_path: Path, role: str, name: str, hint: str) -> None:
    code, _, err = new("--role", role, "--", name)
    assert code == 2
    assert f"cannot be the name of a {role}" in err
    assert err.rstrip().endswith(f"hint: {hint}" if hint else "at the most")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("transport", "s3", "there is a plugin 's3' already, of vbackup"),
        ("codec", "aes-256-gcm", "there is a codec 'aes-256-gcm' already, of the plugin 'aead' of vbackup"),
        ("transport", "files", "there is a package vbackup_files already"),
        ("command", "vsphere", "there is a plugin 'vsphere' already, of vbackup"),
    ],
)
def test_names_that_are_taken_are_refused(new: New, tmp_path: Path, role: str, name: str, message: str) -> None:
    code, _, err = new(name, "--role", role)
    assert (code, err) == (1, f"vbackup: error: {message}\nhint: Take another name.\n")
    assert list(tmp_path.iterdir()) == []


def test_no_command_is_called_as_one_of_ours(new: New) -> None:
    code, _, err = new("restore", "--role", "command")
    assert code == 2
    assert "the command 'restore' is one of vbackup's own" in err


def test_nothing_is_written_over(new: New, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    (tmp_path / "file").touch()
    assert new("pigeon", "--role", "transport", "--directory", "mine")[::2] == (
        1, "vbackup: error: mine is not empty\nhint: Name another directory with --directory.\n"
    )  # fmt: skip
    code, _, err = new("pigeon", "--role", "transport", "--directory", "file")
    assert code == 2
    assert "file cannot be written: Not a directory" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "precious"]


def test_an_empty_directory_is_filled(new: New, tmp_path: Path) -> None:
    (tmp_path / "my place").mkdir()
    code, out, _ = new("pigeon", "--role", "transport", "--directory", "my place")
    assert code == 0
    assert "  cd 'my place'\n" in out
    assert (tmp_path / "my place" / "pyproject.toml").exists()
