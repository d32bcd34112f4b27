"""Each transport beside the bare client of its protocol, on the same server: what we add to it must cost little.

Both sides store the same objects, durable one by one, and read them again, from as many threads; they take turns, and
who is first changes from round to round. Neither retries, limits or logs.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.bare import BARE, SIZE, Side
from tests.bench.measure import table
from tests.servers.daemon import Daemons
from tests.servers.ganesha import Ganesha
from tests.servers.radosgw import Radosgw
from tests.servers.samba import PASSWORD, USER, Samba
from tests.servers.sshd import Sshd
from tests.servers.stores import registry
from tests.servers.tgtd import Tgtd
from vbackup.api import Transport

OBJECTS = 16
THREADS = 2
ROUNDS = 10
"""Even, so that each side is first as often as second."""
GOAL = 0.85
_COLD = {"iscsi"}
"""Whose objects would be read from the memory of this host, past the server."""


@dataclass(frozen=True)
class Took:
    """Seconds for all objects; ``cpu`` is of this process alone, without servers and helpers."""

    wall: float
    cpu: float


_Round = dict[tuple[str, str], Took]
"""By side (bare, ours) and operation (put, get)."""


def run(rounds: int = ROUNDS, kinds: Iterable[str] = BARE) -> str:
    """Measure, and report; a ratio is the median of the rounds, in brackets the least and the most."""
    rows = [row for kind in kinds for row in _compared(kind, rounds)]
    head = ["", "bare", "ours", "CPU of ours", f"ratio, goal {GOAL}"]
    return table(f"Transports: {OBJECTS} objects of {SIZE >> 20} MiB, {THREADS} at once", head, rows)


def _compared(kind: str, rounds: int) -> Iterator[Sequence[str]]:
    cls = registry().transports[kind]
    with contextlib.ExitStack() as end:
        options = cls.options.model_validate(end.enter_context(_served(kind)))
        ours = cls(options)
        end.callback(ours.close)
        ours.create()
        pool = end.enter_context(ThreadPoolExecutor(THREADS))
        sides: dict[str, Side] = {"bare": BARE[kind](options, ours, end), "ours": ours}
        data = os.urandom(SIZE)
        _round(pool, sides, ours, data)  # connects
        measured = []
        for number in range(rounds):
            in_turn = dict(sorted(sides.items(), reverse=bool(number % 2)))
            measured.append(_round(pool, in_turn, ours, data))
            print(f"  {kind} {_brief(measured[-1])}", flush=True)
    for what in ("put", "get"):
        yield _row(f"{kind} {what}", [(found["bare", what], found["ours", what]) for found in measured])


def _round(pool: ThreadPoolExecutor, sides: dict[str, Side], ours: Transport, data: bytes) -> _Round:
    """Each leaves the store as it found it: where data goes on a disk makes more of a difference than who sends it."""
    took: _Round = {}
    for who, side in sides.items():
        names = [f"{who}-{number}" for number in range(OBJECTS)]
        took[who, "put"] = _timed(pool, partial(_put, side, data), names)
        if ours.name in _COLD and ours.root:
            _forget(ours.root / name for name in names)
        took[who, "get"] = _timed(pool, partial(_get, side), names)
        for name in names:
            ours.delete(name)
    return took


def _put(side: Side, data: bytes, name: str) -> None:
    side.put(name, data)


def _get(side: Side, name: str) -> None:
    assert len(memoryview(side.get(name))) == SIZE


def _forget(paths: Iterable[Path]) -> None:
    """Let the files, which are on the disk, not be in the memory of this host; what the server has stays."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(pool: ThreadPoolExecutor, work: Callable[[str], None], names: Iterable[str]) -> Took:
    wall, cpu = time.monotonic(), time.process_time()
    for _ in pool.map(work, names):
        pass
    return Took(time.monotonic() - wall, time.process_time() - cpu)


def _brief(measured: _Round) -> str:
    return ", ".join(f"{side} {what} {took.wall:.2f} s" for (side, what), took in measured.items())


def _row(title: str, pairs: Sequence[tuple[Took, Took]]) -> Sequence[str]:
    speeds = [
        OBJECTS * (SIZE >> 20) / statistics.median(took.wall for took in side) for side in zip(*pairs, strict=True)
    ]
    ratios = [bare.wall / ours.wall for bare, ours in pairs]
    ratio = statistics.median(ratios)
    cpu = statistics.median(ours.cpu for _, ours in pairs) * (1 << 30) / (OBJECTS * SIZE)
    mark = "" if ratio >= GOAL else " **missed**"
    spread = f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}){mark}"
    return [title, *(f"{speed:.0f} MiB/s" for speed in speeds), f"{cpu:.2f} s/GiB", spread]


@contextlib.contextmanager
def _served(kind: str) -> Iterator[dict[str, Any]]:
    """Start a server; give the options of a transport on it."""
    if kind == "local":
        with tempfile.TemporaryDirectory(prefix="vbackup-bench-", dir="/var/tmp") as place:
            yield {"path": f"{place}/store"}
    elif kind == "iscsi":
        with contextlib.closing(Tgtd()) as target:
            yield target.entry()
    else:
        with Daemons(kind) as daemons:
            yield _ENTRIES[kind](daemons)


def _on_sshd(daemons: Daemons) -> dict[str, Any]:
    server = Sshd(daemons)
    login = {"user": "root", "identity": server.identity, "known_hosts": server.known_hosts}
    return {"host": "127.0.0.1", "port": server.port, "path": f"{server.root}/store", **login}


def _on_samba(daemons: Daemons) -> dict[str, Any]:
    server = Samba(daemons)
    secret = daemons.root / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    login = {"user": USER, "password": {"file": str(secret)}}
    return {"server": "127.0.0.1", "port": server.port, "share": "store", **login}


_ENTRIES: dict[str, Callable[[Daemons], dict[str, Any]]] = {
    "s3": lambda daemons: Radosgw(daemons).entry(),
    "nfs": lambda daemons: Ganesha(daemons).entry(),
    "sftp": _on_sshd,
    "smb": _on_samba,
}
