"""``make bench``: figures, with public tools only. Needs root; installs the peers from Debian where they lack."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import index, peers, scale, transports
from tests.lab.libvirtd import Libvirtd

PEERS = {"virtnbdbackup": "virtnbdbackup", "restic": "restic", "borg": "borgbackup"}
CHAOS_SECONDS = 600


def main() -> None:
    """Run the benchmarks and print a report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["peers", "scale", "index", "transports", "chaos"])
    parser.add_argument("--chunks", type=int, default=index.CHUNKS, help="of the large repository")
    parser.add_argument("--points", type=int, default=index.LISTED, help="of the large repository")
    arguments = parser.parse_args()
    reports = []
    if arguments.only in {None, "peers", "scale"}:
        reports += measured(arguments.only, arguments.rounds)
    if arguments.only in {None, "index"}:
        with tempfile.TemporaryDirectory(prefix="vbackup-bench-", dir="/var/tmp") as place:
            reports.append(index.run(Path(place), arguments.chunks, arguments.points))
    if arguments.only in {None, "transports"}:
        reports.append(transports.run(max(arguments.rounds, transports.ROUNDS)))
    if arguments.only in {None, "chaos"}:
        reports.append(survived())
    print("\n".join(reports))


def measured(only: str | None, rounds: int) -> list[str]:
    """Measure beside peers and at scale, under a libvirtd of our own."""
    missing = [package for command, package in PEERS.items() if not shutil.which(command)]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], check=True, env=env)
    reports = []
    with Libvirtd() as libvirtd:
        place: Path = libvirtd.root / "bench"
        place.mkdir()
        if only != "peers":
            reports.append(scale.run(libvirtd, place / "scale"))
        if only != "scale":
            reports.append(peers.run(libvirtd, place / "peers", rounds))
    return reports


def survived() -> str:
    """Let ten minutes of chaos go by; see `tests.chaos`."""
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(CHAOS_SECONDS)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
