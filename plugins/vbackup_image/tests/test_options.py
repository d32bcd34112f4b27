"""The options, and that loading the plugin is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

import vbackup_image
from vbackup_image.options import ImageOptions


def parse(*items):
    options = ImageOptions.model_validate({"machines": {"web": list(items)}})
    return [(str(image.path), image.format) for image in options.machines["web"]]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a/b.qcow2", "qcow2"),
        ("/a/b.IMG", "raw"),
        ("/a/b.raw", "raw"),
        ("/a/b.vmdk", "vmdk"),
        ("/a/b.vhd", "vpc"),
        ("/a/b.vhdx", "vhdx"),
        ("/a/b.vdi", "vdi"),
        ("/dev/vg/lv.qcow2", "raw"),
    ],
)
def test_the_format_comes_from_the_name(path, found):
    assert parse(path) == [(path, found)]


def test_the_format_can_be_said():
    assert parse({"path": "/a/b", "format": "qcow2"}) == [("/a/b", "qcow2")]


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ("/a/b", "does not tell its format"),
        ("b.raw", "absolute"),
        ({"path": "/a/b", "format": "exe"}, "format"),
        ({"path": "/a/b.raw", "formt": "raw"}, "formt"),
        ({"format": "raw"}, "path"),
        (7, "7"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_why(item, match):
    with pytest.raises(ValidationError, match=match):
        parse(item)


def test_an_image_belongs_to_one_machine():
    with pytest.raises(ValidationError, match="more than once"):
        ImageOptions.model_validate({"machines": {"a": ["/x.raw"], "b": ["/x.raw"]}})


def test_without_machines_it_is_a_place_to_restore_to():
    assert ImageOptions().machines == {}


def test_it_registers_itself():
    found = []
    vbackup_image.vbackup_register_hypervisors(found.append)
    assert [(cls.name, cls.writes_files) for cls in found] == [("image", True)]


def test_importing_the_plugin_loads_nothing_heavy():
    script = "import sys, vbackup_image; sys.exit('vbackup_qemu.nbd' in sys.modules or 'ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
