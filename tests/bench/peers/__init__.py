"""The main job beside its peers and its limits, on the same disks, in one run; see `tests.bench.peers.night`."""

from __future__ import annotations

import shutil

from tests.bench.context import Context
from tests.bench.goals import Report
from tests.bench.guests import disks
from tests.bench.peers import benji, borg, limits, ours, qemu, report, restic, virtnbd
from tests.bench.peers.machine import machine
from tests.bench.peers.night import Night
from tests.bench.peers.result import PHASES, Result

TOOLS = (
    ours.VBackup,
    virtnbd.Compressed,
    virtnbd.Plain,
    restic.Restic,
    borg.Borg,
    benji.Benji,
    qemu.Convert,
    limits.Loop,
    limits.NbdCopy,
    limits.Job,
)


def run(context: Context) -> Report:
    """Measure all tools in turn; who is first changes from round to round."""
    data = disks(small=context.small)
    results = {cls.name: Result(cls.name, deduplicates=cls.deduplicates) for cls in TOOLS}
    for number in range(context.rounds):
        print(f"round {number + 1} of {context.rounds}", flush=True)
        first = number % len(TOOLS)
        place = context.place / f"round-{number}"
        with Night(context.libvirtd, place, data) as night:
            tools = [cls(night) for cls in (*TOOLS[first:], *TOOLS[:first])]
            for phase in PHASES:
                night.run(phase, tools, results)
        shutil.rmtree(place)
    raw = {
        "machine": machine(),
        "rounds": context.rounds,
        "small": context.small,
        "data": data.sizes(),
        "tools": {result.name: result.raw() for result in results.values()},
    }
    return Report(report.outcomes(results), report.tables(results, data), raw)
