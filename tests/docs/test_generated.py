"""Pages that are made from the code are what the code says now, and say all of it."""

from __future__ import annotations

import zipfile
from functools import cache

from tests.thirdparty.environments import Wheels
from vbackup.docs.commands import MEANINGS, every
from vbackup.docs.generate import pages
from vbackup.registry import Registry

made = cache(pages)


def test_the_pages_are_up_to_date() -> None:
    stale = [path.name for path, text in made().items() if path.read_text() != text]
    assert stale == [], "run: python -m vbackup.docs.generate"


def test_every_key_and_option_has_a_meaning() -> None:
    assert [line for text in made().values() for line in text.splitlines() if line.endswith("|  |")] == []


def test_the_reference_has_every_type() -> None:
    registry = Registry.load()
    text = next(text for page, text in made().items() if page.name == "reference.md")
    for classes in (registry.hypervisors, registry.transports, registry.targets, registry.codecs):
        assert [name for name in classes if f"# `type: {name}`\n" not in text] == []


def test_exit_codes_are_told_of_commands_that_there_are() -> None:
    assert MEANINGS.keys() <= dict(every(Registry.load())).keys()


def test_the_wheel_has_none_of_the_documentation(wheels: Wheels) -> None:
    with zipfile.ZipFile(wheels.vbackup) as wheel:
        names = wheel.namelist()
    assert "vbackup/api/__init__.py" in names
    assert [name for name in names if name.startswith("vbackup/docs/")] == []
