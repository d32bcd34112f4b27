"""What all parts of the contract stand on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from vbackup.api import Transport, VBackupError

T = TypeVar("T")
MIB = 1 << 20
_PAUSE = 0.1


class OnePlace:
    """Tests of one transport on an empty place."""

    @pytest.fixture
    def transport(self) -> Transport:
        """Override: a transport on a place that is there and empty."""
        raise NotImplementedError


def keys_of(transport: Transport, prefix: str = "") -> list[str]:
    """Return the keys of what is listed, sorted."""
    return sorted(info.key for info in transport.list(prefix))


def patiently(action: Callable[[], T], seconds: float, passing: type[VBackupError] | None = None) -> T:
    """Do it again, for so many seconds, while it fails with a ``passing`` error, or one that says it is transient.

    That is what the layer above the transports does.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except VBackupError as error:
            again = error.transient if passing is None else isinstance(error, passing)
            if not again or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)
