"""``make bench``: figures, with public tools only. Needs root; installs the peers where they lack."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.bench.context import Context
from tests.bench.goals import Report, goals
from vbackup.testing.lab.libvirtd import Libvirtd

PARTS = ("peers", "startup", "many", "guest_effect", "random_reads", "latency")
"""Modules with ``run(context) -> Report``."""
PEERS = {"virtnbdbackup": "virtnbdbackup", "restic": "restic", "borg": "borgbackup", "nbdcopy": "libnbd-bin"}
"""Debian's packages, by a program in each."""
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
NAMES = {"peers": "bench"}
HEAD = """\
# What `make bench` said

All of it in one run; bench.json has the machine, the versions and all rounds, [README.md](../README.md) the reasons.
"""
CHAOS_SECONDS = 600
SMALL_CHUNKS = 100_000
SMALL_CHAOS_SECONDS = 30


def main() -> None:
    """Run the benchmarks, print all tables and last the goals, and keep raw figures; goals missed are no failure."""
    runs = (*PARTS, *OTHERS)
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=runs, action="append", metavar="PART", help=", ".join(runs))
    parser.add_argument("--small", action="store_true", help="only see that it works; keep no figures")
    arguments = parser.parse_args()
    _install()
    _compile()
    reports = []
    for part in arguments.only or runs:
        print(f"{part}:", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            report = alone.submit(_measured, part, arguments.rounds, small=arguments.small).result()
        reports.append(report)
        if report.raw and not arguments.small:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{NAMES.get(part, part)}.json").write_text(json.dumps(report.raw, indent=1) + "\n")
    if not arguments.small and "peers" in (arguments.only or runs):
        from tests.bench import chart  # only now: it is large

        chart.draw(RESULTS / "bench.json", RESULTS / "bench.svg")
    tables = [text for report in reports for text in report.tables]
    said = "\n".join([goals([outcome for report in reports for outcome in report.outcomes]), *tables])
    print(said)
    if not arguments.small and set(PARTS) <= set(arguments.only or runs):
        (RESULTS / "report.md").write_text(f"{HEAD}\n{said}\n")


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


def _measured(part: str, rounds: int, *, small: bool) -> Report:
    """Run a part. In a process of its own: what it starts is never counted as smaller than it is itself."""
    with Libvirtd() as libvirtd, tempfile.TemporaryDirectory(prefix="vbackup-bench-", dir="/var/tmp") as place:
        context = Context(libvirtd, Path(place), rounds, small)
        if part in OTHERS:
            return OTHERS[part](context)
        report: Report = importlib.import_module(f"tests.bench.{part}").run(context)
        return report


def _scale(context: Context) -> Report:
    from tests.bench import scale

    return Report(tables=[scale.run(context.libvirtd, context.place / "scale")])


def _index(context: Context) -> Report:
    from tests.bench import index

    chunks, points = (SMALL_CHUNKS, SMALL_CHUNKS // 100) if context.small else (index.CHUNKS, index.LISTED)
    return Report(tables=[index.run(context.place, chunks, points)])


def _transports(context: Context) -> Report:
    from tests.bench import transports

    return Report(tables=[transports.run(context.rounds if context.small else transports.ROUNDS)])


def _chaos(context: Context) -> Report:
    """Let ten minutes of chaos go by; see `tests.chaos`."""
    context.libvirtd.close()  # it has one of its own, and where the lab may not mount, there can be only one
    seconds = SMALL_CHAOS_SECONDS if context.small else CHAOS_SECONDS
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(seconds)]
    return Report(tables=[subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout])


OTHERS: dict[str, Callable[[Context], Report]] = {
    "scale": _scale,
    "index": _index,
    "transports": _transports,
    "chaos": _chaos,
}


if __name__ == "__main__":
    main()
