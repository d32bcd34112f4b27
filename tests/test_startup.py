"""Commands begin fast because they import no more than they need: by the names of modules, as times prove nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAM = """
import sys
from vbackup.cli.main import execute
code = execute(sys.argv[1:])
sys.stderr.write("\\n".join(sys.modules))
sys.exit(code)
"""
LIBRARIES = {"libvirt", "botocore", "obstore", "asyncssh", "smbclient", "smbprotocol", "pyVmomi", "ssl"}
"""What only talks to hypervisors and stores, and takes long to import."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    path = tmp_path / "vbackup.yaml"
    document = {
        "hypervisors": {"lab": {"type": "libvirt"}},
        "transports": {"disk": {"type": "local", "path": str(tmp_path / "store")}},
        "targets": {"main": {"type": "repository", "transport": "disk", "key": {"file": str(tmp_path / "key")}}},
    }
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def imported(place: Path, *arguments: str) -> set[str]:
    """Run a command; return the modules that it imported."""
    env = os.environ | {"VBACKUP_STATE_DIR": str(place / "state"), "VBACKUP_CACHE_DIR": str(place / "cache")}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def of(packages: Sequence[str] | set[str], modules: set[str]) -> list[str]:
    return sorted(name for name in modules if name.partition(".")[0] in packages)


def test_the_help_needs_nothing_but_click(tmp_path: Path) -> None:
    modules = imported(tmp_path, "--help")
    assert of({"pydantic", "rich", "ruamel", "pluggy", "cryptography", "importlib_metadata"} | LIBRARIES, modules) == []
    assert not {"importlib.metadata", "json", "asyncio", "vbackup.api", "vbackup.registry"} & modules


def test_a_listing_asks_no_plugin_that_is_not_configured(tmp_path: Path, config: Path) -> None:
    imported(tmp_path, "-c", str(config), "init")
    modules = imported(tmp_path, "-c", str(config), "list")
    assert of({"rich", "asyncio"} | LIBRARIES, modules) == []
    plugins = ["image", "iscsi", "nfs", "s3", "sftp", "smb", "vsphere"]
    assert of({f"vbackup_{name}" for name in plugins}, modules) == [f"vbackup_{name}" for name in plugins]
