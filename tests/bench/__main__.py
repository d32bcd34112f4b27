"""``make bench``: figures, with public tools only. Needs root; installs the peers from Debian where they lack."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from tests.bench import peers, scale
from tests.lab.libvirtd import Libvirtd

PEERS = {"virtnbdbackup": "virtnbdbackup", "restic": "restic", "borg": "borgbackup"}


def main() -> None:
    """Run the benchmarks and print a report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["peers", "scale"])
    arguments = parser.parse_args()
    missing = [package for command, package in PEERS.items() if not shutil.which(command)]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], check=True, env=env)
    reports = []
    with Libvirtd() as libvirtd:
        place: Path = libvirtd.root / "bench"
        place.mkdir()
        if arguments.only != "peers":
            reports.append(scale.run(libvirtd, place / "scale"))
        if arguments.only != "scale":
            reports.append(peers.run(libvirtd, place / "peers", arguments.rounds))
    print("\n".join(reports))


if __name__ == "__main__":
    main()
