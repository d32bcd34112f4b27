"""Encrypted images."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vbackup.testing.lab.libvirtd import until

SECRET = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100"]


def make_luks(path: Path) -> None:
    """Make an encrypted qcow2. QEMU measures the processor for it, which some kernels' clocks make fail at times."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *SECRET, str(path), "1M"]
    until(lambda: subprocess.run(command, capture_output=True).returncode == 0, "qemu-img to make an encrypted image")
