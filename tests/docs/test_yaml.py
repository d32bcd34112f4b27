"""Every piece of configuration that the pages show loads."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from tests.docs.pages import AUTHORS, PAGES, STRANGERS, Block, blocks
from tests.thirdparty.environments import Environment
from vbackup.config import load
from vbackup.registry import Registry

SHOWN = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
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
LOAD = """
import sys
from pathlib import Path
from vbackup.config import load
from vbackup.registry import Registry
for name in sys.argv[1:]:
    load(Path(name), Registry.load())
"""


def test_there_are_some() -> None:
    assert len({block.page for block in SHOWN}) > 10


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.where)
def test_a_block_loads(block: Block, tmp_path: Path) -> None:
    assert load(written(block, tmp_path), Registry.load())


def written(block: Block, directory: Path) -> Path:
    """Write a block to a file, with what it leaves out.

    The codecs of a target are shown without it, jobs or groups alone without all else.
    """
    text = block.text
    if text.startswith("codecs:"):
        text = TARGET + indent(text, "    ")
    elif text.startswith("jobs:"):
        text = TARGET + GROUP + text
    elif text.startswith("groups:"):
        text = TARGET + text
    file = directory / f"{block.page.parent.name}-{block.line}.yaml"
    file.write_text(text)
    return file


def test_the_blocks_of_plugins_outside_load_where_these_are_installed(environment: Environment, tmp_path: Path) -> None:
    files = [written(block, tmp_path) for page in STRANGERS for block in blocks(page) if block.language == "yaml"]
    assert files
    done = environment.run(environment.python, "-I", "-c", LOAD, *files, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_blocks_of_the_pages_for_authors_are_used_there() -> None:
    """What is written to a file is then read, or is no configuration."""
    found = [block for page in AUTHORS for block in blocks(page) if block.language == "yaml"]
    assert [block.where for block in found if block.file is None] == []
