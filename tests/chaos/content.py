"""What machines hold: bytes that follow from (seed, machine, version), so that every process knows them.

A disk is a list of blocks, each a token: 0 stands for zeros, a number below `SHARED` for a block that all machines
share, any other for one of its own. A version differs from the one before by runs of fresh, shared and zero blocks, by
runs as they were some versions ago (what is garbage by now comes back), and by resizes and disks that come and go.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from blake3 import blake3

from vbackup.testing.hypervisors import GRAIN, FakeDisk, FakeMachine

BLOCK = 16 << 10
"""Bytes; the repository's chunks have the same size."""
SHARED = 400
_LEAST, _MOST = 12, 120  # blocks of a disk, but for a few that need a map of two levels
_HUGE = 300
_OWN = 1 << 20
VERSION = "version"
"""The file of a machine that says which version this is."""


class Disk(NamedTuple):
    """A disk at one version; ``size`` in bytes cuts the last block."""

    tokens: tuple[int, ...]
    size: int


Disks = dict[str, Disk]


class Content:
    """All machines of one run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._versions: dict[str, list[Disks]] = {}

    def disks(self, machine: str, version: int) -> Disks:
        """Return a machine's disks by key."""
        known = self._versions.setdefault(machine, [])
        while len(known) <= version:
            rng = random.Random(f"{self._seed} {machine} {len(known)}")
            known.append(_Next(rng, known).disks() if known else {"vda": _fresh(rng)})
        return known[version]

    def images(self, machine: str, version: int) -> dict[str, bytes]:
        """Return the bytes of a machine's disks by key."""
        return {key: b"".join(map(self._block, d.tokens))[: d.size] for key, d in self.disks(machine, version).items()}

    def guest(self, machine: str, version: int, since: dict[str, int]) -> FakeMachine:
        """Return a machine whose changes are tracked since some of its versions, given by the markers' names."""
        disks = {key: FakeDisk(bytearray(data)) for key, data in self.images(machine, version).items()}
        for marker, before in since.items():
            old = self.disks(machine, before)
            for key, new in self.disks(machine, version).items():
                if key in old:
                    disks[key].dirty[marker] = _changed(old[key], new)
        return FakeMachine(disks, {VERSION: str(version).encode()})

    def _block(self, token: int) -> bytes:
        return blake3(f"{self._seed} {token}".encode()).digest(BLOCK) if token else bytes(BLOCK)


class _Next:
    """Makes the next version."""

    def __init__(self, rng: random.Random, history: list[Disks]) -> None:
        self._rng = rng
        self._history = history

    def disks(self) -> Disks:
        rng, disks = self._rng, dict(self._history[-1])
        chance = rng.random()
        if chance < 0.05 and len(disks) < 3:
            disks[min({"vda", "vdb", "vdc"} - disks.keys())] = _fresh(rng)
        elif chance < 0.1 and len(disks) > 1:
            del disks[rng.choice(sorted(disks))]
        for key in list(disks):
            if rng.random() < 0.8:
                disks[key] = self._change(key, disks[key])
        return disks

    def _change(self, key: str, disk: Disk) -> Disk:
        rng, tokens = self._rng, list(disk.tokens)
        if rng.random() < 0.1:
            return self._resize(disk)
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            at = rng.randrange(len(tokens))
            count = min(rng.choice([1, 1, 3, 10, 40]), len(tokens) - at)
            tokens[at : at + count] = self._run(key, at, count)
        return Disk(tuple(tokens), disk.size)

    def _run(self, key: str, at: int, count: int) -> list[int]:
        rng = self._rng
        kind = rng.choices(["own", "shared", "zero", "old"], [3, 2, 1, 6])[0]
        old = rng.choice(self._history).get(key)
        if kind == "old" and old is not None and len(old.tokens) >= at + count:
            return list(old.tokens[at : at + count])
        if kind == "zero":
            return [0] * count
        return _own(rng, count) if kind == "own" else _shared(rng, count)

    def _resize(self, disk: Disk) -> Disk:
        count = self._rng.randint(_LEAST, _MOST)
        tokens = (disk.tokens + (0,) * count)[:count]
        return Disk(tokens, count * BLOCK - self._rng.choice([0, 0, 512]))


def _fresh(rng: random.Random) -> Disk:
    count = _HUGE if rng.random() < 0.2 else rng.randint(_LEAST, _MOST)
    half = count // 2
    tokens = (*_shared(rng, half // 2), *([0] * (half - half // 2)), *_own(rng, count - half))
    return Disk(tokens, count * BLOCK - rng.choice([0, 512]))


def _own(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(_OWN, 1 << 60) for _ in range(count)]


def _shared(rng: random.Random, count: int) -> list[int]:
    first = rng.randrange(1, SHARED)
    return [1 + (first + number) % (SHARED - 1) for number in range(count)]


def _changed(old: Disk, new: Disk) -> set[int]:
    """Return the grains that differ; from the smaller end on nothing is known."""
    blocks = max(len(old.tokens), len(new.tokens))
    end = min(old.size, new.size) if old.size != new.size else new.size
    differ = {
        index * BLOCK // GRAIN
        for index in range(blocks)
        if index >= min(len(old.tokens), len(new.tokens)) or old.tokens[index] != new.tokens[index]
    }
    if old.size != new.size:
        differ.update(range(end // GRAIN, -(-blocks * BLOCK // GRAIN)))
    return differ
