"""Writers, prunes, checks, restores and deletions at once on one repository, and nothing goes well.

``python -m tests.chaos --seconds 600``: processes are killed and stopped at random and between any two operations of
the store, which fails, is away and is slow; their clocks are days off. Then every promise is checked; see `Verdict`.
What a run left is kept when it fails: ``PLACE/logs`` and ``PLACE/journals`` say what happened.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.chaos.roles import BrokenPromiseError, Worker
from tests.chaos.setting import SKEW_SECONDS, Chances, Place, shrink, turn_clock
from tests.chaos.verdict import Verdict
from tests.servers.stores import registry

STEP_SECONDS = 0.05


@dataclass
class Slot:
    """One process and, when it was killed, the next one in its place."""

    name: str
    role: str
    machines: tuple[str, ...] = ()
    cache: str | None = None
    process: int = 0
    lives: int = 0
    begins: float = 0.0
    """Not before, by the monotonic clock."""
    wakes: float = 0.0
    """When a process that stands still goes on; 0: it runs."""


def cast() -> list[Slot]:
    """Return who plays. Some share a cache, as runs on one host do."""
    return [
        Slot("writer0", "write", ("m0", "m1"), "shared"),
        Slot("writer1", "write", ("m2", "m3")),
        Slot("writer2", "write", ("m4", "m5"), "shared"),
        Slot("prune0", "prune"),
        Slot("prune1", "prune", (), "shared"),
        Slot("deleter", "delete"),
        Slot("checker", "check", (), "shared"),
        Slot("restorer0", "restore"),
        Slot("restorer1", "restore", (), "shared"),
    ]


@dataclass
class Chaos:
    """One run."""

    place: Place
    seed: int
    slots: list[Slot] = field(default_factory=cast)
    killed: int = 0
    stood: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def run(self, seconds: float) -> None:
        """Let it go on until a process finds something wrong, or for ``seconds``; then end all processes."""
        (self.place.root / "logs").mkdir()
        end = time.monotonic() + seconds
        outage_ends = 0.0
        try:
            while (now := time.monotonic()) < end and not self.failures:
                self._reap()
                for slot in self.slots:
                    self._care(slot, now)
                if outage_ends and now >= outage_ends:
                    self.place.outage.unlink()
                    outage_ends = 0.0
                elif not outage_ends and self._rng.random() < 0.004:
                    self.place.outage.touch()
                    outage_ends = now + self._rng.choice([0.3, 1, 3])
                time.sleep(STEP_SECONDS)
        finally:
            for slot in self.slots:
                self._end(slot)
            self.place.outage.unlink(missing_ok=True)

    def _care(self, slot: Slot, now: float) -> None:
        if not slot.process:
            if now >= slot.begins:
                self._start(slot)
        elif slot.wakes and now >= slot.wakes:
            os.kill(slot.process, signal.SIGCONT)
            slot.wakes = 0.0
        elif self._rng.random() < 0.003:
            os.kill(slot.process, signal.SIGKILL)
        elif self._rng.random() < 0.003:
            os.kill(slot.process, signal.SIGSTOP)

    def _start(self, slot: Slot) -> None:
        rng = random.Random(f"{self.seed} {slot.name} {slot.lives}")
        slot.lives += 1
        slot.wakes = 0.0
        slot.process = os.fork()
        if not slot.process:
            self._child(slot, rng)

    def _child(self, slot: Slot, rng: random.Random) -> None:
        log = os.open(self.place.root / "logs" / f"{slot.name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            turn_clock(timedelta(seconds=rng.uniform(-SKEW_SECONDS, SKEW_SECONDS)), rng.choice([0.5, 1, 1, 50]))
            machines, seed = slot.machines, self.seed
            Worker(self.place, slot.name, seed, rng, Chances(), machines, slot.cache).live(slot.role)
        except BaseException:  # noqa: BLE001 - the process ends with it; the log says why
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _reap(self) -> None:
        for slot in self.slots:
            if not slot.process:
                continue
            process, status = os.waitpid(slot.process, os.WNOHANG | os.WUNTRACED)
            if not process:
                continue
            if os.WIFSTOPPED(status):
                self.stood += 1
                slot.wakes = time.monotonic() + self._rng.choice([0.1, 0.5, 2, 4])
                continue
            slot.process = 0
            slot.begins = time.monotonic() + self._rng.choice([0, 0, 0.5, 2])
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self.killed += 1
            else:
                self.failures.append(f"{slot.name} ended by itself: see {self.place.root}/logs/{slot.name}.log")

    @staticmethod
    def _end(slot: Slot) -> None:
        if slot.process:
            os.kill(slot.process, signal.SIGKILL)
            os.waitpid(slot.process, 0)
            slot.process = 0


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Make a directory, and remove it if all goes well."""
    path = Path(tempfile.mkdtemp(prefix="vbackup-chaos-"))
    yield path
    shutil.rmtree(path)


def alone(action: Callable[[], None]) -> None:
    """Do something in a process of its own: no thread of a client may be running here when others are forked."""
    process = os.fork()
    if not process:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the process ends with it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    if os.waitpid(process, 0)[1]:
        raise BrokenPromiseError("no repository could be made")


def main() -> None:
    """Run, and say what came of it; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: a new one")
    parser.add_argument("--store", type=json.loads, help="a transport's options as JSON; else a directory")
    arguments = parser.parse_args()
    seed = arguments.seed or random.SystemRandom().randrange(1, 1 << 32)
    print(f"chaos: seed {seed}, {arguments.seconds:g} s", flush=True)
    shrink()
    with directory() as root:
        print(f"in {root}, kept on failure", flush=True)
        place = Place(root, arguments.store or {"type": "local", "path": str(root / "store")})
        chaos = Chaos(place, seed)
        registry()  # here, once; not in each process
        alone(place.make)
        chaos.run(arguments.seconds)
        print(f"{chaos.killed} processes were killed, {chaos.stood} stood still for a while", flush=True)
        if chaos.failures:
            raise BrokenPromiseError("\n".join(chaos.failures))
        print(Verdict(chaos.place, seed).reach(), flush=True)


if __name__ == "__main__":
    main()
