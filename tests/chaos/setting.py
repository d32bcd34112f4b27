"""Where it all happens: the store with its faults, the clocks that are wrong, sizes so small that much happens."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from tests.chaos.content import BLOCK
from tests.servers.stores import make_transport
from tests.support import CODECS, SECRET, codec
from vbackup.api import TargetContext, Transport, Unavailable, clock
from vbackup.repository import packs, presence, prune, session, store
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.transports import FaultyTransport
from vbackup.wrappers import retry

SKEW_SECONDS = 2 * 86400.0
DEADLINE_SECONDS = 8.0
"""How long a failing store is tried again."""


def shrink() -> None:
    """Make in seconds and kilobytes what takes hours and gigabytes."""
    presence.BEAT_SECONDS = prune.BEAT_SECONDS = 0.4
    packs.PACK_SIZE = prune.PACK_SIZE = 8 * BLOCK
    prune._SMALL = 2 * BLOCK
    prune._SMALL_PACKS = 6
    prune._SMALL_INDEX = 4 << 10
    prune.ROUND = 40 * BLOCK
    session.INDEX_ENTRIES = prune.INDEX_ENTRIES = 60
    store._REFRESH_SECONDS = 0.2
    retry._FIRST_WAIT = 0.02


@dataclass(frozen=True)
class Chances:
    """Of one operation on the store."""

    fail_before: float = 0.006
    fail_after: float = 0.006
    die: float = 0.0002
    freeze: float = 0.0003
    dawdle: float = 0.01
    dawdle_seconds: float = 0.15


CALM = Chances(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Place:
    """The directories of one run."""

    root: Path
    options: dict[str, Any]
    """Of the transport, as in YAML."""

    @property
    def journals(self) -> Path:
        """See `Journals`."""
        return self.root / "journals"

    @property
    def outage(self) -> Path:
        """While it is there, the store is not."""
        return self.root / "outage"

    def make(self) -> None:
        """Make them, and an empty repository."""
        self.journals.mkdir(parents=True)
        repository = self.repository("init", CALM, random.Random(0))
        repository.init()
        repository.close()

    def transport(self) -> Transport:
        """Return a transport to the repository's objects, whose faults are its own."""
        return make_transport(self.options)

    def repository(self, name: str, chances: Chances, rng: random.Random, *, cache: str | None = None) -> Repository:
        """Return the repository as a process named ``name`` opens it; some share a cache."""
        transport = FaultyTransport(self.transport(), self._before(chances, rng), self._after(chances, rng))
        context = TargetContext(
            "main", retry.RetryingTransport(transport, DEADLINE_SECONDS), [codec(name) for name in CODECS], codec,
            lambda: SECRET, self.root / "cache" / (cache or name), self.root / "state" / name,
        )  # fmt: skip
        return Repository(RepositoryOptions(chunk_size=BLOCK), context)

    def _before(self, chances: Chances, rng: random.Random) -> Callable[[int, str, str], Exception | None]:
        def fault(number: int, operation: str, key: str) -> Exception | None:
            del number
            _strike(chances, rng)
            if self.outage.exists() and chances is not CALM:
                return Unavailable(f"{operation} {key}: the store is away")
            if rng.random() < chances.fail_before:
                return Unavailable(f"{operation} {key}: no answer, and nothing done")
            return None

        return fault

    def _after(self, chances: Chances, rng: random.Random) -> Callable[[int, str, str], Exception | None]:
        def fault(number: int, operation: str, key: str) -> Exception | None:
            del number
            _strike(chances, rng)
            if rng.random() < chances.fail_after:
                return Unavailable(f"{operation} {key}: done, and the answer is lost")
            return None

        return fault


def _strike(chances: Chances, rng: random.Random) -> None:
    """Die, stand still until somebody wakes us, or be slow, just here."""
    if rng.random() < chances.die:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    if rng.random() < chances.freeze:
        os.kill(os.getpid(), signal.SIGSTOP)
    if rng.random() < chances.dawdle:
        time.sleep(rng.uniform(0, chances.dawdle_seconds))


def turn_clock(skew: timedelta, drift: float) -> None:
    """Turn this process's clock by ``skew``, and let it run ``drift`` times as fast."""
    true, began = datetime, datetime.now(clock.UTC)

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            passed = true.now(tz) - began
            return began + skew + passed * drift

    clock.datetime = Skewed
