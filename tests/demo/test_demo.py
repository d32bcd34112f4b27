"""The demo is the first thing that anybody sees of vbackup."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest


def test_the_demo_ends_well_and_leaves_nothing(no_libvirtd: None, tmp_path: Path) -> None:
    command = ["env", f"TMPDIR={tmp_path}", sys.executable, "-m", "tests.demo"]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("Images are identical.") == 2
    assert "Done: lost, and found again." in run.stdout
    assert list(tmp_path.iterdir()) == []
