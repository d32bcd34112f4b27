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

from tests.bench.goals import Report, goals
from tests.bench.parts import OTHERS, PARTS, measured

PEERS = {"virtnbdbackup": "virtnbdbackup", "restic": "restic", "borg": "borgbackup", "nbdcopy": "libnbd-bin"}
"""Debian's packages, by a program in each."""
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
NAMES = {"peers": "bench"}
HEAD = """\
# What `make bench` said

All goals in one run; bench.json has the machine, the versions and all rounds, [README.md](../README.md) the reasons.
"""


def main() -> None:
    """Run the benchmarks, print the goals and all tables, and keep raw figures; goals missed are no failure."""
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
    keep = not arguments.small
    reports = [_run(part, arguments.rounds, keep=keep) for part in chosen if part in PARTS]
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    said = "\n".join([goals(outcomes), *(text for report in reports for text in report.tables)])
    if reports:
        print(said, flush=True)
    # Here, and not at the end: the other parts have no goals, take longest, and may fail.
    is_whole = keep and set(PARTS) <= set(chosen)
    if is_whole:
        (RESULTS / "report.md").write_text(f"{HEAD}\n{said}\n")
    if keep and "peers" in chosen:
        from tests.bench import chart  # only now: it is large

        chart.draw(RESULTS / "bench.json", RESULTS / "bench.svg")
    for part in chosen:
        if part in OTHERS:
            tables = "\n".join(_run(part, arguments.rounds, keep=keep).tables)
            print(tables, flush=True)
            if is_whole:
                with (RESULTS / "report.md").open("a") as report:
                    report.write(f"{tables}\n")


def _run(part: str, rounds: int, *, keep: bool) -> Report:
    """Run a part; ``keep`` its raw figures, and else do but a little of it."""
    print(f"{part}:", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        report = alone.submit(measured, part, rounds, small=not keep).result()
    if report.raw and keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{NAMES.get(part, part)}.json").write_text(json.dumps(report.raw, indent=1) + "\n")
    return report


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
