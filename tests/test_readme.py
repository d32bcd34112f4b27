"""What the READMEs show works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

import click
import pytest

from vbackup.config import load
from vbackup.registry import Registry

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md"))]
TARGET = """
hypervisors:
  lab: {type: libvirt, uri: "qemu:///system"}
  vc: {type: vsphere, host: vcenter.example.org, user: backup, password: {file: /etc/vbackup/vcenter}}
transports: {disk: {type: local, path: /srv/vbackup}}
targets:
  main:
    type: repository
    transport: disk
    key: {file: /etc/vbackup/main.key}
"""
GROUP = 'groups: {shop: {machines: [{machine: "lab:db"}]}}\n'


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", found[1])
        for path in DOCUMENTS
        for text in [path.read_text()]
        for found in BLOCK.finditer(text)
    ]


@pytest.mark.parametrize(("where", "text"), blocks(), ids=[where for where, _ in blocks()])
def test_every_yaml_block_loads(where: str, text: str, tmp_path: Path) -> None:
    """A block with the codecs of a target is shown as a part of one, one with jobs or groups alone beside all else."""
    file = tmp_path / "vbackup.yaml"
    if text.startswith("codecs:"):
        text = TARGET + indent(text, "    ")
    elif text.startswith("jobs:"):
        text = TARGET + GROUP + text
    elif text.startswith("groups:"):
        text = TARGET + text
    file.write_text(text)
    assert load(file, Registry.load())


def test_the_readme_names_every_command() -> None:
    from vbackup.cli.main import cli

    text = (ROOT / "README.md").read_text()
    assert [name for name in cli.list_commands(click.Context(cli)) if f"vbackup {name}" not in text] == []


def test_the_readme_names_every_key_command() -> None:
    from vbackup.cli.key import command

    text = (ROOT / "README.md").read_text()
    assert [name for name in command.commands if f"vbackup key {name}" not in text] == []
