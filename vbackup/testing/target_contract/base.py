"""What all parts of the contract stand on: how a target is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from vbackup.api import Codec, NotFound, Target, TargetContext, Transport

Opens = Callable[[], Target]


class OneTarget:
    """Tests of one target on an empty place."""

    @pytest.fixture
    def target_factory(self) -> Opens:
        """Override: opens the target on a place that is there and was empty when the test began, as a process does.

        Every call gives a new instance of the same target; see `context` for what to make it with. The tests
        initialise it themselves.
        """
        raise NotImplementedError

    @pytest.fixture
    def target(self, target_factory: Opens) -> Iterator[Target]:
        """Initialise and open it."""
        target = target_factory()
        target.init()
        yield target
        target.close()


def context(
    transport: Transport, directory: Path, codecs: Sequence[Codec] = (), secret: bytes = b"of the contract"
) -> TargetContext:
    """Return what a target is made with: its cache and its state are below ``directory``, which one host has."""

    def codec(name: str) -> Codec:
        for each in codecs:
            if each.name == name:
                return each
        raise NotFound(f"no codec {name}")

    return TargetContext(
        alias="contract",
        transport=transport,
        codecs=codecs,
        codec=codec,
        secret=lambda: secret,
        cache_dir=directory / "cache",
        state_dir=directory / "state",
    )
