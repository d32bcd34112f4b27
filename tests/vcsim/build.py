"""Builds the simulator, once for each version of its sources; only from packages of Debian."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".lab"


def simulator() -> Path:
    """Return the simulator's program, built when its sources or Go have changed."""
    version = subprocess.run(["go", "version"], check=True, stdout=subprocess.PIPE).stdout
    return _built("vcsim", sorted((HERE / "go").glob("*.go")), version, _go)


def vddk_plugin() -> Path:
    """Return the stand-in for nbdkit's plugin ``vddk``, built when its source has changed."""
    return _built("nbdkit-vddk-plugin.so", [HERE / "vddk" / "plugin.c"], b"", _c)


def _c(sources: list[Path], plugin: Path) -> None:
    _run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Werror", "-fPIC", "-shared", "-o", plugin, *sources])


def _go(sources: list[Path], program: Path) -> None:
    # Debian's packages are a GOPATH; whatever the caller's Go is told must not lead it to the network.
    settings = {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOFLAGS": "",
        "GOCACHE": str(CACHE / "gocache"),
        "CGO_ENABLED": "0",
    }
    _run(["go", "build", "-o", program, *sources], env=os.environ | settings)


def _built(name: str, sources: list[Path], salt: bytes, build: Callable[[list[Path], Path], None]) -> Path:
    digest = hashlib.sha256(salt)
    for source in sources:
        digest.update(source.read_bytes())
    place = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one run all come at once
        if not place.exists():
            half = CACHE / f"building-{name}"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            build(sources, half / name)
            half.rename(place)
            for old in set(CACHE.glob(f"{name}-*")) - {place}:
                shutil.rmtree(old)
    return place / name


def _run(command: list[str | Path], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]} fails:\n{done.stdout}{done.stderr}"
