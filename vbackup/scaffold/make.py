"""Filling the templates.

A template is a file below ``templates/common`` or ``templates/ROLE``, at the place where its copy goes; one of a role
stands for the common one of that place. ``MODULE`` in a path is the package's name, ``.tmpl`` is cut off, and
``$names`` are filled in; ``usage.txt`` is what the README of a role shows. Nothing else decides on what is written: the
same words make the same files.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from vbackup import __version__
from vbackup.api import API_VERSION, AlreadyExists, ConfigError
from vbackup.scaffold.names import Names
from vbackup.scaffold.roles import ROLES, Role

_TEMPLATES = Path(__file__).with_name("templates")
_KINDS = ("Options", "Source", "Sink", "Restoration", "Writer", "DiskWriter", *(role.kind for role in ROLES.values()))
"""What templates have classes of: ``$Options`` is the name of one."""


@dataclass(frozen=True, slots=True)
class Made:
    """A package that was made: where, what it is called, and its files."""

    directory: Path
    distribution: str
    module: str
    files: tuple[str, ...]


def make(names: Names, role: Role, directory: Path) -> Made:
    """Write a package to ``directory``, which is made unless it is there and empty.

    Raises: `AlreadyExists` when there is something in it; `ConfigError` when it cannot be written.
    """
    files = _filled(names, role)
    try:
        if directory.exists() and any(directory.iterdir()):
            raise AlreadyExists(f"{directory} is not empty", hint="Name another directory with --directory.")
        _write(files, directory.resolve())
    except OSError as error:
        raise ConfigError(
            f"{error.filename or directory} cannot be written: {error.strerror}", hint="Name another with --directory."
        ) from error
    return Made(directory, names.distribution, names.module, tuple(files))


def _write(files: Mapping[str, str], directory: Path) -> None:
    """Write all files, or none: beside their place, to which they are moved in the end."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    half = directory.with_name(f".{directory.name}-{secrets.token_hex(4)}")
    try:
        for path, text in files.items():
            file = half / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if not directory.exists():
            half.rename(directory)
            return
        for part in half.iterdir():  # it may be the directory that somebody works in
            part.rename(directory / part.name)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _filled(names: Names, role: Role) -> dict[str, str]:
    """Return the text of each file by its path."""
    values = _values(names, role)
    files = {}
    for part in ("common", role.name):
        root = _TEMPLATES / part
        for template in root.rglob("*.tmpl"):
            path = template.relative_to(root).as_posix().removesuffix(".tmpl").replace("MODULE", names.module)
            files[path] = Template(template.read_text(encoding="utf-8")).substitute(values)
    return dict(sorted(files.items()))


def _values(names: Names, role: Role) -> Mapping[str, object]:
    values = {
        "name": names.name,
        "distribution": names.distribution,
        "module": names.module,
        "role": role.name,
        "roles": role.plural,
        "imports": ", ".join(sorted((role.kind, "Register"))),
        "Role": role.kind,
        "Class": names.of_class(role.kind),
        "main": role.main,
        "needs": role.needs,
        "PREFIX": f"{names.module.upper()}_",
        "api_version": API_VERSION,
        "version": __version__,
        **{kind: names.of_class(kind) for kind in _KINDS},
    }
    usage = (_TEMPLATES / role.name / "usage.txt").read_text(encoding="utf-8").strip()
    return {**values, "usage": Template(usage).substitute(values)}
