"""``make bench``: figures, with public tools only. Needs root; installs the peers where they lack."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.bench.goals import goals
from tests.bench.parts import OTHERS, PARTS, measured

PEERS = {"virtnbdbackup": "virtnbdbackup", "restic": "restic", "borg": "borgbackup", "nbdcopy": "libnbd-bin"}
"""Debian's packages, by a program in each."""
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
NAMES = {"peers": "bench"}
HEAD = """\
# What `make bench` said

All of it in one run; bench.json has the machine, the versions and all rounds, [README.md](../README.md) the reasons.
"""


def main() -> None:
    """Run the benchmarks, print all tables and last the goals, and keep raw figures; goals missed are no failure."""
    runs = (*PARTS, *OTHERS)
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=runs, action="append", metavar="PART", help=", ".join(runs))
    parser.add_argument("--small", action="store_true", help="only see that it works; keep no figures")
    arguments = parser.parse_args()
    chosen = arguments.only or runs
    if not {"peers", "guest_effect"}.isdisjoint(chosen):
        _install()
    _compile()
    reports = []
    for part in chosen:
        print(f"{part}:", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            report = alone.submit(measured, part, arguments.rounds, small=arguments.small).result()
        reports.append(report)
        if report.raw and not arguments.small:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{NAMES.get(part, part)}.json").write_text(json.dumps(report.raw, indent=1) + "\n")
    tables = [text for report in reports for text in report.tables]
    said = "\n".join([goals([outcome for report in reports for outcome in report.outcomes]), *tables])
    print(said)
    if not arguments.small and set(PARTS) <= set(chosen):
        (RESULTS / "report.md").write_text(f"{HEAD}\n{said}\n")
    if not arguments.small and "peers" in chosen:
        from tests.bench import chart  # only now: it is large

        chart.draw(RESULTS / "bench.json", RESULTS / "bench.svg")


def _install() -> None:
    """Install the peers that lack, but for benji; see `tests.bench.peers.benji`."""
    missing = [package for command, package in PEERS.items() if not shutil.which(command)]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], check=True, env=env)


def _compile() -> None:
    """Have bytecode, as an installed vbackup has."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "vbackup", "plugins", "tests"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
