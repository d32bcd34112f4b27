"""Closing parts of plugins: one that fails or hangs keeps neither the others nor the command."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from vbackup.api import VBackupError
from vbackup.guards.blame import Blame, told

PATIENCE = 30.0
"""Seconds; nothing that counts is left to be done by then."""
_log = logging.getLogger(__name__)


class Closable(Protocol):
    """A part that is closed."""

    def close(self) -> None:
        """Let go of connections."""


def closed(part: Closable, blame: Blame) -> bool:
    """Close a part, and log what is wrong with that; return whether all went well."""
    done = threading.Event()
    failures: list[str] = []

    def close() -> None:
        try:
            with blame.calling("close"):
                part.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other parts are closed, too
            failures.append(error.message if isinstance(error, VBackupError) else f"{blame.what}: {told(error)}")
        finally:
            done.set()

    threading.Thread(target=close, name=f"close {blame.what}", daemon=True).start()
    if not done.wait(PATIENCE):
        failures.append(blame.error(f"close has not returned for {PATIENCE:g} s, and is left alone").message)
    for failure in failures:
        _log.warning("%s (%s)", failure, blame.hint)
    return not failures
