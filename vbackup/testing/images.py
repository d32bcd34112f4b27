"""A machine that is nothing but an image file, for cycles with ``type: image``: no hypervisor has to run.

Needs ``qemu-img`` and ``qemu-io`` (Debian: ``qemu-utils``).
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "disk0"
"""What ``type: image`` calls the first disk."""
_BLOCK = 64 << 10


def read_image(path: Path) -> bytes:
    """Return what a qcow2 image holds, as a machine sees it."""
    raw = path.with_suffix(".raw")
    _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    content = raw.read_bytes()
    raw.unlink()
    return content


class ImageMachine:
    """A machine ``name`` with one qcow2 disk of ``size`` bytes, a third of it noise, a third text, the rest zeros.

    ::

        machine = ImageMachine(tmp_path)
        site = Site(tmp_path / "site", configuration(tmp_path, machine.hypervisor, transport={"type": "mine", ...}))
        run_cycle(site, machine.name, change=machine.change, read=machine.read)
    """

    def __init__(self, directory: Path, name: str = "web", *, size: int = 16 << 20) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.path = directory / f"{name}.qcow2"
        self._size = size // _BLOCK * _BLOCK
        raw = self._beside("raw")
        raw.write_bytes(_content(self._size))
        _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.path)
        raw.unlink()

    @property
    def hypervisor(self) -> dict[str, Any]:
        """What stands under ``hypervisors:`` for it."""
        return {"type": "image", "machines": {self.name: [str(self.path)]}}

    def change(self, number: int) -> None:
        """Change about a twentieth of the disk: new noise, and zeros, written or discarded; others for each number."""
        rng = random.Random(number)  # noqa: S311 - the same each time
        fresh = self._beside("fresh")
        fresh.write_bytes(rng.randbytes(_BLOCK))
        commands = []
        for _ in range(max(1, self._size // _BLOCK // 40)):
            for how in (f"write -q -s {fresh}", rng.choice(["write -q -z", "discard -q"])):
                commands += ["-c", f"{how} {rng.randrange(self._size // _BLOCK) * _BLOCK} {_BLOCK}"]
        _run("qemu-io", "-f", "qcow2", "-d", "unmap", *commands, self.path)
        fresh.unlink()

    def read(self) -> Mapping[str, bytes]:
        """Return what its disk holds now, by the disk's key."""
        return {KEY: read_image(self.path)}

    def _beside(self, suffix: str) -> Path:
        return self.path.with_suffix(f".{suffix}")


def _content(size: int) -> bytes:
    third = size // 3
    text = b"".join(b"line %d of a text that codecs make smaller\n" % number for number in range(third // 40))
    noise = random.Random(0).randbytes(third)  # noqa: S311 - the same each time
    return (noise + text[:third]).ljust(size, b"\0")


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
