"""What was measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.bench.peers import benji

VERSIONS = {
    "virtnbdbackup": ["virtnbdbackup", "--version"],
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "qemu": ["qemu-img", "--version"],
    "libvirt": ["libvirtd", "--version"],
    "nbdcopy": ["nbdcopy", "--version"],
}
_NUMBER = re.compile(r"\d+(\.\d+)+")


def machine() -> dict[str, str | int]:
    """Return the processor, the kernel and the versions of all tools."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "vbackup": version("vbackup"),
        "zstandard": version("zstandard"),
        "benji": benji.RELEASE.partition("==")[2],
        **{name: _version(command) for name, command in VERSIONS.items()},
    }


def _version(command: list[str]) -> str:
    said = subprocess.run(command, check=True, text=True, capture_output=True).stdout
    found = _NUMBER.search(said)
    return found[0] if found else said.strip()
